//! Every record of the audit log as an OTLP log record, in order, at least once, and every checkpoint as one more.
//!
//! The body is the record's exact bytes, because they are the evidence: whoever has them can hash them and prove them
//! against a checkpoint. A receiver drops what arrives twice by `audit.integrity.log` and `audit.sequence.number`. The
//! attributes `audit.*` are spelled as OTEP 0267 and the collector's signing processor spell them. A checkpoint comes
//! with the event name `plumbline.checkpoint` and the signed note as its body, also while nothing happens: its absence
//! tells that the node fell silent, and whoever keeps it holds the node to it.

use hyper::body::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use plumbline_audit::{checkpoint::SignedCheckpoint, merkle::leaf_hash, reader::Entry};
use prost::Message as _;
use serde::Deserialize;

use super::{
    http::Client,
    otlp::{attribute, resource, scope, text},
    sink::{Rejected, Sink, SinkError},
};
use crate::{clock, config::OtlpConfig};

const PATH: &str = "/v1/logs";

#[derive(Debug)]
pub(super) struct OtlpLogs {
    client: Client,
    resource: Resource,
}

impl OtlpLogs {
    pub(super) fn new(config: &OtlpConfig, node: &str) -> Self {
        Self { client: Client::new(config.endpoint.clone()), resource: resource(node) }
    }

    async fn post(&mut self, log_records: Vec<LogRecord>) -> Result<Option<Rejected>, SinkError> {
        let scope_logs = ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() };
        let resource = Some(self.resource.clone());
        let resource_logs = ResourceLogs { resource, scope_logs: vec![scope_logs], ..ResourceLogs::default() };
        let request = ExportLogsServiceRequest { resource_logs: vec![resource_logs] };
        let answer = self.client.post(PATH, Bytes::from(request.encode_to_vec())).await?;
        // An answer that is no message says nothing more than its status did.
        let answer = ExportLogsServiceResponse::decode(answer).unwrap_or_default();
        let partial = answer.partial_success.filter(|partial| partial.rejected_log_records > 0);
        Ok(partial.map(|partial| Rejected { count: partial.rejected_log_records, says: partial.error_message }))
    }
}

impl Sink for OtlpLogs {
    const NAME: &'static str = "otlp-logs";
    const CURSOR: &'static str = "otlp";

    async fn send(&mut self, entries: &[Entry]) -> Result<Option<Rejected>, SinkError> {
        self.post(entries.iter().map(log_record).collect()).await
    }

    async fn checkpoint(&mut self, signed: &SignedCheckpoint) -> Result<(), SinkError> {
        self.post(vec![checkpoint_record(signed)]).await.map(drop)
    }
}

fn checkpoint_record(signed: &SignedCheckpoint) -> LogRecord {
    let now = clock::unix_ns();
    let size = i64::try_from(signed.checkpoint.size).unwrap_or(i64::MAX);
    LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: SeverityNumber::Info.into(),
        severity_text: "Informational".to_owned(),
        event_name: "plumbline.checkpoint".to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(signed.note.clone())) }),
        attributes: vec![
            text("audit.integrity.log", &signed.checkpoint.origin),
            text("audit.integrity.algorithm", "Ed25519"),
            attribute("audit.checkpoint.size", Value::IntValue(size)),
            text("audit.checkpoint.root", &signed.checkpoint.root.to_base64()),
        ],
        ..LogRecord::default()
    }
}

/// The fields of a record that become fields of the log record.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    class_uid: i64,
    severity_id: u64,
    metadata: Metadata,
    unmapped: Unmapped,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    log_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Unmapped {
    plumbline: Own,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Own {
    kind: String,
    prev: String,
    unix_ns: u64,
}

fn log_record(Entry { seq, bytes }: &Entry) -> LogRecord {
    // A record whose head cannot be read is evidence all the same; what is not known stays empty.
    let head: Head = serde_json::from_slice(bytes).unwrap_or_default();
    let own = head.unmapped.plumbline;
    let kind = if own.kind.is_empty() { "unknown" } else { &own.kind };
    let (severity, severity_text) = severity(head.severity_id);
    let body = str::from_utf8(bytes)
        .map_or_else(|_| Value::BytesValue(bytes.clone()), |text| Value::StringValue(text.to_owned()));
    LogRecord {
        time_unix_nano: own.unix_ns,
        // The daemon is the source: what it records it observes.
        observed_time_unix_nano: own.unix_ns,
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        event_name: format!("plumbline.{kind}"),
        body: Some(AnyValue { value: Some(body) }),
        attributes: vec![
            text("audit.integrity.log", &head.metadata.log_name),
            attribute("audit.sequence.number", Value::IntValue(i64::try_from(*seq).unwrap_or(i64::MAX))),
            text("audit.sequence.prev_hash", &own.prev),
            // The record's leaf in the tree that checkpoints sign.
            text("audit.integrity.value", &leaf_hash(bytes).to_string()),
            text("audit.integrity.algorithm", "RFC6962-SHA-256"),
            attribute("ocsf.class_uid", Value::IntValue(head.class_uid)),
        ],
        ..LogRecord::default()
    }
}

/// OCSF `severity_id` and its caption, in the order that OpenTelemetry's severity numbers have.
fn severity(severity_id: u64) -> (SeverityNumber, &'static str) {
    match severity_id {
        1 => (SeverityNumber::Info, "Informational"),
        2 => (SeverityNumber::Info2, "Low"),
        3 => (SeverityNumber::Warn, "Medium"),
        4 => (SeverityNumber::Error, "High"),
        5 => (SeverityNumber::Error2, "Critical"),
        6 => (SeverityNumber::Fatal, "Fatal"),
        _ => (SeverityNumber::Unspecified, "Unknown"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// The log record after a journey through its wire form.
    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(bytes: &[u8], expect: Expect) {
        let record = log_record(&Entry { seq: 7, bytes: bytes.to_vec() });
        let record = LogRecord::decode(record.encode_to_vec().as_slice()).unwrap();
        let body = match record.body.unwrap().value.unwrap() {
            Value::StringValue(text) => text.into_bytes(),
            Value::BytesValue(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(body, bytes, "the exact bytes");
        let times = (record.time_unix_nano, record.observed_time_unix_nano);
        let mut page = format!("{} {times:?} {} {}\n", record.event_name, record.severity_number, record.severity_text);
        for pair in record.attributes {
            page += &format!("{} = {:?}\n", pair.key, pair.value.unwrap().value.unwrap());
        }
        expect.assert_eq(&page);
    }

    #[test]
    fn a_record_keeps_its_bytes_and_tells_its_place_its_time_and_its_severity() {
        check(
            br#"{"class_uid":1001, "severity_id":4,"x":[ ],"metadata":{"log_name":"plumbline/n","sequence":7},"unmapped":{"plumbline":{"kind":"file_open","unix_ns":1790000000123456789,"prev":"cHJldg=="}}}"#,
            expect![[r#"
                plumbline.file_open (1790000000123456789, 1790000000123456789) 17 High
                audit.integrity.log = StringValue("plumbline/n")
                audit.sequence.number = IntValue(7)
                audit.sequence.prev_hash = StringValue("cHJldg==")
                audit.integrity.value = StringValue("6a1efd1432fa81078724314f46f95c5424146e8c3e4ad671459b8666c43d24c6")
                audit.integrity.algorithm = StringValue("RFC6962-SHA-256")
                ocsf.class_uid = IntValue(1001)
            "#]],
        );
    }

    #[test]
    fn what_cannot_be_read_is_shipped_all_the_same() {
        check(
            br#"{"class_uid":"many"}"#,
            expect![[r#"
                plumbline.unknown (0, 0) 0 Unknown
                audit.integrity.log = StringValue("")
                audit.sequence.number = IntValue(7)
                audit.sequence.prev_hash = StringValue("")
                audit.integrity.value = StringValue("bbf176dbb1e52cd212af90804b40b2d38e588078d5316f26507b4169cfada1aa")
                audit.integrity.algorithm = StringValue("RFC6962-SHA-256")
                ocsf.class_uid = IntValue(0)
            "#]],
        );
        check(
            b"\xff\x00 not json",
            expect![[r#"
                plumbline.unknown (0, 0) 0 Unknown
                audit.integrity.log = StringValue("")
                audit.sequence.number = IntValue(7)
                audit.sequence.prev_hash = StringValue("")
                audit.integrity.value = StringValue("704295ebbd11b03ff986e63e2be0a1bb646952792edcde5bac507647a7eaeadf")
                audit.integrity.algorithm = StringValue("RFC6962-SHA-256")
                ocsf.class_uid = IntValue(0)
            "#]],
        );
    }
}
