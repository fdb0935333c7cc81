//! What a reviewer asks of a span of time: how many, what was lost, when nobody watched, what stood out.
//!
//! One pass over the records; memory is bounded whatever the log holds: label sets and lists have a named length, and what
//! is over it is counted.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{
    controls,
    document::Document,
    line::{line, severity},
    time::{Window, rfc3339_ms},
};

/// Policies, executables and addresses told by name; more are counted together.
const MAX_NAMES: usize = 1000;
/// Events told one by one.
const MAX_EVENTS: usize = 200;
/// Names in a table of the report.
const TOP: usize = 20;
const OTHER: &str = "other";

/// Counts by name, with an end.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn add(&mut self, name: &str, count: u64) {
        let name = if self.0.len() < MAX_NAMES || self.0.contains_key(name) { name } else { OTHER };
        *self.0.entry(name.to_owned()).or_default() += count;
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows: Vec<(&String, &u64)> = self.0.iter().collect();
        rows.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
        rows.into_iter().take(TOP).map(|(name, count)| vec![name.clone(), count.to_string()]).collect()
    }
}

/// Lines, with an end.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Lines {
    pub lines: Vec<String>,
    /// How many more there were.
    pub more: u64,
}

impl Lines {
    fn add(&mut self, line: String) {
        if self.lines.len() < MAX_EVENTS {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }
}

/// A time without a watcher.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Unwatched {
    pub from: String,
    pub to: String,
    pub seconds: u64,
    pub why: String,
}

#[derive(Debug, Default, Clone, Serialize)]
pub struct Summary {
    pub records: u64,
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
    pub first_time: Option<String>,
    pub last_time: Option<String>,
    pub by_kind: Counts,
    pub by_severity: Counts,
    pub alerts_by_policy: Counts,
    pub alerts_by_executable: Counts,
    pub destinations: Counts,
    pub clock: Counts,
    pub builds: Counts,
    pub alerts: Lines,
    /// Losses by place and what, in events.
    pub lost: Counts,
    pub unwatched: Vec<Unwatched>,
    /// How many more there were.
    pub unwatched_more: u64,
    /// What the last start, or its hooks, said that is seen and not seen.
    pub coverage: BTreeMap<String, String>,
    pub keeping: BTreeMap<String, String>,
    /// Records of the log's own life.
    pub keys_and_keeping: Lines,
    pub policies: Lines,
    pub redacted: Counts,
    /// Numbers without bytes between the first and the last record: pruned.
    pub without_bytes: u64,
}

impl Summary {
    /// Takes the next record, if its time is in the window.
    pub fn take(&mut self, seq: u64, bytes: &[u8], window: &Window) {
        let Ok(record) = serde_json::from_slice::<Value>(bytes) else { return };
        let Some(time) = record["time"].as_u64().filter(|time| window.contains_ms(*time)) else { return };
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        self.records += 1;
        if let Some(last) = self.last_seq {
            self.without_bytes += seq.saturating_sub(last + 1);
        }
        self.first_seq.get_or_insert(seq);
        self.last_seq = Some(seq);
        self.first_time.get_or_insert_with(|| rfc3339_ms(time));
        self.last_time = Some(rfc3339_ms(time));
        let own = &record["unmapped"]["plumbline"];
        let kind = text("/unmapped/plumbline/kind");
        self.by_kind.add(kind, 1);
        self.by_severity.add(severity(&record), 1);
        self.clock.add(text("/unmapped/plumbline/clock_sync"), 1);
        self.builds.add(text("/unmapped/plumbline/build"), 1);
        if record["is_alert"] == true {
            self.alerts_by_policy.add(text("/policy/name"), 1);
            self.alerts_by_executable.add(text("/actor/process/file/path"), 1);
            self.alerts.add(line(bytes));
        }
        for (rule, count) in own["redacted"].as_object().into_iter().flatten() {
            self.redacted.add(rule, count.as_u64().unwrap_or(0));
        }
        match kind {
            "connect" => self.destinations.add(text("/dst_endpoint/ip"), 1),
            "loss" => {
                let what = format!("{}: {}", text("/unmapped/plumbline/place"), text("/unmapped/plumbline/lost_by"));
                self.lost.add(&what, own["count"].as_u64().unwrap_or(0));
            }
            "gap" => self.gap(own, time, text("/message")),
            "start" => {
                self.coverage = words(&own["coverage"]);
                self.keeping = words(&own["keeping"]);
            }
            "policies" => self.policies.add(line(bytes)),
            "epoch" | "recovered" | "pruned" | "stop" | "disk" | "clock_step" => self.keys_and_keeping.add(line(bytes)),
            _ => {}
        }
    }

    fn gap(&mut self, own: &Value, to_ms: u64, message: &str) {
        if self.unwatched.len() == MAX_EVENTS {
            self.unwatched_more += 1;
            return;
        }
        let from_ms = own["from_unix_ns"].as_u64().map(|ns| ns / 1_000_000);
        self.unwatched.push(Unwatched {
            from: from_ms.map_or_else(|| "not known".to_owned(), rfc3339_ms),
            to: rfc3339_ms(to_ms),
            seconds: from_ms.map_or(0, |from| to_ms.saturating_sub(from) / 1000),
            why: message.rsplit(": ").next().unwrap_or_default().to_owned(),
        });
    }

    /// The report, without the verdict on the log, which stands first: `verdict` are its words.
    pub fn document(&self, window: &Window, log: &str, verdict: &str) -> Document {
        let mut document = Document::new(format!("Audit report of {log}"));
        document.text(format!("Time: {window} (UTC, as the records state it)."));
        document.heading("Integrity of the whole log");
        verdict.lines().for_each(|line| document.text(line.trim()));
        document.heading("Records in this time");
        let place = match (self.first_seq, self.last_seq) {
            (Some(first), Some(last)) => format!(
                "{} records, numbers {first} to {last}, from {} to {}; the bytes of {} more were pruned.",
                self.records,
                self.first_time.as_deref().unwrap_or_default(),
                self.last_time.as_deref().unwrap_or_default(),
                self.without_bytes
            ),
            _ => "No record.".to_owned(),
        };
        document.text(place);
        document.table(&["Kind", "Records"], self.by_kind.rows());
        document.table(&["Severity", "Records"], self.by_severity.rows());
        document.heading("What is missing");
        document.text("Events that were lost, as the log declares:");
        document.table(&["Where: what", "Events"], self.lost.rows());
        document.text("Times when nobody watched:");
        let unwatched = self.unwatched.iter();
        let rows =
            unwatched.map(|gap| vec![gap.from.clone(), gap.to.clone(), gap.seconds.to_string(), gap.why.clone()]);
        document.table(&["From", "To", "Seconds", "Why"], rows.collect());
        more(&mut document, self.unwatched_more);
        document.heading("Coverage");
        document.text("What was seen, and how, at the last start in this time:");
        document.table(&["Source", "State"], pairs(&self.coverage));
        document.table(&["Keeping of the log", "State"], pairs(&self.keeping));
        document.table(&["Wall clock", "Records"], self.clock.rows());
        document.table(&["Build of the daemon (SHA-256)", "Records"], self.builds.rows());
        document.table(&["Redaction rule", "Struck"], self.redacted.rows());
        document.heading("Alerts");
        document.table(&["Policy", "Alerts"], self.alerts_by_policy.rows());
        document.table(&["Executable", "Alerts"], self.alerts_by_executable.rows());
        document.table(&["Destination", "Connections recorded"], self.destinations.rows());
        lines(&mut document, "Alert", &self.alerts);
        document.heading("Keys, room, clock and stops");
        lines(&mut document, "Record", &self.keys_and_keeping);
        document.heading("Changes of policies");
        lines(&mut document, "Record", &self.policies);
        document.heading("Controls");
        controls::add_to(&mut document);
        document
    }
}

fn words(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<Vec<String>> {
    map.iter().map(|(name, state)| vec![name.clone(), state.clone()]).collect()
}

fn lines(document: &mut Document, head: &str, lines: &Lines) {
    document.table(&[head], lines.lines.iter().map(|line| vec![line.clone()]).collect());
    more(document, lines.more);
}

fn more(document: &mut Document, count: u64) {
    if count > 0 {
        document.text(format!("And {count} more: plumbline audit query finds them."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const WINDOW: Window = Window { from_ms: 1000, to_ms: 9000 };

    fn record(time: u64, kind: &str, own: Value) -> Vec<u8> {
        let mut own = own;
        own["kind"] = kind.into();
        let record = json!({"time": time, "severity_id": 4, "message": "nobody watched until now: stopped",
            "is_alert": kind == "file_open", "policy": {"name": "weights"}, "unmapped": {"plumbline": own}});
        record.to_string().into_bytes()
    }

    #[test]
    fn a_report_counts_what_is_in_its_time_and_names_what_is_missing() {
        let mut summary = Summary::default();
        let records = [
            (0, record(999, "file_open", json!({}))),
            (1, record(1000, "gap", json!({"from_unix_ns": 500_000_000_u64}))),
            (2, record(2000, "file_open", json!({"redacted": {"bearer": 2}}))),
            (5, record(3000, "loss", json!({"place": "ring", "lost_by": "file_open", "count": 12}))),
            (6, record(4000, "start", json!({"coverage": {"file_open": "attached"}}))),
            (7, b"not json".to_vec()),
            (8, record(9000, "file_open", json!({}))),
        ];
        records.iter().for_each(|(seq, bytes)| summary.take(*seq, bytes, &WINDOW));
        assert_eq!(
            (summary.records, summary.first_seq, summary.last_seq, summary.without_bytes),
            (4, Some(1), Some(6), 2)
        );
        let markdown = summary.document(&WINDOW, "plumbline/n", "intact").markdown();
        for expected in [
            "| file_open | 1 |",
            "| ring: file_open | 12 |",
            "| 1970-01-01T00:00:00.500Z | 1970-01-01T00:00:01.000Z | 0 | stopped |",
            "| file_open | attached |",
            "| weights | 1 |",
            "| bearer | 2 |",
            "| NIST 800-53 | AU-8 |",
        ] {
            assert!(markdown.contains(expected), "{expected} is not in {markdown}");
        }
    }

    #[test]
    fn a_flood_of_names_and_alerts_ends_and_is_counted() {
        let mut summary = Summary::default();
        for number in 0..3000 {
            let mut bytes: Value = serde_json::from_slice(&record(2000, "file_open", json!({}))).unwrap();
            bytes["policy"]["name"] = number.to_string().into();
            summary.take(number, bytes.to_string().as_bytes(), &WINDOW);
        }
        assert_eq!((summary.alerts.lines.len(), summary.alerts.more), (200, 2800));
        assert_eq!((summary.alerts_by_policy.0.len(), summary.alerts_by_policy.0[OTHER]), (1001, 2000));
    }
}
