//! The log as its one writer sees it: append, commit, checkpoint, prune, close.
//!
//! A record is in the log once [`Log::append`] returned, durable once [`Log::commit`] did, and signed once a checkpoint
//! over it is durable. A checkpoint is published only when everything that it signs is durable, so the published
//! checkpoint says what is. No clock is read here: time is passed to [`Log::tick`]. The only records that this module
//! writes of its own are statements; what is around them comes from the
//! [`Keeper`](crate::statement::Keeper).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::chain::Violation;
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::epoch::EpochSigner;
use crate::files;
use crate::frame::{FrameError, Kind};
use crate::key::{KeyError, SigningKey};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::options::Options;
use crate::prune;
use crate::reader::ReadError;
use crate::record::{Draft, DraftError, Place, SealError};
use crate::recovery::{self, Recovery, recover};
use crate::segment::{self, Header};
use crate::statement::{Opener, Pruned, Statement};
use crate::tree::TreeWriter;
use crate::writer::SegmentWriter;

/// The latest checkpoint, in the log directory.
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// Held locked by the writer.
const LOCK_FILE: &str = "lock";
/// How long after a failure nothing is tried.
const RETRY: Duration = Duration::from_secs(1);
/// What the checkpoint file is called in messages.
pub(crate) const PUBLISHED: &str = "the file `checkpoint`";

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
    #[error("the log cannot be written, and {bytes} bytes of records wait already")]
    Backlog { bytes: usize },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the event around a statement of the log cannot become a record")]
    Keeper(#[source] DraftError),
    #[error("no key for a new epoch")]
    Epoch(#[source] KeyError),
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

    /// Whether the disk is full: what freeing room would mend.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, LogError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// A log open for writing. Dropping it without [`Log::close`] is what a crash looks like to the next opener.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    options: Options,
    pub(crate) segment: SegmentWriter,
    tree_files: TreeWriter,
    tree: Frontier,
    prev: Hash,
    place: Place,
    epoch: EpochSigner,
    /// The last checkpoint pushed to the segment.
    checkpoint: SignedCheckpoint,
    /// The last one in the file `checkpoint`.
    published: SignedCheckpoint,
    /// Records that are durable.
    durable: u64,
    times: Times,
    /// The last commit failed.
    failing: bool,
    _lock: Lock,
}

/// When things were last done, in the caller's clock; `None` until the first [`Log::tick`].
#[derive(Debug, Default)]
struct Times {
    checkpoint: Option<Duration>,
    epoch: Option<Duration>,
    /// When the first record that is not durable was seen waiting.
    waiting: Option<Duration>,
    /// After a failure nothing is tried again before this.
    not_before: Option<Duration>,
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
    /// Opens the log in `dir`, or creates one there. What recovery found is stated by a record, and a new epoch begins.
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
                let path = dir.to_owned();
                let missing = LogError::Io { doing: "find again", path, source: io::ErrorKind::NotFound.into() };
                (recover(dir, options.key.verifier())?.ok_or(missing)?, Recovery::of_a_new_log())
            }
        };
        let tree_files = recovery::tree_files(dir, &recovered)?;
        let Header { tree, prev, .. } = recovered.state.clone();
        let mut log = Log {
            dir: dir.to_owned(),
            epoch: EpochSigner::new(&options.key, options.seeds, recovered.next_epoch).map_err(LogError::Epoch)?,
            options,
            segment: recovered.segment,
            tree_files,
            durable: tree.size(),
            place: Place::new(&recovered.state.origin),
            tree,
            prev,
            published: recovered.checkpoint.clone(),
            checkpoint: recovered.checkpoint,
            times: Times::default(),
            failing: false,
            _lock: lock,
        };
        if !recovered.published {
            log.publish()?;
        }
        if let Some(statement) = recovery.statement() {
            log.state(&statement)?;
        }
        log.state(&Statement::Epoch(log.epoch.statement(Opener::Node, log.options.checkpoint_every_records)))?;
        log.sign(Kind::Checkpoint);
        log.commit()?;
        Ok((log, recovery))
    }

    /// The log's name, which is its key's.
    pub fn origin(&self) -> &str {
        self.options.key.verifier().name()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The sequence number that the next record gets.
    pub fn next_seq(&self) -> u64 {
        self.tree.size()
    }

    /// Records that are durable: they outlive a power failure.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The number of the epoch whose key signs now.
    pub fn epoch(&self) -> u64 {
        self.epoch.number()
    }

    /// The last checkpoint that is published; everything it signs is durable.
    pub fn last_checkpoint(&self) -> &SignedCheckpoint {
        &self.published
    }

    /// Seals the draft and keeps it for the next commit. On an error the log is as it was, and the same draft can be
    /// appended again.
    pub fn append(&mut self, draft: &Draft) -> Result<Appended, LogError> {
        if self.segment.pending_bytes() >= self.options.backlog_bytes {
            if self.failing {
                return Err(LogError::Backlog { bytes: self.segment.pending_bytes() });
            }
            self.commit()?;
        }
        let appended = self.push(draft)?;
        if self.tree.size() - self.checkpoint.checkpoint.size >= self.options.checkpoint_every_records.max(1) {
            self.sign(Kind::Checkpoint);
        }
        Ok(appended)
    }

    fn push(&mut self, draft: &Draft) -> Result<Appended, LogError> {
        let seq = self.tree.size();
        let (place, prev) = (&mut self.place, &self.prev);
        let leaf = leaf_hash(self.segment.push_record(|out| draft.seal_into(out, place, seq, prev))?);
        self.tree_files.push(leaf);
        self.prev = leaf;
        self.tree.push(leaf);
        Ok(Appended { seq, leaf })
    }

    fn state(&mut self, statement: &Statement) -> Result<Appended, LogError> {
        let draft = Draft::stating(self.options.keeper.event(statement), statement).map_err(LogError::Keeper)?;
        self.push(&draft)
    }

    /// Does what is due: a commit, a checkpoint, a new epoch. `now` is any clock that does not go back. When there is
    /// nothing new to sign the last checkpoint is published again: a sign of life for whoever it is shipped to.
    pub fn tick(&mut self, now: Duration) -> Result<(), LogError> {
        if self.times.not_before.is_some_and(|not_before| now < not_before) {
            return Ok(());
        }
        let done = self.do_what_is_due(now);
        self.times.not_before = done.is_err().then(|| now + RETRY);
        done
    }

    fn do_what_is_due(&mut self, now: Duration) -> Result<(), LogError> {
        let since = |last: &mut Option<Duration>| now.saturating_sub(*last.get_or_insert(now));
        if since(&mut self.times.epoch) >= self.options.epoch_every {
            self.times.epoch = Some(now);
            self.next_epoch()?;
        }
        if since(&mut self.times.checkpoint) >= self.options.checkpoint_every {
            self.times.checkpoint = Some(now);
            self.checkpoint()?;
            return self.publish();
        }
        let waiting = self.tree.size() - self.durable;
        if waiting == 0 {
            self.times.waiting = None;
            return Ok(());
        }
        let full = waiting >= self.options.commit_every_records.max(1);
        if full || since(&mut self.times.waiting) >= self.options.commit_every {
            self.commit()?;
        }
        Ok(())
    }

    /// How long after a [`Log::tick`] at `now` the next is due, if a record waits to become durable.
    pub fn commit_due_in(&self, now: Duration) -> Option<Duration> {
        let waiting = self.times.waiting.filter(|_| self.tree.size() > self.durable)?;
        let due = (waiting + self.options.commit_every).max(self.times.not_before.unwrap_or_default());
        Some(due.saturating_sub(now))
    }

    /// Makes everything appended durable, publishes a checkpoint that became so, and begins a new segment when this one
    /// is full. On an error nothing is lost, and the next commit goes on.
    pub fn commit(&mut self) -> Result<(), LogError> {
        let committed = self.try_commit();
        self.failing = committed.is_err();
        committed
    }

    /// Whether the last commit failed: [`Log::tick`] tries again after a second.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    fn try_commit(&mut self) -> Result<(), LogError> {
        self.segment.commit().map_err(LogError::io("write", &self.segment.path))?;
        self.durable = self.tree.size();
        self.times.waiting = None;
        // Before the checkpoint, so that whoever sees it finds what proves it.
        self.tree_files.commit().map_err(LogError::io("write the hashes of the tree in", &self.dir))?;
        if self.published != self.checkpoint {
            self.publish()?;
        }
        if self.segment.len() >= self.options.segment_bytes && self.tree.size() > self.segment.first_seq {
            self.rotate()?;
        }
        Ok(())
    }

    /// Signs all records so far, makes them durable, and publishes the checkpoint.
    pub fn checkpoint(&mut self) -> Result<&SignedCheckpoint, LogError> {
        if self.checkpoint.checkpoint.size < self.tree.size() {
            self.sign(Kind::Checkpoint);
        }
        self.commit()?;
        Ok(&self.published)
    }

    /// Begins the next epoch: its key is stated by a record that the present key signs, and the present key is
    /// forgotten.
    pub fn next_epoch(&mut self) -> Result<(), LogError> {
        let next = self.epoch.next(&self.options.key, self.options.seeds).map_err(LogError::Epoch)?;
        let statement = next.statement(Opener::Epoch, self.options.checkpoint_every_records);
        self.state(&Statement::Epoch(statement))?;
        self.sign(Kind::Checkpoint);
        self.epoch = next;
        self.commit()
    }

    /// Removes the bytes of the records before `to`, as far as whole segments allow, after having said so in a record.
    /// Their hashes stay, and so do the records of the log's own life. Which records were looked through, if any held bytes
    /// to remove.
    pub fn prune(&mut self, to: u64, reason: &str) -> Result<Option<Range<u64>>, LogError> {
        let segments = segment::list(&self.dir).map_err(LogError::io("list the log directory", &self.dir))?;
        let failed = |path: PathBuf| move |source| LogError::Io { doing: "prune", path, source };
        let mut doomed = Vec::new();
        for pair in segments.windows(2).filter(|pair| pair[1].first_seq <= to) {
            if prune::holds_bytes(&pair[0].path).map_err(failed(pair[0].path.clone()))? {
                doomed.push((pair[0].path.clone(), pair[0].first_seq, pair[1].first_seq));
            }
        }
        let (Some((_, from, _)), Some((_, _, to))) = (doomed.first(), doomed.last()) else { return Ok(None) };
        let range = *from..*to;
        for (path, from, to) in &doomed {
            let kept = prune::kept(path).map_err(failed(path.clone()))?;
            let (kept, kept_sha256) = (kept.count, kept.sha256());
            let pruned = Pruned { from: *from, to: *to, kept, kept_sha256, reason: reason.to_owned() };
            self.state(&Statement::Pruned(pruned))?;
        }
        self.checkpoint()?;
        for (path, _, _) in doomed {
            prune::prune(&path).map_err(failed(path))?;
        }
        Ok(Some(range))
    }

    /// Signs everything and marks the stop as orderly.
    pub fn close(mut self) -> Result<SignedCheckpoint, LogError> {
        self.sign(Kind::ClosingCheckpoint);
        self.segment.commit().map_err(LogError::io("write", &self.segment.path))?;
        self.tree_files.commit().map_err(LogError::io("write the hashes of the tree in", &self.dir))?;
        self.publish()?;
        Ok(self.checkpoint)
    }

    fn signed(&self) -> SignedCheckpoint {
        Checkpoint::of(self.origin(), &self.tree).sign(&[&self.options.key, self.epoch.key()])
    }

    fn sign(&mut self, kind: Kind) {
        self.checkpoint = self.signed();
        self.segment.push(kind, self.checkpoint.note.as_bytes());
    }

    /// Puts the last checkpoint, which must be durable, where others look for it.
    fn publish(&mut self) -> Result<(), LogError> {
        publish(&self.dir, &self.checkpoint)?;
        self.published = self.checkpoint.clone();
        Ok(())
    }

    /// Ends this segment with a checkpoint of the epoch in force, and begins the next with the same.
    fn rotate(&mut self) -> Result<(), LogError> {
        if self.checkpoint != self.signed() {
            self.sign(Kind::Checkpoint);
            self.segment.commit().map_err(LogError::io("write", &self.segment.path))?;
            self.publish()?;
        }
        self.tree_files.sync().map_err(LogError::io("flush the hashes of the tree in", &self.dir))?;
        let key = self.options.key.verifier().clone();
        let epoch = Some(self.epoch.in_force(self.options.checkpoint_every_records));
        let header = Header { origin: key.name().to_owned(), key, epoch, prev: self.prev, tree: self.tree.clone() };
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

fn create(dir: &Path, key: &SigningKey) -> Result<(), LogError> {
    let (origin, key_text) = (key.verifier().name().to_owned(), key.verifier().clone());
    let header = Header { origin, key: key_text, epoch: None, prev: Hash::ZERO, tree: Frontier::new() };
    let empty = Checkpoint::of(key.verifier().name(), &header.tree).sign(&[key]);
    SegmentWriter::create(dir, &header, &empty).map_err(LogError::io("create a segment in", dir))?;
    publish(dir, &empty)?;
    files::sync_dir(dir).map_err(LogError::io("flush", dir))
}

fn publish(dir: &Path, signed: &SignedCheckpoint) -> Result<(), LogError> {
    let path = dir.join(CHECKPOINT_FILE);
    files::replace_lazily(&path, signed.note.as_bytes()).map_err(LogError::io("publish the checkpoint in", &path))
}

#[cfg(test)]
mod tests;
