//! Policies from the command line: `check`, `test`, and one file per command of `policy`.

pub(super) mod check;
mod explain;
mod import;
mod learn;
mod list;
mod schema;
pub(super) mod test;

use std::{error::Error, path::PathBuf, process::ExitCode};

use plumbline_policy::PolicySet;

use super::{ConfigFile, failed};
use crate::config::Config;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say of an event which rules match, which do not, and why
    Explain(explain::Arguments),
    /// Make an allow-list from what happens, as YAML to be reviewed
    Learn(learn::Arguments),
    /// Ask the running daemon for its policies: mode, matches, last match, bytes in the kernel
    List(list::Arguments),
    /// Convert a Tetragon TracingPolicy
    Import(import::Arguments),
    /// Print the JSON Schema of policies, for editors
    Schema,
}

pub(super) fn main(command: &Command) -> ExitCode {
    let outcome = match command {
        Command::Explain(arguments) => explain::run(arguments),
        Command::Learn(arguments) => learn::run(arguments),
        Command::List(arguments) => list::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Schema => Ok(schema::run()),
    };
    outcome.unwrap_or_else(|error| failed(error.as_ref()))
}

/// The exit code of a command, or why it could not be done.
type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Which policies.
#[derive(Debug, clap::Args)]
struct Policies {
    /// The directory of policies [default: that of the configuration, else the built-in ones]
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

impl Policies {
    fn load(&self) -> Result<PolicySet, Box<dyn Error>> {
        let configured = || Ok::<_, Box<dyn Error>>(Config::load(self.config.config.as_deref())?.0.policies);
        let directory = match &self.policies {
            Some(directory) => Some(directory.clone()),
            None => configured()?,
        };
        match directory {
            Some(directory) => Ok(PolicySet::load(&directory)?),
            None => Ok(PolicySet::embedded()),
        }
    }

    /// The log of the configuration, where none is given.
    fn log(&self, given: Option<&PathBuf>) -> Result<PathBuf, Box<dyn Error>> {
        match given {
            Some(log) => Ok(log.clone()),
            None => Ok(Config::load(self.config.config.as_deref())?.0.log_dir()),
        }
    }
}
