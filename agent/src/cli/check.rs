//! `plumbline check DIR`: policies, offline, without privileges.

use std::{path::PathBuf, process::ExitCode};

use super::say;
use crate::daemon::explain;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The directory that holds the policies
    directory: PathBuf,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match plumbline_policy::check(&arguments.directory, None) {
        Ok(report) => {
            say(report.to_string().trim_end());
            ExitCode::from(report.exit_code())
        }
        Err(error) => {
            eprint!("{}", explain(&error));
            ExitCode::FAILURE
        }
    }
}
