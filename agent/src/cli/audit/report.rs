//! `plumbline audit report`: the reviewer's summary, as Markdown, HTML or JSON.

use std::{fs, path::PathBuf};

use plumbline_audit::{
    Reader,
    verify::{self, verify},
};

use super::{Keys, LogDir, Outcome};
use crate::{
    cli::say,
    review::{
        summary::Summary,
        time::{Window, WindowArguments},
    },
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline audit report --last 30d --key node.vkey --out report.md
  plumbline audit report --from 2026-11-01 --to 2026-12-01 --format html --out november.html
The whole log is verified first; the exit code is that of `audit verify`.")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    log: LogDir,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    window: WindowArguments,
    #[arg(long, value_enum, default_value_t = ReportFormat::Markdown)]
    format: ReportFormat,
    /// Where the report goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReportFormat {
    Markdown,
    Html,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = arguments.log.path()?;
    let trusted = arguments.keys.trusted(&directory)?;
    let window = arguments.window.window()?;
    let (text, code) = render(&directory, &trusted, &window, arguments.format)?;
    match &arguments.out {
        Some(path) => fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?,
        None => say(text.trim_end()),
    }
    Ok(code)
}

/// The report, and the exit code of verifying.
pub(super) fn render(
    directory: &std::path::Path,
    trusted: &[plumbline_audit::VerifierKey],
    window: &Window,
    format: ReportFormat,
) -> Result<(String, u8), Box<dyn std::error::Error>> {
    let verdict = verify(directory, trusted, &verify::Options::default())?;
    let mut summary = Summary::default();
    // A log that is damaged is told of all the same, as far as it can be read.
    for entry in Reader::from_seq(directory, 0)?.map_while(Result::ok) {
        summary.take(entry.seq, &entry.bytes, window);
    }
    let log = verdict.origin.clone().unwrap_or_default();
    let text = match format {
        ReportFormat::Json => {
            let report = serde_json::json!({ "window": window.to_string(), "integrity": verdict, "summary": summary });
            serde_json::to_string_pretty(&report)?
        }
        ReportFormat::Markdown => summary.document(window, &log, &verdict.to_string()).markdown(),
        ReportFormat::Html => summary.document(window, &log, &verdict.to_string()).html(),
    };
    Ok((text, verdict.exit_code()))
}
