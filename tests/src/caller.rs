//! A process that calls a library as it is told, a line at a time.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// NCCL's hash of the id that `nccl-caller` makes of the seed 0: the bytes 0 to 127.
pub const COMM: &str = "0x6afe1cc17717e1f4";

/// It is ended with this.
#[derive(Debug)]
pub struct Caller {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    program: &'static str,
}

impl Caller {
    /// Starts the program of this name, which is at this path, and waits until it is ready.
    pub fn start(program: &'static str, path: &Path, library: &Path) -> Result<Self, String> {
        Self::start_with(program, path, library, &[])
    }

    /// The same, with these variables in its environment.
    pub fn start_with(
        program: &'static str,
        path: &Path,
        library: &Path,
        variables: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut command = Command::new(path);
        command.arg(library).envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", path.display()))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".to_owned());
        };
        let mut caller = Self { child, orders, answers: BufReader::new(answers), program };
        let ready = caller.answer()?;
        if ready == "ready" { Ok(caller) } else { Err(format!("{program} says {ready:?}")) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn call(&mut self, order: &str, answer: &str) -> Result<(), String> {
        self.order(order)?;
        let said = self.answer()?;
        if said == answer { Ok(()) } else { Err(format!("{order}: {said:?} instead of {answer:?}")) }
    }

    pub fn order(&mut self, order: &str) -> Result<(), String> {
        writeln!(self.orders, "{order}").map_err(|error| error.to_string())
    }

    pub fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| error.to_string())?;
        Ok(line.trim().to_owned())
    }

    /// The start of a line of the page that is of this process.
    pub fn line(&self, series: &str, more: &str) -> String {
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
