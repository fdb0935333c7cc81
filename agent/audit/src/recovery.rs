//! Opening a log that exists: find its end, and drop a final frame that was being written when the writer stopped.
//!
//! Nothing else is ever repaired, and what was dropped is stated by a record. Only the last segment is read: its header carries the tree and hash before it, and
//! its opening checkpoint signs them. Whether the earlier segments are whole is what verifying is for.

use std::fs;
use std::io;
use std::path::Path;

use crate::chain::{self, Accepted, Chain, Pin, Violation};
use crate::checkpoint::SignedCheckpoint;
use crate::frame::FrameError;
use crate::key::VerifierKey;
use crate::leaves;
use crate::log::{CHECKPOINT_FILE, LogError, PUBLISHED};
use crate::merkle::{Hash, leaf_hash};
use crate::segment::{self, Header, SegmentPath};
use crate::statement::{self, Statement};
use crate::tree::TreeWriter;
use crate::writer::SegmentWriter;

/// What opening a log found. What is here belongs into the first record of the new run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// There was no log: this is its beginning.
    pub created: bool,
    /// The last record there is.
    pub last_seq: Option<u64>,
    /// The previous writer closed the log in order. Also true of a log just created.
    pub clean_stop: bool,
    /// Records that the last checkpoint covers.
    pub signed: u64,
    /// Bytes at the end that were dropped: what was being committed when the writer ended, and was never signed.
    pub dropped_bytes: u64,
    /// The last record's bytes; `None` too where they were pruned.
    pub last_record: Option<Vec<u8>>,
}

impl Recovery {
    pub(crate) fn of_a_new_log() -> Self {
        Recovery { created: true, last_seq: None, clean_stop: true, signed: 0, dropped_bytes: 0, last_record: None }
    }

    /// What the log must say of it, if anything.
    pub(crate) fn statement(&self) -> Option<Statement> {
        let Recovery { last_seq, signed, dropped_bytes, .. } = *self;
        (!self.clean_stop).then_some(Statement::Recovered(statement::Recovered { last_seq, signed, dropped_bytes }))
    }
}

/// An existing log, ready to be written on.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Where the log stands, as a segment's header would say.
    pub(crate) state: Header,
    pub(crate) next_epoch: u64,
    pub(crate) segment: SegmentWriter,
    pub(crate) checkpoint: SignedCheckpoint,
    /// Whether the file `checkpoint` is that checkpoint.
    pub(crate) published: bool,
    /// The number of the segment's first record, and the leaf hashes from there on.
    pub(crate) leaves: (u64, Vec<Hash>),
    pub(crate) recovery: Recovery,
}

/// The published checkpoint, if any: `Err` if the file is there and is not one of ours.
pub(crate) fn read_published(
    dir: &Path,
    trusted: &[VerifierKey],
) -> io::Result<Result<Option<SignedCheckpoint>, Violation>> {
    let note = match fs::read(dir.join(CHECKPOINT_FILE)) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        Err(error) => return Err(error),
    };
    let signed = SignedCheckpoint::open(&note, trusted);
    Ok(signed.map(Some).map_err(|error| Violation::PinUnreadable { pin: PUBLISHED, reason: error.to_string() }))
}

/// Reads the last segment; `None` where there is no log yet.
pub(crate) fn recover(dir: &Path, key: &VerifierKey) -> Result<Option<Recovered>, LogError> {
    let segments = segment::list(dir).map_err(LogError::io("list the log directory", dir))?;
    let published_path = dir.join(CHECKPOINT_FILE);
    let corrupt = |violation| LogError::corrupt(&published_path, 0, violation);
    let published = read_published(dir, std::slice::from_ref(key))
        .map_err(LogError::io("read the published checkpoint", &published_path))?;
    let Some(last) = segments.last() else {
        // A checkpoint without segments: the records it signs are gone, and starting anew would hide that.
        return match published.map_err(corrupt)? {
            None => Ok(None),
            Some(SignedCheckpoint { checkpoint, .. }) => {
                let (expected, found) = (checkpoint.size, 0);
                Err(corrupt(Violation::PinSize { pin: PUBLISHED, expected, found }))
            }
        };
    };
    let bad = |offset| move |violation: Violation| LogError::corrupt(&last.path, offset, violation);
    let len = fs::metadata(&last.path).map_err(LogError::io("read the length of", &last.path))?.len();
    let (header, mut frames) = segment::open(&last.path, len).map_err(|error| bad(0)(error.into()))?;
    if header.key != *key {
        return Err(LogError::KeyMismatch { written: header.key.to_string(), given: key.to_string() });
    }
    let published = published.map_err(corrupt)?;
    if published.is_none() && header.first_seq() > 0 {
        return Err(corrupt(Violation::PinMissing { pin: PUBLISHED }));
    }
    let published_note = published.as_ref().map(|signed| signed.note.clone());
    let pins = published.into_iter().map(|signed| Pin { name: PUBLISHED, signed, framed: true }).collect();
    let mut chain = Chain::resume(&header, pins).map_err(bad(0))?;

    let (mut last_checkpoint, mut clean_stop, mut last_record, mut leaves) = (None, false, None, Vec::new());
    loop {
        let offset = frames.offset();
        match frames.next_frame() {
            Ok(Some(frame)) => match chain.accept(&frame).map_err(bad(offset))? {
                Accepted::Record { .. } => {
                    clean_stop = false;
                    leaves.push(leaf_hash(frame.payload));
                    last_record = Some(frame.payload.to_vec());
                }
                Accepted::Pruned { .. } => {
                    leaves.extend(frame.payload.as_chunks::<32>().0.iter().copied().map(Hash::from_bytes));
                    last_record = None;
                }
                Accepted::Checkpoint { signed, closing } => {
                    last_checkpoint = Some(signed);
                    clean_stop = closing;
                }
            },
            Ok(None) | Err(FrameError::Torn { .. }) => break,
            // The sectors of a commit need not have reached the disk in order: behind what was published, a bad frame is
            // where the log ends.
            Err(error) if !matches!(error, FrameError::Io(_)) && chain.published_was_met() => break,
            Err(error) => return Err(bad(offset)(error.into())),
        }
    }
    // What was published had been made durable before: if it is not among the whole frames, this was no torn write.
    let end = frames.offset();
    let checkpoint = last_checkpoint.ok_or_else(|| bad(end)(Violation::NoOpening))?;
    if published_note.is_none() && chain.size() > 0 {
        return Err(corrupt(Violation::PinMissing { pin: PUBLISHED }));
    }

    let dropped_bytes = len.saturating_sub(end);
    let recovery = Recovery {
        created: false,
        last_seq: chain.size().checked_sub(1),
        clean_stop: clean_stop && dropped_bytes == 0,
        signed: chain.signed(),
        dropped_bytes,
        last_record,
    };
    let state = chain.state.clone();
    let next_epoch = chain.next_epoch();
    chain::pins_are_met(&chain.into_pins(), state.first_seq()).map_err(bad(end))?;
    let segment = SegmentPath { first_seq: last.first_seq, path: last.path.clone() };
    let segment = SegmentWriter::reopen(segment, end).map_err(LogError::io("open for writing", &last.path))?;
    let published = published_note.as_deref() == Some(checkpoint.note.as_str());
    let leaves = (last.first_seq, leaves);
    Ok(Some(Recovered { state, next_epoch, segment, checkpoint, published, leaves, recovery }))
}

/// The hashes of the tree, up to the last record. Those of earlier segments were flushed when this segment began; those
/// of this one are written anew; where the files are gone, all are, from the segments.
pub(crate) fn tree_files(dir: &Path, recovered: &Recovered) -> Result<TreeWriter, LogError> {
    let failed = || LogError::io("write the hashes of the tree in", dir);
    let (first, leaves) = &recovered.leaves;
    let mut files = match TreeWriter::open(dir, *first).map_err(failed())? {
        Some(files) => files,
        None => rebuilt(dir, *first)?,
    };
    leaves.iter().for_each(|leaf| files.push(*leaf));
    files.sync().map_err(failed())?;
    Ok(files)
}

/// The hashes of the first `size` records, from their segments, which are read but not verified.
fn rebuilt(dir: &Path, size: u64) -> Result<TreeWriter, LogError> {
    let failed = || LogError::io("write the hashes of the tree in", dir);
    let empty = TreeWriter::open(dir, 0).map_err(failed())?;
    let mut files = empty.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
    let mut since_commit = 0;
    leaves::for_each(dir, size, |leaf| {
        files.push(leaf);
        since_commit += 1;
        if since_commit % 65_536 == 0 { files.commit().map_err(failed()) } else { Ok(()) }
    })?;
    Ok(files)
}
