//! A process that calls a library as it is told, a line at a time.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::{ensure, not_ok, skipped};
use crate::{checks::Ended, daemon::Tools};

pub(super) struct Caller {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    program: &'static str,
}

impl Caller {
    pub(super) fn start(tools: &Tools, program: &'static str, library: &Path) -> Result<Self, Ended> {
        let path = tools.beside(program).ok_or_else(|| skipped(&format!("{program} is not built")))?;
        let child = Command::new(path).arg(library).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(not_ok)?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(not_ok("no pipes"));
        };
        let mut caller = Self { child, orders, answers: BufReader::new(answers), program };
        let ready = caller.answer()?;
        ensure(ready == "ready", || format!("{program} says {ready:?}"))?;
        Ok(caller)
    }

    pub(super) fn call(&mut self, order: &str, answer: &str) -> Result<(), Ended> {
        self.order(order)?;
        let said = self.answer()?;
        ensure(said == answer, || format!("{order}: {said:?} instead of {answer:?}"))
    }

    pub(super) fn order(&mut self, order: &str) -> Result<(), Ended> {
        writeln!(self.orders, "{order}").map_err(not_ok)
    }

    pub(super) fn answer(&mut self) -> Result<String, Ended> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(not_ok)?;
        Ok(line.trim().to_owned())
    }

    /// The start of a line of the page that is of this process.
    pub(super) fn line(&self, series: &str, more: &str) -> String {
        let (pid, program) = (self.child.id(), self.program);
        format!("{series}{{pid=\"{pid}\",process=\"{program}\",pod=\"\",namespace=\"\",container=\"\",{more}}}")
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
