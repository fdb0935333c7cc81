//! `plumbline audit consistency`: is the log of today the log of then, with more behind it?

use std::path::PathBuf;

use plumbline_audit::{
    proof::is_consistent,
    tlog_proof::{ProveError, prove_consistency, root_at},
    verify::checkpoint_from_file,
};
use serde_json::json;

use super::{Keys, LogDir, Outcome, Output, TAMPERED};
use crate::cli::say;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// A checkpoint kept elsewhere
    old: PathBuf,
    #[command(flatten)]
    log: LogDir,
    /// A later checkpoint [default: the log's own]
    #[arg(long, value_name = "FILE")]
    new: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = arguments.log.path()?;
    let trusted = arguments.keys.trusted(&directory)?;
    let old = checkpoint_from_file(&arguments.old, &trusted)?.checkpoint;
    let (path, new) = match prove_consistency(&directory, old.size, &trusted) {
        Ok((path, signed)) => (path, signed.checkpoint),
        Err(ProveError::NoSuchTree { wanted, size }) => {
            let why =
                format!("the checkpoint signs {wanted} records, and the log has {size}: it was cut or rolled back");
            return Ok(answer(arguments, TAMPERED, &why, &[]));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(later) = &arguments.new {
        let later = checkpoint_from_file(later, &trusted)?.checkpoint;
        if later.size > new.size || root_at(&directory, later.size)? != later.root {
            return Ok(answer(arguments, TAMPERED, "the later checkpoint is of another history", &[]));
        }
    }
    let consistent = old.origin == new.origin && is_consistent(old.size, &old.root, new.size, &new.root, &path);
    let path: Vec<String> = path.iter().map(|hash| hash.to_base64()).collect();
    if consistent {
        let why = format!("the first {} of {} records are those of the checkpoint", old.size, new.size);
        return Ok(answer(arguments, 0, &why, &path));
    }
    Ok(answer(arguments, TAMPERED, "the checkpoint and the log are two histories", &[]))
}

fn answer(arguments: &Arguments, code: u8, why: &str, path: &[String]) -> u8 {
    let verdict = if code == 0 { "consistent" } else { "INCONSISTENT" };
    if arguments.output.is_json() {
        say(&json!({ "verdict": verdict.to_lowercase(), "why": why, "proof": path }).to_string());
    } else {
        say(&format!("{verdict}: {why}"));
        path.iter().for_each(|hash| say(&format!("  {hash}")));
    }
    code
}
