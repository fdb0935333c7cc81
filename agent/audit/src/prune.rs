//! Removing the bytes of old records from a segment: their leaf hashes take their place.
//!
//! What stays proves what it proved: every checkpoint, the tree, and each record of the log's own life (classes 1008 and
//! 6002: keys, losses, prunings, starts and stops). Whether a segment may be pruned, and the record that says so, are
//! the caller's business.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::files;
use crate::frame::{self, Kind, MAX_PAYLOAD_BYTES};
use crate::merkle::{Hash, leaf_hash};
use crate::record::{APPLICATION_LIFECYCLE, EVENT_LOG_ACTIVITY, Envelope};
use crate::segment::{self, Header, MAGIC, SegmentError, SegmentFrames};

/// Leaf hashes in one frame.
const MAX_HASHES_BYTES: usize = MAX_PAYLOAD_BYTES / 32 * 32;

/// Whether records of this class outlive pruning.
pub(crate) fn outlives(class_uid: u64) -> bool {
    matches!(class_uid, EVENT_LOG_ACTIVITY | APPLICATION_LIFECYCLE)
}

fn is_kept(record: &[u8]) -> bool {
    Envelope::parse(record).ok().and_then(|envelope| envelope.class_uid()).is_some_and(outlives)
}

/// The records of a segment that outlive its pruning, in one hash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) count: u64,
    digest: Sha256,
}

impl Kept {
    pub(crate) fn push(&mut self, leaf: &Hash) {
        self.count += 1;
        self.digest.update(leaf.as_bytes());
    }

    pub(crate) fn sha256(&self) -> String {
        Hash::from_bytes(self.digest.clone().finalize().into()).to_string()
    }
}

/// What pruning this segment will leave.
pub(crate) fn kept(path: &Path) -> io::Result<Kept> {
    let (_, mut frames) = open(path)?;
    let mut kept = Kept::default();
    while let Some(frame) = frames.next_frame().map_err(damaged)? {
        if frame.kind == Kind::Record && is_kept(frame.payload) {
            kept.push(&leaf_hash(frame.payload));
        }
    }
    Ok(kept)
}

fn open(path: &Path) -> io::Result<(Header, SegmentFrames)> {
    segment::open(path, fs::metadata(path)?.len()).map_err(damaged)
}

fn damaged(error: impl Into<SegmentError>) -> io::Error {
    match error.into() {
        SegmentError::Frame(frame::FrameError::Io(error)) => error,
        error => io::Error::other(error),
    }
}

/// Whether there is a record that pruning would remove.
pub fn holds_bytes(path: &Path) -> io::Result<bool> {
    let (_, mut frames) = open(path)?;
    while let Some(frame) = frames.next_frame().map_err(damaged)? {
        match frame.kind {
            Kind::Pruned => return Ok(false),
            Kind::Record if !is_kept(frame.payload) => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

/// Replaces the segment, all or nothing, by one without the bytes of its records.
pub(crate) fn prune(path: &Path) -> io::Result<()> {
    let (header, mut frames) = open(path)?;
    files::replace_with(path, |file| {
        let mut out = MAGIC.to_vec();
        frame::encode(Kind::Header, header.to_text().as_bytes(), &mut out);
        let mut hashes = Vec::new();
        while let Some(frame) = frames.next_frame().map_err(damaged)? {
            if frame.kind == Kind::Record && !is_kept(frame.payload) {
                hashes.extend_from_slice(leaf_hash(frame.payload).as_bytes());
                if hashes.len() < MAX_HASHES_BYTES {
                    continue;
                }
            }
            if !hashes.is_empty() {
                frame::encode(Kind::Pruned, &hashes, &mut out);
                hashes.clear();
            }
            if frame.kind != Kind::Record || is_kept(frame.payload) {
                frame::encode(frame.kind, frame.payload, &mut out);
            }
            file.write_all(&out)?;
            out.clear();
        }
        debug_assert!(hashes.is_empty(), "a segment that another follows ends with a checkpoint");
        file.write_all(&out)
    })
    .map(drop)
}
