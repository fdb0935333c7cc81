//! `plumbline incident`: looking more closely for a while, by the API's own word.

use std::{error::Error, fs, net::SocketAddr, process::ExitCode};

use serde_json::json;

use super::{ConfigFile, failed, post, say, span::Span};
use crate::config::Config;

#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "The daemon wants the token of `incident.token_file`, which this command reads from the same configuration."
)]
pub(super) enum Command {
    /// Ask what changes fast four times a second, for a while
    Begin(BeginArguments),
    /// End it before its time
    End(EndArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct BeginArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
    /// For so long, such as 5m, rounded up to whole minutes [default: `incident.minutes`]
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<Span>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct EndArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Debug, clap::Args)]
struct DaemonArguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Where the daemon serves [default: from the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

pub(super) fn main(command: &Command) -> ExitCode {
    let outcome = match command {
        Command::Begin(BeginArguments { daemon, span, why }) => {
            let minutes = span.map(|Span(span)| span.as_secs().div_ceil(60));
            daemon.say(&json!({ "status": "firing", "minutes": minutes, "why": why }))
        }
        Command::End(EndArguments { daemon }) => daemon.say(&json!({ "status": "resolved", "why": "by command" })),
    };
    outcome.unwrap_or_else(|error| failed(error.as_ref()))
}

impl DaemonArguments {
    fn say(&self, payload: &serde_json::Value) -> Result<ExitCode, Box<dyn Error>> {
        let (config, _) = Config::load(self.config.config.as_deref())?;
        let address = self.listen.or(config.listen);
        let address = address.ok_or("the configuration says that the daemon serves nothing (`listen: null`)")?;
        let file = config
            .incident
            .token_file
            .ok_or("the configuration has no `incident.token_file`, so that nobody may begin one")?;
        let token = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let answer = post(address, "/api/v1/incident", token.trim(), &payload.to_string())
            .map_err(|error| format!("the daemon on {address} refuses: {error}"))?;
        say(answer.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}
