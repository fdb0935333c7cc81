//! A record as one line for a terminal.

use serde_json::Value;

use super::time::rfc3339_ms;
use crate::record::text::shown;

const SEVERITIES: [&str; 7] = ["unknown", "info", "low", "medium", "high", "critical", "fatal"];

/// Time, number, severity, kind, message. Text from the record cannot drive the terminal.
pub fn line(record: &[u8]) -> String {
    let Ok(record) = serde_json::from_slice::<Value>(record) else {
        return format!("not a JSON object: {}", shown(record));
    };
    let time = record["time"].as_u64().map_or_else(|| "no time".to_owned(), rfc3339_ms);
    let seq = record.pointer("/metadata/sequence").and_then(Value::as_u64).unwrap_or(0);
    let kind = record.pointer("/unmapped/plumbline/kind").and_then(Value::as_str).unwrap_or("?");
    let alert = if record["is_alert"] == true { " ALERT" } else { "" };
    let message = record["message"].as_str().unwrap_or_default();
    format!("{time} #{seq} {}{alert} {}: {}", severity(&record), shown(kind.as_bytes()), shown(message.as_bytes()))
}

/// The caption of OCSF `severity_id`.
pub fn severity(record: &Value) -> &'static str {
    let id = record["severity_id"].as_u64().and_then(|id| usize::try_from(id).ok()).unwrap_or(0);
    SEVERITIES.get(id).copied().unwrap_or(SEVERITIES[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_that_cannot_drive_a_terminal() {
        let record = br#"{"time":1790000000123,"severity_id":4,"is_alert":true,"message":"a\nb\u001b[2J\u202e","metadata":{"sequence":7},"unmapped":{"plumbline":{"kind":"file_open"}}}"#;
        assert_eq!(line(record), "2026-09-21T14:13:20.123Z #7 high ALERT file_open: a\u{fffd}b\u{fffd}[2J\u{fffd}");
        assert_eq!(line(b"\xff"), "not a JSON object: \u{fffd}");
        assert_eq!(line(b"{}"), "no time #0 unknown ?: ");
    }
}
