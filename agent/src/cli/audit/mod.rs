//! `plumbline audit`: the log, for those who keep it and those who judge it. One file per command.
//!
//! Exit codes of every command: 0 done or intact, 1 tampered, 2 incomplete but declared, 3 untrusted key, 4 no answer.

mod cat;
mod consistency;
mod export;
mod keys;
mod prove;
mod query;
mod report;
mod stat;
mod tail;
mod verify;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use plumbline_audit::{
    VerifierKey,
    checkpoint::CheckpointError,
    note::NoteError,
    verify::{VerifyError, key_from_text_or_file},
};

use super::failed;
use crate::config::Config;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Prove the log: exit 0 intact, 1 tampered, 2 incomplete but declared, 3 untrusted key, 4 usage
    Verify(verify::Arguments),
    /// Write the proof that a record is in the log, or check one
    Prove(prove::Arguments),
    /// Show that a checkpoint kept elsewhere is the beginning of this log
    Consistency(consistency::Arguments),
    /// Copy the log for a reviewer: evidence with everything needed to judge it, or C2SP tiles
    Export(export::Arguments),
    /// Find records
    Query(query::Arguments),
    /// Print the last records, and with --follow those to come
    Tail(tail::Arguments),
    /// Sizes, rates, keys and ages
    Stat(stat::Arguments),
    /// The reviewer's summary of a time: counts, gaps, coverage, key events, controls
    Report(report::Arguments),
    /// Print records, one JSON object per line, byte for byte as they were hashed
    Cat(cat::Arguments),
    /// Make a signing key for a node or a witness
    Keygen(keys::Keygen),
    /// Print what an inventory and a reviewer must know of this node's key
    Enroll(keys::Enroll),
}

/// Tampered, or a proof that does not hold.
const TAMPERED: u8 = 1;
/// Signed with a key that is not trusted.
const UNTRUSTED: u8 = 3;
/// No answer at all.
const USAGE: u8 = 4;

/// The exit code of arguments that make no sense.
pub(super) fn usage() -> ExitCode {
    ExitCode::from(USAGE)
}

pub(super) fn main(command: &Command) -> ExitCode {
    let outcome = match command {
        Command::Verify(arguments) => verify::run(arguments),
        Command::Prove(arguments) => prove::run(arguments),
        Command::Consistency(arguments) => consistency::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Query(arguments) => query::run(arguments),
        Command::Tail(arguments) => tail::run(arguments),
        Command::Stat(arguments) => stat::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Cat(arguments) => cat::run(arguments),
        Command::Keygen(arguments) => keys::generate(arguments),
        Command::Enroll(arguments) => keys::enroll(arguments),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            failed(error.as_ref());
            ExitCode::from(code_of(error.as_ref()))
        }
    }
}

/// The exit code of a command, or why there is none better than [`USAGE`].
type Outcome = Result<u8, Box<dyn Error>>;

/// A checkpoint that no trusted key signed is its own answer.
fn code_of(error: &(dyn Error + 'static)) -> u8 {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(VerifyError::Checkpoint {
            source: CheckpointError::Note(NoteError::NoTrustedSignature | NoteError::WrongSignature { .. }),
            ..
        }) = error.downcast_ref()
        {
            return UNTRUSTED;
        }
        cause = error.source();
    }
    USAGE
}

/// Which log.
#[derive(Debug, clap::Args)]
struct LogDir {
    /// The log's directory [default: that of the configuration]
    directory: Option<PathBuf>,
}

impl LogDir {
    fn path(&self) -> Result<PathBuf, Box<dyn Error>> {
        match &self.directory {
            Some(directory) => Ok(directory.clone()),
            None => Ok(Config::load(None)?.0.log_dir()),
        }
    }
}

/// Whom to believe.
#[derive(Debug, clap::Args)]
struct Keys {
    /// The node's verifier key, or a file that holds it; can be given more than once [default: node.vkey beside the log]
    #[arg(long, value_name = "VKEY|FILE")]
    key: Vec<String>,
}

impl Keys {
    fn trusted(&self, log_dir: &Path) -> Result<Vec<VerifierKey>, VerifyError> {
        if self.key.is_empty() {
            let beside = log_dir.parent().unwrap_or(Path::new(".")).join("node.vkey");
            return Ok(vec![key_from_text_or_file(&beside.to_string_lossy())?]);
        }
        self.key.iter().map(|key| key_from_text_or_file(key)).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Human,
    Json,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

impl Output {
    fn is_json(&self) -> bool {
        self.format == Format::Json
    }
}
