//! `plumbline timeline`: what a series was in the last while, as the daemon remembers it.

use std::{error::Error, fmt::Write as _, process::ExitCode, time::Duration};

use super::{daemon::DaemonArguments, failed, say, span::Span};
use crate::http::timeline::{Answer, Told, Was};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  plumbline timeline\n  plumbline timeline plumbline_engine_requests_waiting --last 15m\n  \
                  plumbline timeline --with engine=chat\n  plumbline timeline plumbline_gpu_power_watts --last 1m --slots"
)]
pub(super) struct Arguments {
    /// The series [default: say which there are]
    series: Option<String>,
    /// How far back, up to 1h
    #[arg(long, value_name = "SPAN", default_value = "5m")]
    last: Span,
    /// Only what has this label; all series of it where none is named
    #[arg(long, value_name = "LABEL=VALUE")]
    with: Option<String>,
    /// Every slot, and not only what they come to
    #[arg(long)]
    slots: bool,
    /// As the daemon answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match show(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error.as_ref()),
    }
}

fn show(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Span(last) = arguments.last;
    let mut path = format!("/api/v1/timeline?last={}", last.max(Duration::from_secs(1)).as_secs());
    for (key, value) in [("series", &arguments.series), ("with", &arguments.with)] {
        if let Some(value) = value {
            write!(path, "&{key}={}", encoded(value))?;
        }
    }
    if arguments.slots {
        path += "&slots=true";
    }
    let answer = arguments.daemon.ask(&path)?;
    if arguments.json {
        say(answer.trim_end());
        return Ok(());
    }
    let answer: Answer = serde_json::from_str(&answer)?;
    for (series, parts) in &answer.series {
        say(&format!("{parts:>6}  {series}"));
    }
    for told in &answer.tracks {
        say(&line(told));
        for (ago, value) in &told.slots {
            let value = value.map_or("counting begins".to_owned(), |value| value.to_string());
            say(&format!("    {ago:>8.1} s ago  {value}"));
        }
    }
    if answer.left_out > 0 {
        say(&format!("and {} more; --with asks for less", answer.left_out));
    }
    let memory = answer.memory;
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let mib = memory.used_bytes as f64 / f64::from(1 << 20);
    say(&format!(
        "\n{} series in {mib:.1} MiB; {} readings found no room, {} blocks were forgotten early",
        memory.tracks, memory.refused, memory.forgotten
    ));
    Ok(())
}

fn line(told: &Told) -> String {
    let labels = told.labels.iter().map(|(name, value)| format!("{name}={}", value.escape_debug()));
    let labels = labels.collect::<Vec<_>>().join(" ");
    let was = match &told.was {
        Was::Gauge { mean, least, greatest, last } => format!("mean {mean:.6}, {least} to {greatest}, last {last}"),
        Was::Counter { increase, per_second, covered_seconds } => {
            let rate = per_second.map(|rate| format!(", {rate:.6} a second")).unwrap_or_default();
            format!("+{increase} in {covered_seconds} s{rate}")
        }
        Was::Histogram { count, sum, covered_seconds, quantiles } => {
            let quantiles = quantiles.iter().map(|(share, value)| format!(", p{share} {value:.6}"));
            format!("{count} observations, {sum:.6} in all, in {covered_seconds} s{}", quantiles.collect::<String>())
        }
        Was::Nothing => "nothing to compare in this span".to_owned(),
    };
    format!("{} {labels}: {was}", told.series)
}

/// Everything but letters, digits and `-._~` as `%XX` (RFC 3986, 2.1).
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
