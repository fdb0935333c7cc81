//! The log as its one writer sees it: append, flush, checkpoint, close.
//!
//! A record is in the log once [`Log::append`] returned, durable once [`Log::flush`] did, and signed once a
//! checkpoint over it was written. A checkpoint is published only when everything it signs is durable. No clock is
//! read here, no record is written by this module itself, and records that say "started" or "recovered" are the
//! caller's to append.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::chain::Violation;
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::files;
use crate::frame::{FrameError, Kind};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::note::SigningKey;
use crate::record::{Draft, SealError};
use crate::recovery::{Recovered, Recovery, recover};
use crate::segment::Header;
use crate::writer::{SegmentWriter, WriteError};

/// The latest checkpoint, in the log directory.
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// Held locked by the writer.
const LOCK_FILE: &str = "lock";
/// What the checkpoint file is called in messages.
pub(crate) const PUBLISHED: &str = "the file `checkpoint`";

#[derive(Clone, Debug)]
pub struct Options {
    /// Signs the checkpoints; its name is the log's origin.
    pub key: SigningKey,
    /// A segment that has reached this size is followed by a new one.
    pub segment_bytes: u64,
    /// [`Log::tick`] writes a checkpoint after so many records, …
    pub checkpoint_every_records: u64,
    /// … or after so much time, whichever is first.
    pub checkpoint_every: Duration,
}

impl Options {
    /// Segments of 64 MiB, a checkpoint every 1024 records or 10 seconds.
    pub fn new(key: SigningKey) -> Self {
        Options {
            key,
            segment_bytes: 64 << 20,
            checkpoint_every_records: 1024,
            checkpoint_every: Duration::from_secs(10),
        }
    }
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub seq: u64,
    pub leaf: Hash,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("another process is writing the log in {}", dir.display())]
    Locked { dir: PathBuf },
    #[error("the log was written with key {written}, and the key given is {given}")]
    KeyMismatch { written: String, given: String },
    #[error("the log is damaged at {}, offset {offset}", file.display())]
    Corrupt { file: PathBuf, offset: u64, source: Box<Violation> },
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the log in {} takes no more records: {reason}; open it anew", dir.display())]
    Failed { dir: PathBuf, reason: String },
}

impl LogError {
    pub(crate) fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LogError + use<'a> {
        move |source| LogError::Io { doing, path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, violation: Violation) -> LogError {
        match violation {
            Violation::Frame(FrameError::Io(source)) => LogError::io("read", file)(source),
            violation => LogError::Corrupt { file: file.to_owned(), offset, source: Box::new(violation) },
        }
    }
}

/// A log open for writing. Dropping it without [`Log::close`] is what a crash looks like to the next opener.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    options: Options,
    segment: SegmentWriter,
    tree: Frontier,
    prev: Hash,
    /// The last checkpoint written to the segment.
    checkpoint: SignedCheckpoint,
    /// Whether the file `checkpoint` holds it.
    published: bool,
    /// Whether frames were written since the last flush.
    unflushed: bool,
    /// When the last checkpoint was due by time, in the caller's clock.
    ticked: Option<Duration>,
    failed: Option<String>,
    _lock: Lock,
}

/// The directory's lock, held by this writer. Unlocked and not only closed: a child that another thread is just starting
/// still holds a copy of the descriptor, and with it the lock.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Without it the lock goes when the last copy is closed.
        let _ = self.0.unlock();
    }
}

impl Log {
    /// Opens the log in `dir`, or creates one there.
    pub fn open(dir: &Path, options: Options) -> Result<(Log, Recovery), LogError> {
        files::create_private_dir(dir).map_err(LogError::io("create the log directory", dir))?;
        let lock = lock(dir)?;
        files::remove_temporaries(dir).map_err(LogError::io("clean the log directory", dir))?;
        let (recovered, recovery) = match recover(dir, options.key.verifier())? {
            Some(recovered) => {
                let recovery = recovered.recovery.clone();
                (recovered, recovery)
            }
            None => {
                create(dir, &options.key)?;
                let created = Recovery { created: true, last_seq: None, clean_stop: true, dropped_bytes: 0 };
                let path = dir.to_owned();
                let missing = LogError::Io { doing: "find again", path, source: io::ErrorKind::NotFound.into() };
                (recover(dir, options.key.verifier())?.ok_or(missing)?, created)
            }
        };
        let Recovered { chain, segment, checkpoint, published, .. } = recovered;
        let mut log = Log {
            dir: dir.to_owned(),
            options,
            segment,
            tree: chain.tree,
            prev: chain.prev,
            checkpoint,
            published,
            // What a crashed writer left in the page cache is in the tree now and must be durable before it is signed.
            unflushed: true,
            ticked: None,
            failed: None,
            _lock: lock,
        };
        log.flush()?;
        log.publish()?;
        Ok((log, recovery))
    }

    /// The log's name, which is its key's.
    pub fn origin(&self) -> &str {
        self.options.key.verifier().name()
    }

    /// The sequence number that the next record gets.
    pub fn next_seq(&self) -> u64 {
        self.tree.size()
    }

    /// The last checkpoint.
    pub fn last_checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }

    /// Seals the draft and writes it. On an error the log is as it was, and the same draft can be appended again.
    pub fn append(&mut self, draft: &mut Draft) -> Result<Appended, LogError> {
        self.check_usable()?;
        let seq = self.tree.size();
        let bytes = draft.seal(self.options.key.verifier().name(), seq, &self.prev)?;
        if self.segment.len() >= self.options.segment_bytes && seq > self.segment.first_seq {
            self.rotate()?;
        }
        self.write(Kind::Record, &bytes, "append a record to")?;
        self.prev = leaf_hash(&bytes);
        self.tree.push(self.prev);
        Ok(Appended { seq, leaf: self.prev })
    }

    /// Writes a checkpoint if one is due; `now` is any clock that does not go back. When there is nothing new to sign
    /// the last checkpoint is published again: a sign of life for whoever it is shipped to.
    pub fn tick(&mut self, now: Duration) -> Result<Option<&SignedCheckpoint>, LogError> {
        let since = now.saturating_sub(*self.ticked.get_or_insert(now));
        let records = self.tree.size() - self.checkpoint.checkpoint.size;
        if since < self.options.checkpoint_every && records < self.options.checkpoint_every_records.max(1) {
            return Ok(None);
        }
        self.published = false;
        self.checkpoint()?;
        self.ticked = Some(now);
        Ok(Some(&self.checkpoint))
    }

    /// Signs all records so far, makes them durable, and publishes the checkpoint.
    pub fn checkpoint(&mut self) -> Result<&SignedCheckpoint, LogError> {
        self.check_usable()?;
        if self.checkpoint.checkpoint.size < self.tree.size() {
            self.sign(Kind::Checkpoint)?;
        }
        self.flush()?;
        self.publish()?;
        Ok(&self.checkpoint)
    }

    /// Makes every record appended so far durable.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        if self.unflushed {
            // After a failed flush the kernel may forget what it could not write, so flushing again proves nothing.
            self.segment.sync().map_err(|source| {
                self.failed = Some(format!("flushing {} failed: {source}", self.segment.path.display()));
                LogError::io("flush", &self.segment.path)(source)
            })?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Signs everything and marks the stop as orderly.
    pub fn close(mut self) -> Result<SignedCheckpoint, LogError> {
        self.check_usable()?;
        self.sign(Kind::ClosingCheckpoint)?;
        self.flush()?;
        self.publish()?;
        Ok(self.checkpoint)
    }

    fn check_usable(&self) -> Result<(), LogError> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => Err(LogError::Failed { dir: self.dir.clone(), reason: reason.clone() }),
        }
    }

    fn write(&mut self, kind: Kind, payload: &[u8], doing: &'static str) -> Result<(), LogError> {
        self.unflushed = true;
        self.segment.append(kind, payload).map_err(|error| match error {
            WriteError::Undone(source) => LogError::io(doing, &self.segment.path)(source),
            WriteError::Stuck { write, undo } => {
                let path = self.segment.path.display();
                self.failed = Some(format!("writing to {path} failed ({write}), and so did undoing it ({undo})"));
                LogError::io(doing, &self.segment.path)(write)
            }
        })
    }

    fn sign(&mut self, kind: Kind) -> Result<(), LogError> {
        let signed = Checkpoint::of(self.origin(), &self.tree).sign(&self.options.key);
        self.write(kind, signed.note.as_bytes(), "append a checkpoint to")?;
        self.checkpoint = signed;
        self.published = false;
        Ok(())
    }

    /// Puts the last checkpoint, which must be durable, where others look for it.
    fn publish(&mut self) -> Result<(), LogError> {
        if !self.published {
            publish(&self.dir, &self.checkpoint)?;
            self.published = true;
        }
        Ok(())
    }

    /// Ends this segment with a checkpoint, and begins the next with the same.
    fn rotate(&mut self) -> Result<(), LogError> {
        self.checkpoint()?;
        let header = header(&self.options.key, self.prev, self.tree.clone());
        self.segment = SegmentWriter::create(&self.dir, &header, &self.checkpoint)
            .map_err(LogError::io("create a segment in", &self.dir))?;
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<Lock, LogError> {
    let path = dir.join(LOCK_FILE);
    let file = files::private().truncate(false).open(&path).map_err(LogError::io("open the lock", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(LogError::Locked { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(LogError::io("lock", &path)(source)),
    }
}

fn header(key: &SigningKey, prev: Hash, tree: Frontier) -> Header {
    Header { origin: key.verifier().name().to_owned(), key: key.verifier().clone(), prev, tree }
}

fn create(dir: &Path, key: &SigningKey) -> Result<(), LogError> {
    let header = header(key, Hash::ZERO, Frontier::new());
    let empty = Checkpoint::of(key.verifier().name(), &header.tree).sign(key);
    SegmentWriter::create(dir, &header, &empty).map_err(LogError::io("create a segment in", dir))?;
    publish(dir, &empty)
}

fn publish(dir: &Path, signed: &SignedCheckpoint) -> Result<(), LogError> {
    let path = dir.join(CHECKPOINT_FILE);
    files::replace(&path, signed.note.as_bytes()).map_err(LogError::io("publish the checkpoint in", &path)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::verify::{self, verify};
    use crate::writer::Fault;
    use serde_json::Map;

    fn options() -> Options {
        Options::new(SigningKey::from_seed("log.example/a", &[1; 32]).unwrap())
    }

    fn draft(message: &str) -> Draft {
        Draft::new(Map::from_iter([("message".to_owned(), message.into())])).unwrap()
    }

    #[track_caller]
    fn check_intact(dir: &Path, records: u64) {
        let report = verify(dir, &[options().key.verifier().clone()], &verify::Options::default()).unwrap();
        assert!(matches!(report.verdict, Verdict::Intact), "{report}");
        assert_eq!((report.records, report.torn_bytes), (records, 0));
    }

    /// The disk takes any number of bytes of the frame, from none to all but one, and then no more.
    #[test]
    fn a_full_disk_loses_nothing_and_the_same_record_is_appended_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(dir.path(), options()).unwrap();
        for written_bytes in [0, 1, 11, 12, 13, 100, 250] {
            let (seq, mut draft) = (log.next_seq(), draft("kept"));
            log.segment.fault = Some(Fault { written_bytes, undo_fails: false });
            let error = log.append(&mut draft).unwrap_err();
            assert!(matches!(&error, LogError::Io { doing: "append a record to", .. }), "{error}");
            assert!(matches!(log.checkpoint(), Ok(_) | Err(LogError::Io { .. })));
            check_intact(dir.path(), seq);
            log.segment.fault = None;
            assert_eq!(log.append(&mut draft).unwrap().seq, seq);
            check_intact(dir.path(), seq + 1);
        }
        log.close().unwrap();
        check_intact(dir.path(), 7);
    }

    #[test]
    fn a_log_that_cannot_undo_a_torn_write_says_so_and_is_whole_again_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(dir.path(), options()).unwrap();
        log.append(&mut draft("first")).unwrap();
        log.segment.fault = Some(Fault { written_bytes: 20, undo_fails: true });
        assert!(matches!(log.append(&mut draft("second")), Err(LogError::Io { .. })));
        log.segment.fault = None;
        let error = log.append(&mut draft("third")).unwrap_err().to_string();
        assert!(error.contains("takes no more records: writing to") && error.contains("so did undoing it"), "{error}");
        assert!(matches!(log.checkpoint(), Err(LogError::Failed { .. })));
        drop(log);

        let (mut log, recovery) = Log::open(dir.path(), options()).unwrap();
        let expect = Recovery { created: false, last_seq: Some(0), clean_stop: false, dropped_bytes: 20 };
        assert_eq!(recovery, expect);
        assert_eq!(log.append(&mut draft("again")).unwrap().seq, 1);
        log.close().unwrap();
        check_intact(dir.path(), 2);
    }
}
