//! `plumbline policy learn`: an allow-list from what the log says, as YAML to be reviewed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use plumbline_audit::{Reader, reader::Entry, segment};
use plumbline_policy::Learner;
use serde_json::Value;

use super::{Outcome, Policies};
use crate::{
    cli::{say, span::Span},
    review::{
        occurrence,
        time::{Window, WindowArguments, rfc3339_ms},
    },
};

/// How often a followed log is asked for more.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline policy learn --for 10m --output policies/learned.yaml
  plumbline policy learn --last 7d --policies policies/
What is written is a document of `kind: Exceptions`: put into the directory of policies, it excuses what was seen. Policies in
mode `learn` record what they match and tell nobody meanwhile. Review it: what was seen need not be right.")]
pub(in crate::cli) struct Arguments {
    /// Follow the log for so long, from now on, such as 10m or 1h
    #[arg(long = "for", value_name = "SPAN", conflicts_with_all = ["from", "to", "last"])]
    span: Option<Span>,
    #[command(flatten)]
    window: WindowArguments,
    /// The log's directory [default: that of the configuration]
    #[arg(long, value_name = "LOG")]
    log: Option<PathBuf>,
    /// What the document is called
    #[arg(long, default_value = "learned")]
    name: String,
    /// Write to this file, as a whole or not at all, and not to standard output: a shell would empty the file before the
    /// policies beside it are read
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    policies: Policies,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let policies = arguments.policies.load()?;
    let log = arguments.policies.log(arguments.log.as_ref())?;
    let mut learner = Learner::new(&policies);
    match arguments.span {
        Some(span) => follow(&log, span.0, |entry| see(&mut learner, entry, None))?,
        None => {
            let window = arguments.window.window()?;
            for entry in Reader::from_seq(&log, segment::list(&log)?.first().map_or(0, |first| first.first_seq))? {
                see(&mut learner, &entry?, Some(&window));
            }
        }
    }
    let document = learner.document(&arguments.name, rfc3339_ms);
    match &arguments.output {
        None => say(document.trim_end()),
        Some(file) => {
            let mut name = file.as_os_str().to_owned();
            // Hidden from whoever reads the directory meanwhile: it does not end in `.yaml`.
            name.push(".new");
            let written = fs::write(&name, &document).and_then(|()| fs::rename(&name, file));
            written.map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn see(learner: &mut Learner<'_>, entry: &Entry, window: Option<&Window>) {
    let Ok(record) = serde_json::from_slice::<Value>(&entry.bytes) else { return };
    let time_ms = record["time"].as_u64().unwrap_or(0);
    if window.is_some_and(|window| !window.contains_ms(time_ms)) {
        return;
    }
    if let Some(event) = occurrence::of_record(&record) {
        event.lend(|facts| learner.see(facts, time_ms));
    }
}

/// The records to come within the span.
fn follow(log: &Path, span: Duration, mut see: impl FnMut(&Entry)) -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let last = segment::list(log)?.last().map_or(0, |last| last.first_seq);
    let mut reader = Reader::from_seq(log, last)?;
    // What is there already is not what is to be learned.
    while reader.next().transpose()?.is_some() {}
    while began.elapsed() < span {
        match reader.next().transpose()? {
            Some(entry) => see(&entry),
            None => std::thread::sleep(POLL.min(span.saturating_sub(began.elapsed()))),
        }
    }
    Ok(())
}
