//! `plumbline status`: the running daemon's own words, over HTTP.

use std::{error::Error, process::ExitCode};

use super::{daemon::DaemonArguments, failed, say};
use crate::http::Status;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    daemon: DaemonArguments,
    /// Print the daemon's answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match answer(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error.as_ref()),
    }
}

fn answer(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let body = arguments.daemon.ask("/api/v1/status")?;
    let status: Status = serde_json::from_str(&body)?;
    if arguments.json {
        say(body.trim_end());
    } else {
        show(&status);
    }
    Ok(())
}

fn show(status: &Status) {
    say(&format!("{} plumbline {}", status.node.node, status.node.version));
    say(&format!(
        "log       {} records, {} signed, in {}",
        status.log_records, status.signed_records, status.node.log_dir
    ));
    say(&format!("key       {}", status.node.vkey));
    say(&format!("matches   {} policy matches, {} events lost", status.policy_matches, status.lost));
    for (name, state) in &status.node.coverage {
        say(&format!("{name:<12} {state}"));
    }
    for directory in &status.node.watched {
        say(&format!("watching  {directory}"));
    }
    for (name, why) in &status.absent {
        say(&format!("absent    {name}: {why}"));
    }
}
