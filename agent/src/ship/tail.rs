//! The records of the log that a receiver has not acknowledged, batch by batch.
//!
//! Only records that the published checkpoint covers are given out. Later ones a power failure could still take back,
//! and others would get their numbers: the receiver would hold records that the log never had, and the cursor would
//! pass over the ones it has.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use plumbline_audit::{
    MAX_RECORD_BYTES, Reader, VerifierKey,
    checkpoint::SignedCheckpoint,
    log::CHECKPOINT_FILE,
    reader::{Entry, ReadError},
    verify::{VerifyError, checkpoint_from_file},
};

use super::cursor::Cursor;
use crate::core::chain;

/// What one request may hold.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    #[error("it is not known how much of the log is signed")]
    Checkpoint(#[from] VerifyError),
    #[error(
        "{acknowledged} records were acknowledged, and the log has {signed}: it is another log, shipped from its beginning"
    )]
    AnotherLog { acknowledged: u64, signed: u64 },
    #[error("cannot read records to ship")]
    Read(#[from] ReadError),
}

#[derive(Debug)]
pub(super) struct Tail {
    log_dir: PathBuf,
    /// The log's own key.
    key: [VerifierKey; 1],
    cursor: Cursor,
    /// The first record that is not acknowledged.
    next: u64,
    /// Stands at `next` or, after a batch, behind that batch.
    reader: Option<Reader>,
}

impl Tail {
    /// Goes on where the cursor stands; without a cursor that can be read, all is sent again.
    pub(super) fn new(log_dir: &Path, key: VerifierKey, cursor: &Path) -> Self {
        let cursor = Cursor::at(cursor);
        let next = cursor.read().unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "every record is shipped again");
            0
        });
        Self { log_dir: log_dir.to_owned(), key: [key], cursor, next, reader: None }
    }

    /// Signed records that are not acknowledged.
    pub(super) fn lag(&self) -> Result<u64, TailError> {
        Ok(self.signed()?.saturating_sub(self.next))
    }

    /// The next records, none when there are none. After a batch comes the one behind it, be it acknowledged or not.
    pub(super) fn batch(&mut self) -> Result<Vec<Entry>, TailError> {
        let batch = self.try_batch();
        if let Err(error) = &batch {
            self.reader = None;
            // Said by the error, once; the next batch is what there is.
            match error {
                TailError::AnotherLog { .. } => self.next = 0,
                TailError::Read(ReadError::Gone { first, .. }) => self.next = *first,
                _ => {}
            }
        }
        batch
    }

    fn try_batch(&mut self) -> Result<Vec<Entry>, TailError> {
        let signed = self.signed()?;
        if self.next > signed {
            return Err(TailError::AnotherLog { acknowledged: self.next, signed });
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(Reader::from_seq(&self.log_dir, self.next)?),
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_RECORDS && bytes + MAX_RECORD_BYTES <= BATCH_BYTES && reader.next_seq() < signed {
            let Some(entry) = reader.next().transpose()? else { break };
            bytes += entry.bytes.len();
            batch.push(entry);
        }
        Ok(batch)
    }

    /// Everything before `next` has arrived. On an error that is known to this run, but not to the one after a crash.
    pub(super) fn acknowledge(&mut self, next: u64) -> io::Result<()> {
        self.next = next;
        self.cursor.write(next)
    }

    /// How many records the published checkpoint covers.
    fn signed(&self) -> Result<u64, TailError> {
        Ok(self.checkpoint()?.checkpoint.size)
    }

    /// The published checkpoint.
    pub(super) fn checkpoint(&self) -> Result<SignedCheckpoint, TailError> {
        Ok(checkpoint_from_file(&self.log_dir.join(CHECKPOINT_FILE), &self.key)?)
    }

    /// When it was published.
    pub(super) fn published(&self) -> Option<SystemTime> {
        fs::metadata(self.log_dir.join(CHECKPOINT_FILE)).ok()?.modified().ok()
    }
}

#[cfg(test)]
mod tests {
    use plumbline_audit::{Draft, Log, Options, SigningKey};
    use serde_json::Map;

    use super::*;

    /// A log on a disk of its own, and where the exporter keeps its cursor.
    struct Node {
        scratch: tempfile::TempDir,
        key: SigningKey,
    }

    impl Node {
        fn new() -> Self {
            let key = SigningKey::from_seed("log.example/a", &[1; 32]).unwrap();
            Self { scratch: tempfile::tempdir().unwrap(), key }
        }

        fn log(&self) -> Log {
            Log::open(&self.log_dir(), Options::new(self.key.clone())).unwrap().0
        }

        fn log_dir(&self) -> PathBuf {
            self.scratch.path().join("log")
        }

        /// An exporter as it starts.
        fn tail(&self) -> Tail {
            Tail::new(&self.log_dir(), self.key.verifier().clone(), &self.scratch.path().join("cursor/test"))
        }
    }

    fn append(log: &mut Log, message: &str) {
        let event = [("class_uid".to_owned(), 1001.into()), ("message".to_owned(), message.into())];
        log.append(&Draft::new(Map::from_iter(event)).unwrap()).unwrap();
    }

    fn numbers(batch: Result<Vec<Entry>, TailError>) -> Vec<u64> {
        batch.unwrap().iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn a_record_is_given_out_once_it_is_signed() {
        let node = Node::new();
        let mut log = node.log();
        append(&mut log, "a");
        let mut tail = node.tail();
        assert_eq!(numbers(tail.batch()), [0], "what opened the epoch");
        log.commit().unwrap();
        assert!(numbers(tail.batch()).is_empty());
        log.checkpoint().unwrap();
        append(&mut log, "b");
        assert_eq!(numbers(tail.batch()), [1]);
        assert!(numbers(tail.batch()).is_empty());
    }

    #[test]
    fn after_a_crash_between_sending_and_acknowledgement_the_batch_is_sent_again() {
        let node = Node::new();
        let mut log = node.log();
        append(&mut log, "a");
        append(&mut log, "b");
        log.checkpoint().unwrap();
        let mut tail = node.tail();
        let sent = tail.batch().unwrap();
        drop(tail);
        let mut tail = node.tail();
        assert_eq!(tail.lag().unwrap(), 3);
        assert_eq!(tail.batch().unwrap(), sent);
        tail.acknowledge(3).unwrap();
        assert_eq!(tail.lag().unwrap(), 0);
        assert!(numbers(node.tail().batch()).is_empty());
    }

    #[test]
    fn a_power_failure_takes_back_no_record_that_was_given_out() {
        let node = Node::new();
        let mut log = node.log();
        append(&mut log, "kept");
        log.checkpoint().unwrap();
        append(&mut log, "taken back");
        log.commit().unwrap();
        let mut tail = node.tail();
        let sent = tail.batch().unwrap();
        tail.acknowledge(sent.last().unwrap().seq + 1).unwrap();
        drop(log);
        // What was not flushed is gone, as if it had never been.
        let segments = fs::read_dir(node.log_dir()).unwrap().map(|entry| entry.unwrap().path());
        let segment = segments.filter(|path| path.to_string_lossy().contains("segment")).max().unwrap();
        let len = fs::metadata(&segment).unwrap().len();
        fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(len - 20).unwrap();
        let mut log = node.log();
        append(&mut log, "another with the same number");
        log.checkpoint().unwrap();
        let batch = node.tail().batch().unwrap();
        // That it was recovered, the new epoch, and the record.
        assert_eq!(batch.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(String::from_utf8_lossy(&batch[2].bytes).contains("another"));
    }

    #[test]
    fn a_batch_is_bounded_in_records_and_in_bytes() {
        let node = Node::new();
        let mut log = node.log();
        let long = "x".repeat(60_000);
        for number in 0..600 {
            append(&mut log, if number < 20 { &long } else { "short" });
        }
        log.checkpoint().unwrap();
        let mut tail = node.tail();
        let sizes: Vec<(usize, bool)> = std::iter::from_fn(|| {
            let batch = tail.batch().unwrap();
            let bytes: usize = batch.iter().map(|entry| entry.bytes.len()).sum();
            (!batch.is_empty()).then_some((batch.len(), bytes <= BATCH_BYTES))
        })
        .collect();
        assert_eq!(sizes, [(18, true), (512, true), (71, true)]);
    }

    #[test]
    fn a_log_that_was_replaced_by_a_shorter_one_is_said_and_sent_from_its_beginning() {
        let node = Node::new();
        let mut log = node.log();
        append(&mut log, "a");
        log.checkpoint().unwrap();
        let mut tail = node.tail();
        tail.acknowledge(7).unwrap();
        assert!(matches!(tail.batch(), Err(TailError::AnotherLog { acknowledged: 7, signed: 2 })));
        assert_eq!(numbers(tail.batch()), [0, 1]);
    }
}
