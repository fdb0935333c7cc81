//! What a sink of records must do, and the one loop that feeds every sink.
//!
//! The log is the only buffer. A sink gets batches from its own cursor; the cursor moves, durably, when the sink has taken
//! a batch, and a batch that was refused, for whatever reason, is given again: nothing is passed over, and the lag tells.

use std::{
    convert::Infallible,
    path::Path,
    time::{Duration, SystemTime},
};

use plumbline_audit::{VerifierKey, checkpoint::SignedCheckpoint, reader::Entry};
use thiserror::Error;
use tokio::time::Instant;

use super::{
    account::Account,
    http::SendError,
    tail::{Tail, TailError},
};
use crate::core::SharedStore;

/// How often the log is asked for more.
const POLL: Duration = Duration::from_millis(500);

/// After a failure, doubled at each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Where records go.
pub(super) trait Sink {
    /// The label of its series.
    const NAME: &'static str;
    /// The name of its cursor's file.
    const CURSOR: &'static str;

    /// Takes the batch, all of it or nothing; what the receiver took and then threw away is told.
    fn send(&mut self, entries: &[Entry]) -> impl Future<Output = Result<Option<Rejected>, SinkError>> + Send;

    /// Takes a checkpoint that was published, the same again too: a sign of life.
    fn checkpoint(&mut self, _signed: &SignedCheckpoint) -> impl Future<Output = Result<(), SinkError>> + Send {
        std::future::ready(Ok(()))
    }
}

/// What a receiver took in the whole and rejected in part, for good.
#[derive(Debug)]
pub(super) struct Rejected {
    pub count: i64,
    pub says: String,
}

#[derive(Debug, Error)]
pub(super) enum SinkError {
    #[error("the receiver did not acknowledge")]
    Send(#[from] SendError),
    #[error("cannot write {path}")]
    Write { path: String, source: std::io::Error },
}

#[derive(Debug, Error)]
enum ShipError {
    #[error(transparent)]
    Tail(#[from] TailError),
    #[error("records were not taken")]
    Sink(#[from] SinkError),
    #[error("records were taken, and the cursor cannot be written")]
    Cursor(#[source] std::io::Error),
}

impl ShipError {
    /// How long the receiver asked to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Sink(SinkError::Send(error)) => error.retry_after(),
            _ => None,
        }
    }
}

/// Feeds one sink.
#[derive(Debug)]
pub(super) struct Exporter<S> {
    sink: S,
    tail: Tail,
    /// What was read and is not acknowledged.
    pending: Vec<Entry>,
    /// When the checkpoint that was last given out was published.
    checkpoint: Option<SystemTime>,
    account: Account,
}

impl<S: Sink> Exporter<S> {
    pub(super) fn new(sink: S, store: &SharedStore, log: (&Path, VerifierKey), cursor_dir: &Path) -> Self {
        let tail = Tail::new(log.0, log.1, &cursor_dir.join(S::CURSOR));
        Self { sink, tail, pending: Vec::new(), checkpoint: None, account: Account::new(S::NAME, store) }
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
                    return Err(error.retry_after().unwrap_or_default());
                }
            }
        }
    }

    /// Ships one batch, the pending one first; how many records it had. Can be dropped at any `await`: the batch is
    /// pending until it is acknowledged.
    async fn ship(&mut self) -> Result<usize, ShipError> {
        if self.pending.is_empty() {
            self.pending = self.tail.batch()?;
        }
        // Also while records wait: it is the sign of life.
        self.give_checkpoint().await?;
        let Some(last) = self.pending.last() else { return Ok(0) };
        let next = last.seq + 1;
        let rejected = self.sink.send(&self.pending).await?;
        let records = std::mem::take(&mut self.pending).len();
        self.account.succeeded(records);
        if let Some(Rejected { count, says }) = rejected {
            self.account.rejected(count, &says);
        }
        self.tail.acknowledge(next).map_err(ShipError::Cursor)?;
        Ok(records)
    }

    /// Once for each time that the log published one.
    async fn give_checkpoint(&mut self) -> Result<(), ShipError> {
        let published = self.tail.published();
        if published.is_some() && published != self.checkpoint {
            let signed = self.tail.checkpoint()?;
            self.sink.checkpoint(&signed).await?;
            self.checkpoint = published;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
    };

    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use plumbline_audit::{Draft, Log, Options, SigningKey};
    use prost::Message as _;
    use serde_json::Map;

    use super::*;
    use crate::{config::OtlpConfig, http::snapshot, series::Point, ship::otlp_logs::OtlpLogs};

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
        let receiver = std::thread::spawn(move || {
            receive(&listener, &["200 OK", "503 No\r\nretry-after: 7", "400 Bad", "200 OK"])
        });
        let store = SharedStore::default();
        let config = OtlpConfig { endpoint, interval_seconds: 1 };
        let sink = OtlpLogs::new(&config, "n");
        let mut exporter = Exporter::new(sink, &store, (&log_dir, vkey), cursor.parent().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert_eq!(exporter.drain().await, Err(Duration::from_secs(7)));
            assert_eq!(exporter.drain().await, Err(Duration::ZERO));
            assert!(!cursor.exists());
            assert_eq!(exporter.drain().await, Ok(()));
        });
        assert_eq!(std::fs::read_to_string(&cursor).unwrap(), "plumbline-cursor/v1 2\n");
        let bodies = receiver.join().unwrap();
        assert!(bodies[1..].iter().all(|body| *body == bodies[1]));
        let request = ExportLogsServiceRequest::decode(bodies[3].as_slice()).unwrap();
        assert_eq!(request.resource_logs[0].scope_logs[0].log_records.len(), 2);
        let first = ExportLogsServiceRequest::decode(bodies[0].as_slice()).unwrap();
        assert_eq!(first.resource_logs[0].scope_logs[0].log_records[0].event_name, "plumbline.checkpoint");
        let points = snapshot(&store);
        let value = |name: &str| points.iter().find(|point| point.series.name == name).and_then(Point::number);
        assert_eq!(value("plumbline_export_errors_total"), Some(2.0));
        assert_eq!(value("plumbline_exported_total"), Some(2.0));
        assert_eq!(value("plumbline_export_lag_records"), Some(0.0));
    }
}
