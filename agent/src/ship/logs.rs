//! Every record of the audit log as an OTLP log record, in order, at least once.
//!
//! The body is the record's exact bytes, because they are the evidence: whoever has them can hash them and prove them
//! against a checkpoint. A receiver drops what arrives twice by `audit.integrity.log` and `audit.sequence.number`. A
//! batch that is refused, for whatever reason, stays at the cursor and is sent again: nothing is passed over, and the
//! lag tells. The attributes `audit.*` are spelled as OTEP 0267 and the collector's signing processor spell them.

use std::{convert::Infallible, path::Path, time::Duration};

use hyper::body::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use plumbline_audit::{VerifierKey, reader::Entry};
use prost::Message as _;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::Instant;

use super::{
    account::Account,
    http::{Client, SendError},
    otlp::{attribute, resource, scope, text},
    tail::{Tail, TailError},
};
use crate::{config::OtlpConfig, core::SharedStore};

const PATH: &str = "/v1/logs";

/// How often the log is asked for more.
const POLL: Duration = Duration::from_millis(500);

/// After a failure, doubled at each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Exporter {
    client: Client,
    resource: Resource,
    tail: Tail,
    /// What was read and is not acknowledged.
    pending: Option<Batch>,
    account: Account,
}

/// A request, and where the cursor stands once it is acknowledged.
#[derive(Debug)]
struct Batch {
    request: Bytes,
    records: usize,
    next: u64,
}

#[derive(Debug, Error)]
enum ShipError {
    #[error(transparent)]
    Tail(#[from] TailError),
    #[error("records were not acknowledged")]
    Send(#[from] SendError),
    #[error("records were acknowledged, and the cursor cannot be written")]
    Cursor(#[source] std::io::Error),
}

impl Exporter {
    pub(super) fn new(
        config: &OtlpConfig,
        store: &SharedStore,
        node: &str,
        log: (&Path, VerifierKey),
        cursor: &Path,
    ) -> Self {
        Self {
            client: Client::new(config.endpoint.clone()),
            resource: resource(node),
            tail: Tail::new(log.0, log.1, cursor),
            pending: None,
            account: Account::new("otlp-logs", store),
        }
    }

    pub(super) async fn run(&mut self) -> Infallible {
        let mut retry = FIRST_RETRY;
        loop {
            match self.drain().await {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    self.pause(POLL).await;
                }
                Err(asked) => {
                    self.pause(retry.max(asked).min(LAST_RETRY)).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// Ships until nothing is left, or until something fails: then, how long the receiver asked to be left alone.
    pub(super) async fn drain(&mut self) -> Result<(), Duration> {
        loop {
            match self.ship().await {
                Ok(0) => return Ok(()),
                Ok(_) => self.account.lag(self.tail.lag().ok()),
                Err(error) => {
                    self.account.failed(&error);
                    let asked = if let ShipError::Send(error) = &error { error.retry_after() } else { None };
                    return Err(asked.unwrap_or_default());
                }
            }
        }
    }

    /// Ships one batch, the pending one first; how many records it had. Can be dropped at any `await`: the batch is
    /// pending until it is acknowledged.
    async fn ship(&mut self) -> Result<usize, ShipError> {
        if self.pending.is_none() {
            self.pending = self.next_batch()?;
        }
        let Some(batch) = &self.pending else { return Ok(0) };
        let (records, next) = (batch.records, batch.next);
        let answer = self.client.post(PATH, batch.request.clone()).await?;
        self.pending = None;
        self.account.succeeded(records);
        // An answer that is no message says nothing more than its status did.
        let answer = ExportLogsServiceResponse::decode(answer).unwrap_or_default();
        if let Some(partial) = answer.partial_success {
            self.account.rejected(partial.rejected_log_records, &partial.error_message);
        }
        self.tail.acknowledge(next).map_err(ShipError::Cursor)?;
        Ok(records)
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, TailError> {
        let entries = self.tail.batch()?;
        let Some(last) = entries.last() else { return Ok(None) };
        let (records, next) = (entries.len(), last.seq + 1);
        let log_records = entries.into_iter().map(log_record).collect();
        let scope_logs = ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() };
        let resource = Some(self.resource.clone());
        let resource_logs = ResourceLogs { resource, scope_logs: vec![scope_logs], ..ResourceLogs::default() };
        let request = ExportLogsServiceRequest { resource_logs: vec![resource_logs] };
        Ok(Some(Batch { request: request.encode_to_vec().into(), records, next }))
    }

    /// Waits, and tells meanwhile how much waits with it.
    async fn pause(&self, whole: Duration) {
        let end = Instant::now() + whole;
        loop {
            self.account.lag(self.tail.lag().ok());
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(POLL)).await;
        }
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

fn log_record(Entry { seq, bytes }: Entry) -> LogRecord {
    // A record whose head cannot be read is evidence all the same; what is not known stays empty.
    let head: Head = serde_json::from_slice(&bytes).unwrap_or_default();
    let own = head.unmapped.plumbline;
    let kind = if own.kind.is_empty() { "unknown" } else { &own.kind };
    let (severity, severity_text) = severity(head.severity_id);
    let body = String::from_utf8(bytes).map_or_else(|error| Value::BytesValue(error.into_bytes()), Value::StringValue);
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
            attribute("audit.sequence.number", Value::IntValue(i64::try_from(seq).unwrap_or(i64::MAX))),
            text("audit.sequence.prev_hash", &own.prev),
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
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
    };

    use expect_test::{Expect, expect};
    use plumbline_audit::{Draft, Log, Options, SigningKey};
    use serde_json::Map;

    use super::*;
    use crate::{http::snapshot, series::Point};

    /// The log record after a journey through its wire form.
    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(bytes: &[u8], expect: Expect) {
        let record = log_record(Entry { seq: 7, bytes: bytes.to_vec() });
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
            ocsf.class_uid = IntValue(0)
        "#]],
        );
    }

    /// Answers one request per connection with these status lines; the bodies that came.
    fn receive(listener: &TcpListener, answers: &[&str]) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        for answer in answers {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut len = 0;
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                len = line.strip_prefix("content-length: ").map_or(len, |number| number.trim().parse().unwrap());
                line.clear();
            }
            let mut body = vec![0; len];
            stream.read_exact(&mut body).unwrap();
            bodies.push(body);
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        bodies
    }

    #[test]
    fn a_refused_batch_is_sent_again_unchanged_and_acknowledged_only_then() {
        let scratch = tempfile::tempdir().unwrap();
        let (log_dir, cursor) = (scratch.path().join("log"), scratch.path().join("cursor/otlp"));
        let key = SigningKey::from_seed("log.example/a", &[1; 32]).unwrap();
        let vkey = key.verifier().clone();
        let mut log = Log::open(&log_dir, Options::new(key)).unwrap().0;
        log.append(&Draft::new(Map::from_iter([("class_uid".to_owned(), 1001.into())])).unwrap()).unwrap();
        log.checkpoint().unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap()).try_into().unwrap();
        let receiver =
            std::thread::spawn(move || receive(&listener, &["503 No\r\nretry-after: 7", "400 Bad", "200 OK"]));
        let store = SharedStore::default();
        let config = OtlpConfig { endpoint, interval_seconds: 1 };
        let mut exporter = Exporter::new(&config, &store, "n", (&log_dir, vkey), &cursor);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert_eq!(exporter.drain().await, Err(Duration::from_secs(7)));
            assert_eq!(exporter.drain().await, Err(Duration::ZERO));
            assert!(!cursor.exists());
            assert_eq!(exporter.drain().await, Ok(()));
        });
        assert_eq!(std::fs::read_to_string(&cursor).unwrap(), "plumbline-cursor/v1 2\n");
        let bodies = receiver.join().unwrap();
        assert!(bodies.iter().all(|body| *body == bodies[0]));
        let request = ExportLogsServiceRequest::decode(bodies[2].as_slice()).unwrap();
        assert_eq!(request.resource_logs[0].scope_logs[0].log_records.len(), 2);
        let points = snapshot(&store);
        let value = |name: &str| points.iter().find(|point| point.series.name == name).and_then(Point::number);
        assert_eq!(value("plumbline_export_errors_total"), Some(2.0));
        assert_eq!(value("plumbline_exported_total"), Some(2.0));
        assert_eq!(value("plumbline_export_lag_records"), Some(0.0));
    }
}
