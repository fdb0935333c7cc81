//! `plumbline audit verify`: proves the log, also while it is written.

use std::path::PathBuf;

use plumbline_audit::verify::{self, verify};

use super::{Keys, LogDir, Outcome, Output};
use crate::cli::say;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    log: LogDir,
    #[command(flatten)]
    keys: Keys,
    /// A checkpoint kept elsewhere, which the log must contain
    #[arg(long, value_name = "FILE")]
    expect_at_least: Option<PathBuf>,
    /// The log is at rest: records after its last checkpoint are tampering, and not the work of a running writer
    #[arg(long)]
    at_rest: bool,
    /// Segments checked side by side [default: as many as there are processors]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = arguments.log.path()?;
    let trusted = arguments.keys.trusted(&directory)?;
    let expected = arguments.expect_at_least.as_deref();
    let options = verify::Options {
        expect_at_least: expected.map(|path| verify::checkpoint_from_file(path, &trusted)).transpose()?,
        at_rest: arguments.at_rest,
        threads: arguments.threads,
    };
    let report = verify(&directory, &trusted, &options)?;
    if arguments.output.is_json() {
        say(&serde_json::to_string(&report)?);
    } else {
        say(report.to_string().trim_end());
        if arguments.keys.key.is_empty() {
            say("  trust       the key beside the log, because no --key was given: compare it with your inventory");
        }
    }
    Ok(report.exit_code())
}
