//! Becoming root for the one program that needs it; everything else runs as the user.

use std::path::Path;
use std::process::Command;

use crate::cmd;
use crate::error::{Error, Result};

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs `program` as root; `sudo` may ask for the user's password.
pub(crate) fn elevated(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if !cmd::exists("sudo") {
        return Err(Error::said(format!(
            "{} must run as root, and there is no `sudo`; run it yourself from a root shell",
            program.display()
        )));
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

/// The words to put before a test program so that it runs as root without anyone being asked; or why there are none.
pub(crate) fn silent_runner(keep_variables: &[&str]) -> std::result::Result<Vec<String>, &'static str> {
    if is_root() {
        return Ok(Vec::new());
    }
    if cmd::output(Command::new("sudo").args(["-n", "true"])).is_err() {
        return Err("it needs root, and `sudo` is absent or wants a password");
    }
    Ok(vec!["sudo".to_owned(), "-n".to_owned(), format!("--preserve-env={}", keep_variables.join(","))])
}
