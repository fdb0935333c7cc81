//! `plumbline status`: the running daemon's own words, over HTTP.

use std::{net::SocketAddr, process::ExitCode};

use super::{ConfigFile, ask, failed, say};
use crate::{config::Config, http::Status};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Where the daemon serves [default: from the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Print the daemon's answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let configured = match Config::load(arguments.config.config.as_deref()) {
        Ok((config, _)) => config.listen,
        Err(error) => return failed(&error),
    };
    let Some(address) = arguments.listen.or(configured) else {
        eprintln!("plumbline: the configuration says that the daemon serves nothing (`listen: null`)");
        return ExitCode::FAILURE;
    };
    let body = match ask(address, "/api/v1/status") {
        Ok(body) => body,
        Err(error) => {
            eprintln!("plumbline: no daemon answers on {address}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match serde_json::from_str::<Status>(&body) {
        Ok(_) if arguments.json => say(body.trim_end()),
        Ok(status) => show(&status),
        Err(error) => return failed(&error),
    }
    ExitCode::SUCCESS
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
