//! What others do for the same purpose, switched on for a measurement and off again: a rule of the kernel's audit system that
//! watches a directory, and a line of bpftrace at `openat`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cmd;
use crate::error::{Error, Result};

/// The name of our rule, so that it and no other is taken away.
const KEY: &str = "plumbline-bench";

/// A watch of the audit system, without its daemon: the kernel keeps the rule, and nobody reads.
#[derive(Debug)]
pub(super) struct AuditRule {
    auditctl: PathBuf,
    directory: PathBuf,
    was_enabled: bool,
}

impl AuditRule {
    pub(super) fn set(auditctl: &Path, directory: &Path) -> Result<Self> {
        // One that was left by a run that was interrupted.
        let _ = cmd::output(Command::new(auditctl).args(["-D", "-k", KEY]));
        let status = cmd::output(Command::new(auditctl).arg("-s"))?;
        let was_enabled = !status.lines().any(|line| line.trim() == "enabled 0");
        let rule = Self { auditctl: auditctl.to_owned(), directory: directory.to_owned(), was_enabled };
        rule.change("-w")?;
        cmd::output(Command::new(auditctl).args(["-e", "1"]))?;
        Ok(rule)
    }

    fn change(&self, how: &str) -> Result<()> {
        let mut auditctl = Command::new(&self.auditctl);
        auditctl.arg(how).arg(&self.directory).args(["-p", "r", "-k", KEY]);
        cmd::output(&mut auditctl).map(drop)
    }
}

impl Drop for AuditRule {
    fn drop(&mut self) {
        let _ = self.change("-W");
        if !self.was_enabled {
            let _ = cmd::output(Command::new(&self.auditctl).args(["-e", "0"]));
        }
    }
}

/// `bpftrace` with a program, in a mount namespace of its own, where it finds the kernel's list of tracepoints.
#[derive(Debug)]
pub(super) struct Bpftrace {
    child: Child,
}

impl Bpftrace {
    pub(super) fn start(program: &str) -> Result<Self> {
        const SCRIPT: &str = "mount -t debugfs none /sys/kernel/debug; mount -t tracefs none /sys/kernel/debug/tracing; \
            exec timeout -s INT 120 bpftrace -e \"$1\"";
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", SCRIPT, "sh", program])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(|source| Error::Start { program: "unshare".to_owned(), source })?;
        let mut bpftrace = Self { child };
        let stdout = bpftrace.child.stdout.take();
        let mut lines =
            stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(std::io::Result::ok);
        if !lines.any(|line| line.starts_with("Attach")) {
            return Err(Error::said("bpftrace attached nothing"));
        }
        // It says so before it does.
        sleep(Duration::from_secs(1));
        Ok(bpftrace)
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if pid.is_none_or(|pid| kill_process(pid, Signal::INT).is_err()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
