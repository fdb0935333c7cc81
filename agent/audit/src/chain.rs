//! The rules that make frames a log: one place for the verifier and for recovery.
//!
//! A [`Chain`] is fed segment headers and frames in order and says at each what is violated, if anything. It reads no
//! file and knows no offsets; who feeds it knows where it is.

use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::frame::{Frame, FrameError, Kind};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::note::VerifierKey;
use crate::record::Envelope;
use crate::segment::{Header, SegmentError};

/// One broken rule: what was expected, and what was found. Text from the log is quoted, so it cannot drive a terminal.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Segment(SegmentError),
    #[error("expected a segment signed by a trusted key, found key {found:?}")]
    UntrustedKey { found: String },
    #[error("expected the log {expected:?}, found a segment of {found:?}")]
    SegmentOrigin { expected: String, found: String },
    #[error("expected a segment that begins with record {expected}, found one that begins with record {found}")]
    FirstSeq { expected: u64, found: u64 },
    #[error("expected this segment to begin with record {expected}, as its name says, found record {found}")]
    Name { expected: u64, found: u64 },
    #[error("expected the segment header to repeat the hash {expected} of the record before it, found {found}")]
    HeaderPrev { expected: Hash, found: Hash },
    #[error("expected the segment header to repeat the tree with root {expected}, found root {found}")]
    HeaderTree { expected: String, found: String },
    #[error("expected a checkpoint right after the segment header")]
    NoOpening,
    #[error("expected a record or a checkpoint, found a second segment header")]
    SecondHeader,
    #[error("expected a record with chain fields, found something else: {0:?}")]
    Record(String),
    #[error("expected record {expected}, found record {found}")]
    Sequence { expected: u64, found: u64 },
    #[error("expected a record of the log {expected:?}, found one of {found:?}")]
    RecordOrigin { expected: String, found: String },
    #[error("expected the uid of record {seq} to be its log and number, found {found:?}")]
    Uid { seq: u64, found: String },
    #[error(
        "record {before} hashes to {expected}, but record {seq} keeps {found:?} as the hash before it: one of them was changed",
        before = .seq.saturating_sub(1)
    )]
    Prev { seq: u64, expected: Hash, found: String },
    #[error("expected a checkpoint signed by the segment's key: {0}")]
    Checkpoint(CheckpointError),
    #[error("expected a checkpoint of the log {expected:?}, found one of {found:?}")]
    CheckpointOrigin { expected: String, found: String },
    #[error("expected a checkpoint over the {expected} records before it, found one over {found}")]
    CheckpointSize { expected: u64, found: u64 },
    #[error("the checkpoint signs root {found} over {size} records, but they have root {expected}: one was changed")]
    CheckpointRoot { size: u64, expected: String, found: String },
    #[error("expected a segment that another follows to end with a checkpoint, found {records} records after its last")]
    UnsignedEnd { records: u64 },
    #[error("expected at least the {expected} records that {pin} signs, found {found}: the log was cut or rolled back")]
    PinSize { pin: &'static str, expected: u64, found: u64 },
    #[error(
        "{pin} signs root {expected} over {size} records, but they have root {found}: these are two histories, or a record was changed"
    )]
    PinRoot { pin: &'static str, size: u64, expected: String, found: String },
    #[error("expected {pin} to be kept in the segments too, but it is not there")]
    PinUnframed { pin: &'static str },
    #[error("expected {pin}, which is written before the first record, but it is missing")]
    PinMissing { pin: &'static str },
    #[error("expected {pin} to be a signed checkpoint of this log: {reason}")]
    PinUnreadable { pin: &'static str, reason: String },
}

impl From<SegmentError> for Violation {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Frame(error) => Violation::Frame(error),
            error => Violation::Segment(error),
        }
    }
}

/// A checkpoint known from elsewhere, which the log must contain.
#[derive(Debug)]
pub(crate) struct Pin {
    /// What it is called in a message.
    pub(crate) name: &'static str,
    pub(crate) signed: SignedCheckpoint,
    /// Whether the very note must be in the segments: true of what this log itself published.
    pub(crate) framed: bool,
}

/// What a frame turned out to be.
#[derive(Debug)]
pub(crate) enum Accepted {
    Record { declares_loss: bool },
    Checkpoint { signed: SignedCheckpoint, closing: bool },
}

/// The state of the log after the frames accepted so far.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) origin: String,
    pub(crate) key: VerifierKey,
    pub(crate) tree: Frontier,
    pub(crate) prev: Hash,
    /// Records under the last checkpoint; `None` until the segment's opening checkpoint.
    signed: Option<u64>,
    pins: Vec<Pin>,
}

impl Chain {
    /// Starts where a header says, taking its word for everything before it.
    pub(crate) fn resume(header: &Header, pins: Vec<Pin>) -> Result<Self, Violation> {
        for Pin { name: pin, signed, .. } in &pins {
            if signed.checkpoint.origin != header.origin {
                let reason = format!("it is of the log {:?}", signed.checkpoint.origin);
                return Err(Violation::PinUnreadable { pin, reason });
            }
        }
        let Header { origin, key, prev, tree } = header.clone();
        let mut chain = Chain { origin, key, tree, prev, signed: None, pins };
        chain.check_pins()?;
        Ok(chain)
    }

    /// The next segment: its header must repeat where the chain is.
    pub(crate) fn next_segment(&mut self, header: &Header) -> Result<(), Violation> {
        if header.origin != self.origin {
            return Err(Violation::SegmentOrigin { expected: self.origin.clone(), found: header.origin.clone() });
        }
        if header.first_seq() != self.tree.size() {
            return Err(Violation::FirstSeq { expected: self.tree.size(), found: header.first_seq() });
        }
        if header.tree != self.tree {
            let (expected, found) = (self.tree.root().to_base64(), header.tree.root().to_base64());
            return Err(Violation::HeaderTree { expected, found });
        }
        if header.prev != self.prev {
            return Err(Violation::HeaderPrev { expected: self.prev, found: header.prev });
        }
        self.key = header.key.clone();
        self.signed = None;
        Ok(())
    }

    /// A segment ends here, and another follows.
    pub(crate) fn end_segment(&self) -> Result<(), Violation> {
        match self.unsigned() {
            0 => Ok(()),
            records => Err(Violation::UnsignedEnd { records }),
        }
    }

    /// Records that no checkpoint signs yet.
    pub(crate) fn unsigned(&self) -> u64 {
        self.tree.size() - self.signed.unwrap_or(self.tree.size())
    }

    pub(crate) fn accept(&mut self, frame: &Frame<'_>) -> Result<Accepted, Violation> {
        let closing = frame.kind == Kind::ClosingCheckpoint;
        match frame.kind {
            Kind::Header => Err(Violation::SecondHeader),
            Kind::Record if self.signed.is_none() => Err(Violation::NoOpening),
            Kind::Record => self.accept_record(frame.payload),
            Kind::Checkpoint | Kind::ClosingCheckpoint => {
                self.accept_checkpoint(frame.payload).map(|signed| Accepted::Checkpoint { signed, closing })
            }
        }
    }

    fn accept_record(&mut self, bytes: &[u8]) -> Result<Accepted, Violation> {
        let envelope = Envelope::parse(bytes).map_err(|error| Violation::Record(error.to_string()))?;
        let seq = self.tree.size();
        if envelope.seq() != seq {
            return Err(Violation::Sequence { expected: seq, found: envelope.seq() });
        }
        if envelope.prev() != self.prev.to_string() {
            return Err(Violation::Prev { seq, expected: self.prev, found: envelope.prev().to_owned() });
        }
        if envelope.origin() != self.origin {
            let found = envelope.origin().to_owned();
            return Err(Violation::RecordOrigin { expected: self.origin.clone(), found });
        }
        if !envelope.uid_is_right() {
            return Err(Violation::Uid { seq, found: envelope.uid().to_owned() });
        }
        self.prev = leaf_hash(bytes);
        self.tree.push(self.prev);
        self.check_pins()?;
        Ok(Accepted::Record { declares_loss: envelope.declares_loss() })
    }

    fn accept_checkpoint(&mut self, note: &[u8]) -> Result<SignedCheckpoint, Violation> {
        let key = std::slice::from_ref(&self.key);
        let signed = SignedCheckpoint::open(note, key).map_err(Violation::Checkpoint)?;
        let Checkpoint { origin, size, root } = &signed.checkpoint;
        if *origin != self.origin {
            return Err(Violation::CheckpointOrigin { expected: self.origin.clone(), found: origin.clone() });
        }
        if *size != self.tree.size() {
            return Err(Violation::CheckpointSize { expected: self.tree.size(), found: *size });
        }
        if *root != self.tree.root() {
            let (expected, found) = (self.tree.root().to_base64(), root.to_base64());
            return Err(Violation::CheckpointRoot { size: *size, expected, found });
        }
        self.signed = Some(*size);
        self.pins.iter_mut().filter(|pin| pin.signed.note == signed.note).for_each(|pin| pin.framed = false);
        Ok(signed)
    }

    /// Compares each pinned checkpoint with the tree at the moment the tree has its size.
    fn check_pins(&mut self) -> Result<(), Violation> {
        let size = self.tree.size();
        for Pin { name: pin, signed, .. } in self.pins.iter().filter(|pin| pin.signed.checkpoint.size == size) {
            let (expected, found) = (signed.checkpoint.root, self.tree.root());
            if expected != found {
                let (expected, found) = (expected.to_base64(), found.to_base64());
                return Err(Violation::PinRoot { pin, size, expected, found });
            }
        }
        Ok(())
    }

    /// The log ends here: every pinned checkpoint must have been met.
    pub(crate) fn finish(&self) -> Result<(), Violation> {
        let found = self.tree.size();
        for Pin { name: pin, signed, framed } in &self.pins {
            let expected = signed.checkpoint.size;
            if expected > found {
                return Err(Violation::PinSize { pin, expected, found });
            }
            if *framed {
                return Err(Violation::PinUnframed { pin });
            }
        }
        Ok(())
    }
}
