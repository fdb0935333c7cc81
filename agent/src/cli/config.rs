//! `plumbline config check|show`.

use std::process::ExitCode;

use super::{ConfigFile, failed, say};
use crate::config::Config;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read the configuration and say whether it is valid
    Check(ConfigFile),
    /// Show the configuration that holds here, defaults included
    Show(ConfigFile),
}

pub(super) fn main(command: &Command) -> ExitCode {
    let (Command::Check(file) | Command::Show(file)) = command;
    match Config::load(file.config.as_deref()) {
        Ok((_, origin)) if matches!(command, Command::Check(_)) => say(&format!("{origin}: valid")),
        Ok((config, origin)) => say(&format!("# from {origin}\n{config:#?}")),
        Err(error) => return failed(&error),
    }
    ExitCode::SUCCESS
}
