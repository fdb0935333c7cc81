//! `plumbline audit prove`: one record's proof in a file, made or checked.

use std::{fs, path::PathBuf};

use plumbline_audit::tlog_proof::{ProofError, TlogProof, prove};
use serde_json::json;

use super::{Keys, LogDir, Outcome, Output, TAMPERED, UNTRUSTED};
use crate::cli::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline audit prove --seq 17 --out 17.tlog-proof && plumbline audit cat --seq 17 > 17.json
  plumbline audit prove --check 17.tlog-proof --record 17.json --key node.vkey")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    log: LogDir,
    #[command(flatten)]
    keys: Keys,
    /// The record to prove
    #[arg(long, value_name = "SEQ", required_unless_present = "check")]
    seq: Option<u64>,
    /// Where the proof goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Check this proof instead of making one; needs no log
    #[arg(long, value_name = "FILE", requires = "record", requires = "key")]
    check: Option<PathBuf>,
    /// The record's bytes, as `audit cat` prints them
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if let (Some(proof), Some(record)) = (&arguments.check, &arguments.record) {
        return check(arguments, proof, record);
    }
    let directory = arguments.log.path()?;
    let proof = prove(&directory, arguments.seq.unwrap_or(0), &arguments.keys.trusted(&directory)?)?.to_text();
    match &arguments.out {
        Some(path) => fs::write(path, proof).map_err(|error| format!("cannot write {}: {error}", path.display()))?,
        None => say(proof.trim_end()),
    }
    Ok(0)
}

fn check(arguments: &Arguments, proof: &PathBuf, record: &PathBuf) -> Outcome {
    let read = |path: &PathBuf| fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    let text = String::from_utf8(read(proof)?)?;
    let record = read(record)?;
    // `cat` ends a record with a line break that is no part of it.
    let record = record.strip_suffix(b"\n").unwrap_or(&record);
    let trusted = arguments.keys.trusted(proof)?;
    let (code, verdict, why) = match TlogProof::parse(&text).and_then(|proof| proof.check(record, &trusted)) {
        Ok(checkpoint) => (0, "proved", format!("record of the first {} of {}", checkpoint.size, checkpoint.origin)),
        Err(error @ ProofError::Form { .. }) => return Err(error.into()),
        Err(error @ ProofError::Checkpoint(_)) => (UNTRUSTED, "untrusted", crate::core::chain(&error)),
        Err(error) => (TAMPERED, "not proved", error.to_string()),
    };
    if arguments.output.is_json() {
        say(&json!({ "verdict": verdict, "why": why }).to_string());
    } else {
        say(&format!("{verdict}: {}", why.escape_debug()));
    }
    Ok(code)
}
