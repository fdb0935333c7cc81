//! `plumbline status`: the running daemon's own words, over HTTP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use super::{ConfigFile, failed, say};
use crate::{config::Config, http::Status};

const TIMEOUT: Duration = Duration::from_secs(3);

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
    let body = match ask(address) {
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

/// One request, one answer: HTTP/1.0, so that the end of the connection is the end of the body.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /api/v1/status HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("not an HTTP answer"))?;
    if !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
    }
    Ok(body.to_owned())
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
