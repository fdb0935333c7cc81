//! `plumbline policy schema`: what editors need to help with writing policies.

use std::process::ExitCode;

use crate::cli::say;

pub(super) fn run() -> ExitCode {
    say(plumbline_policy::json_schema().trim_end());
    ExitCode::SUCCESS
}
