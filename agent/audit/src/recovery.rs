//! Opening a log that exists: find its end, and drop a final frame that was being written when the writer stopped.
//!
//! Nothing else is ever repaired. Only the last segment is read: its header carries the tree and hash before it, and
//! its opening checkpoint signs them. Whether the earlier segments are whole is what verifying is for.

use std::fs;
use std::io;
use std::path::Path;

use crate::chain::{Accepted, Chain, Pin, Violation};
use crate::checkpoint::SignedCheckpoint;
use crate::frame::FrameError;
use crate::log::{CHECKPOINT_FILE, LogError, PUBLISHED};
use crate::note::VerifierKey;
use crate::segment::{self, SegmentPath};
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
    /// Bytes of an unfinished final frame that were dropped: at most one record, whose appending never returned.
    pub dropped_bytes: u64,
}

/// An existing log, ready to be written on.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) chain: Chain,
    pub(crate) segment: SegmentWriter,
    pub(crate) checkpoint: SignedCheckpoint,
    /// Whether the file `checkpoint` is that checkpoint.
    pub(crate) published: bool,
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

    let mut last_checkpoint = None;
    let mut clean_stop = false;
    loop {
        let offset = frames.offset();
        match frames.next_frame() {
            Ok(Some(frame)) => match chain.accept(&frame).map_err(bad(offset))? {
                Accepted::Record { .. } => clean_stop = false,
                Accepted::Checkpoint { signed, closing } => {
                    last_checkpoint = Some(signed);
                    clean_stop = closing;
                }
            },
            // The last frame's sectors need not have reached the disk in order, so a wrong CRC is torn too, if last.
            Ok(None) | Err(FrameError::Torn { .. } | FrameError::Crc { last: true, .. }) => break,
            Err(error) => return Err(bad(offset)(error.into())),
        }
    }
    // What was published had been made durable before: if it is not among the whole frames, this was no torn write.
    let end = frames.offset();
    chain.finish().map_err(bad(end))?;
    let checkpoint = last_checkpoint.ok_or_else(|| bad(end)(Violation::NoOpening))?;
    if published_note.is_none() && chain.tree.size() > 0 {
        return Err(corrupt(Violation::PinMissing { pin: PUBLISHED }));
    }

    let dropped_bytes = len.saturating_sub(end);
    let segment = SegmentPath { first_seq: last.first_seq, path: last.path.clone() };
    let segment = SegmentWriter::reopen(segment, end).map_err(LogError::io("open for writing", &last.path))?;
    let recovery = Recovery {
        created: false,
        last_seq: chain.tree.size().checked_sub(1),
        clean_stop: clean_stop && dropped_bytes == 0,
        dropped_bytes,
    };
    let published = published_note.as_deref() == Some(checkpoint.note.as_str());
    Ok(Some(Recovered { chain, segment, checkpoint, published, recovery }))
}
