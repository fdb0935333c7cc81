//! `plumbline policy list`: the running daemon's policies, over HTTP.

use std::process::ExitCode;

use super::Outcome;
use crate::{
    cli::{daemon::DaemonArguments, say},
    http::policies::{PolicyStatus, PolicyStatuses},
    review::time::rfc3339_ms,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    daemon: DaemonArguments,
    /// Print the daemon's answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let body = arguments.daemon.ask("/api/v1/policies")?;
    let status: PolicyStatuses = serde_json::from_str(&body)?;
    if arguments.json {
        say(body.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    show(&status);
    Ok(ExitCode::SUCCESS)
}

fn show(status: &PolicyStatuses) {
    let width = status.policies.iter().map(|policy| policy.name.len()).max().unwrap_or(0).max(6);
    say(&format!(
        "{:<width$}  {:<8} {:>5} {:>9}  {:<24}  {:>12}  NOTE",
        "POLICY", "MODE", "RULES", "MATCHES", "LAST MATCH", "KERNEL BYTES"
    ));
    for PolicyStatus { name, mode, rules, matches, last_match_unix_seconds, kernel_table_bytes, note } in
        &status.policies
    {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time after 1970")]
        let last =
            last_match_unix_seconds.map_or_else(|| "never".to_owned(), |seconds| rfc3339_ms((seconds * 1e3) as u64));
        let note = note.as_deref().unwrap_or_default();
        let bytes = kernel_table_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        say(format!("{name:<width$}  {mode:<8} {rules:>5} {matches:>9}  {last:<24}  {bytes:>12}  {note}").trim_end());
    }
    say(&format!("generation {}, digest sha256:{}", status.generation, status.digest));
    match status.kernel_memory_bytes {
        Some(bytes) => say(&format!("kernel memory: {} KiB of maps, which all policies share", bytes / 1024)),
        None => say("kernel memory: absent (no kernel program runs)"),
    }
}
