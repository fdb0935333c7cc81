//! `plumbline policy explain EVENT`: which rule matches, which does not, and why.

use std::{fs, io::Read as _, path::PathBuf, process::ExitCode};

use plumbline_audit::Reader;
use plumbline_policy::{InvalidPolicy, Occurrence};
use serde_json::Value;

use super::{Outcome, Policies};
use crate::{cli::say, review::occurrence};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline policy explain 4711
  plumbline policy explain event.yaml --policies policies/
  plumbline audit query --last 1h --format json --limit 1 | plumbline policy explain -
An event in a file is a record as `audit query --format json` prints it, or is written as in a policy's test:
  {connect: {address: 203.0.113.7, port: 443}, process: {exe: /usr/bin/curl}}
The exit code is 0 where a rule matches, 1 where none does.")]
pub(in crate::cli) struct Arguments {
    /// The number of a record in the log, a file with an event, or `-` for standard input
    event: String,
    /// The log's directory [default: that of the configuration]
    #[arg(long, value_name = "LOG")]
    log: Option<PathBuf>,
    #[command(flatten)]
    policies: Policies,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let event = event(arguments)?;
    let policies = arguments.policies.load()?;
    let explanation = event.lend(|facts| policies.explain(facts));
    say(explanation.to_string().trim_end());
    let is_matched = explanation.rules.iter().any(|says| says.matched.is_some());
    Ok(if is_matched { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn event(arguments: &Arguments) -> Result<Occurrence, Box<dyn std::error::Error>> {
    if let Ok(seq) = arguments.event.parse::<u64>() {
        let log = arguments.policies.log(arguments.log.as_ref())?;
        let entry = Reader::from_seq(&log, seq)?.next().transpose()?.filter(|entry| entry.seq == seq);
        let entry = entry.ok_or_else(|| format!("the log has no record {seq}"))?;
        return of_json(&serde_json::from_slice(&entry.bytes)?);
    }
    let mut text = String::new();
    let name = if arguments.event == "-" {
        std::io::stdin().lock().take(MAX_EVENT_BYTES).read_to_string(&mut text)?;
        "standard input"
    } else {
        let file = fs::File::open(&arguments.event).map_err(|error| format!("{}: {error}", arguments.event))?;
        file.take(MAX_EVENT_BYTES).read_to_string(&mut text)?;
        &arguments.event
    };
    // A record says of what class it is; what a test writes does not, and may be JSON as well.
    match serde_json::from_str::<Value>(&text) {
        Ok(record) if record.get("class_uid").is_some() => of_json(&record),
        _ => Occurrence::parse(name, &text).map_err(|mistakes| drawn(&mistakes).into()),
    }
}

const MAX_EVENT_BYTES: u64 = 1 << 20;

fn of_json(record: &Value) -> Result<Occurrence, Box<dyn std::error::Error>> {
    occurrence::of_record(record).ok_or_else(|| {
        let kind = record.pointer("/unmapped/plumbline/kind").and_then(Value::as_str).unwrap_or("unknown");
        format!("policies do not speak about records of kind `{kind}`").into()
    })
}

fn drawn(mistakes: &InvalidPolicy) -> String {
    let mut text = format!("{mistakes}\n");
    // Writing into a string cannot fail.
    let _ = mistakes.render(&mut text);
    text
}
