//! `plumbline audit query`: records by time, kind, process, file, address, policy, words.

use std::io::Write as _;

use plumbline_audit::Reader;
use serde_json::Value;

use super::{LogDir, Outcome, Output};
use crate::review::{
    line::line,
    time::{Window, WindowArguments},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline audit query --kind file_open --last 1h
  plumbline audit query --min-severity 4 --from 2026-11-01 --to 2026-12-01 --format json
  plumbline audit query --ip 203.0.113.7
All filters must hold. The exit code is 0 also when nothing is found.")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    log: LogDir,
    #[command(flatten)]
    window: WindowArguments,
    /// The kind of event, as in `unmapped.plumbline.kind`; can be given more than once
    #[arg(long)]
    kind: Vec<String>,
    /// The OCSF class
    #[arg(long, value_name = "CLASS_UID")]
    class: Option<u64>,
    /// This severity (OCSF `severity_id`, 1 to 6) and above
    #[arg(long, value_name = "N")]
    min_severity: Option<u64>,
    /// The acting process, or one of its ancestors
    #[arg(long)]
    pid: Option<u64>,
    /// The executable, whole or the end of its path
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,
    /// The file, whole or the end of its path
    #[arg(long)]
    path: Option<String>,
    /// The address connected to
    #[arg(long)]
    ip: Option<String>,
    /// The policy that matched
    #[arg(long)]
    policy: Option<String>,
    /// The container, by the beginning of its id
    #[arg(long)]
    container: Option<String>,
    /// Words that the message must contain
    #[arg(long)]
    text: Option<String>,
    /// No more records than this
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let window = arguments.window.window()?;
    let mut out = std::io::stdout().lock();
    let mut found = 0;
    for entry in Reader::from_seq(&arguments.log.path()?, 0)? {
        let entry = entry?;
        let Ok(record) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        if !arguments.wants(&record, &window) {
            continue;
        }
        if arguments.limit.is_some_and(|limit| found == limit) {
            break;
        }
        found += 1;
        let written = if arguments.output.is_json() {
            out.write_all(&entry.bytes).and_then(|()| out.write_all(b"\n"))
        } else {
            writeln!(out, "{}", line(&entry.bytes))
        };
        // A reader who left (`| head`) is no error.
        if written.is_err() {
            break;
        }
    }
    Ok(0)
}

impl Arguments {
    fn wants(&self, record: &Value, window: &Window) -> bool {
        let is = |pointer: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| record.pointer(pointer).and_then(Value::as_str) == Some(wanted))
        };
        let ends = |pointer: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                record.pointer(pointer).and_then(Value::as_str).is_some_and(|text| text.ends_with(wanted.as_str()))
            })
        };
        let starts = |pointer: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                record.pointer(pointer).and_then(Value::as_str).is_some_and(|text| text.starts_with(wanted.as_str()))
            })
        };
        let number = |pointer: &str| record.pointer(pointer).and_then(Value::as_u64);
        let message = record["message"].as_str().unwrap_or_default();
        let kind = record.pointer("/unmapped/plumbline/kind").and_then(Value::as_str).unwrap_or_default();
        let ancestors = || record.pointer("/actor/process/ancestry").and_then(Value::as_array).into_iter().flatten();
        let is_pid = |pid: u64| {
            number("/actor/process/pid") == Some(pid) || ancestors().any(|one| one["pid"].as_u64() == Some(pid))
        };
        number("/time").is_some_and(|time| window.contains_ms(time))
            && (self.kind.is_empty() || self.kind.iter().any(|wanted| wanted == kind))
            && self.class.is_none_or(|class| number("/class_uid") == Some(class))
            && self.min_severity.is_none_or(|least| number("/severity_id").is_some_and(|found| found >= least))
            && self.pid.is_none_or(is_pid)
            && ends("/actor/process/file/path", &self.exe)
            && ends("/file/path", &self.path)
            && is("/dst_endpoint/ip", &self.ip)
            && is("/policy/name", &self.policy)
            && starts("/actor/process/container/uid", &self.container)
            && self.text.as_ref().is_none_or(|text| message.contains(text.as_str()))
    }
}
