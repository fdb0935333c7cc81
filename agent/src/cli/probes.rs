//! `plumbline probes`: how much the running daemon looks at.

use std::{error::Error, process::ExitCode};

use serde_json::json;

use super::{daemon::DaemonArguments, failed, say};
use crate::cuda::{Detail, View};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show how much of the calls of CUDA's driver and NCCL is counted, or change it until the daemon ends
    #[command(
        after_help = "To change it, the daemon wants the token of `incident.token_file`, which this command reads from the same configuration."
    )]
    Cuda(CudaArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct CudaArguments {
    /// How much from now on
    detail: Option<Detail>,
    #[command(flatten)]
    daemon: DaemonArguments,
}

pub(super) fn main(command: &Command) -> ExitCode {
    let Command::Cuda(CudaArguments { detail, daemon }) = command;
    let outcome = match detail {
        Some(detail) => {
            let order = json!({ "detail": detail });
            daemon.post("/api/v1/probes/cuda", &order).map(|_| format!("cuda: {}", detail.as_str()))
        }
        None => show(daemon),
    };
    match outcome {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.as_ref()),
    }
}

fn show(daemon: &DaemonArguments) -> Result<String, Box<dyn Error>> {
    let View { detail, traced, thinned, absent } = serde_json::from_str(&daemon.ask("/api/v1/probes/cuda")?)?;
    if let Some(why) = absent {
        return Ok(format!("cuda: nothing is counted: {why}"));
    }
    let thinned = thinned.iter().map(|part| format!("\n{part}: for 1 s of each minute, as it costs too much"));
    let traced = traced.map(|pid| format!("\nprocess {pid}: full, as it is traced")).unwrap_or_default();
    Ok(format!("cuda: {}{traced}{}", detail.as_str(), thinned.collect::<String>()))
}
