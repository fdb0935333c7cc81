//! Programs that checks run: those that `cargo xtask setup` fetched, else the machine's own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Where `cargo xtask setup` has put what the machine lacks; in virtual machines all are in `/usr/bin`.
const DIRECTORY: &str = "PLUMBLINE_TOOLS";

/// The program, ready for its arguments.
pub fn tool(name: &str) -> Command {
    let fetched = std::env::var_os(DIRECTORY).map(|directory| Path::new(&directory).join(name));
    Command::new(fetched.filter(|program| program.exists()).unwrap_or_else(|| PathBuf::from(name)))
}

/// Whether the programs were set up, so that what they cannot do is a failure.
pub fn are_set_up() -> bool {
    std::env::var_os(DIRECTORY).is_some() || std::process::id() == 1
}

/// Runs to its end; an error is what it complained of.
pub fn run_quietly(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    output.status.success().then_some(()).ok_or_else(|| format!("{name}: {}: {said}", output.status))
}
