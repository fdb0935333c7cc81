//! `plumbline policy import FILE`: a Tetragon TracingPolicy as a policy.

use std::{fs, path::PathBuf, process::ExitCode};

use super::Outcome;
use crate::cli::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline policy import vllm-runtime-watch.yaml > policies/vllm-runtime-watch.yaml
What cannot be said in a policy is refused, with its line: nothing is left out in silence.")]
pub(in crate::cli) struct Arguments {
    /// The file with the TracingPolicy or TracingPolicyNamespaced
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let name = arguments.file.display().to_string();
    let text = fs::read_to_string(&arguments.file).map_err(|error| format!("{name}: {error}"))?;
    match plumbline_policy::import_tetragon(&name, &text) {
        Ok(policy) => {
            say(policy.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            let mut drawn = String::new();
            // Writing into a string cannot fail.
            let _ = mistakes.render(&mut drawn);
            eprint!("{drawn}");
            Err(mistakes.into())
        }
    }
}
