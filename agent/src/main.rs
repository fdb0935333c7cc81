//! The binary: one name for the daemon and every tool around it.

use std::process::ExitCode;

fn main() -> ExitCode {
    plumbline::cli::main()
}
