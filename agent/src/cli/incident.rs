//! `plumbline incident`: looking more closely for a while, by the API's own word.

use std::process::ExitCode;

use serde_json::json;

use super::{daemon::DaemonArguments, failed, say, span::Span};

const PATH: &str = "/api/v1/incident";

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

pub(super) fn main(command: &Command) -> ExitCode {
    let outcome = match command {
        Command::Begin(BeginArguments { daemon, span, why }) => {
            let minutes = span.map(|Span(span)| span.as_secs().div_ceil(60));
            daemon.post(PATH, &json!({ "status": "firing", "minutes": minutes, "why": why }))
        }
        Command::End(EndArguments { daemon }) => {
            daemon.post(PATH, &json!({ "status": "resolved", "why": "by command" }))
        }
    };
    match outcome {
        Ok(answer) => {
            say(answer.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.as_ref()),
    }
}
