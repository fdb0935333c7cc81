//! The rules that make frames a log: one place for the verifier and for recovery.
//!
//! A [`Chain`] is fed segment headers and frames in order and says at each what is violated, if anything. It reads no
//! file and knows no offsets; who feeds it knows where it is.

use std::ops::Range;

use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::frame::{Frame, FrameError, Kind};
use crate::key::VerifierKey;
use crate::merkle::{Hash, leaf_hash};
use crate::prune;
use crate::record::{EVENT_LOG_ACTIVITY, Envelope, Place};
use crate::segment::{EpochKey, Header, SegmentError, epoch_key_name};
use crate::statement::{Epoch, Opener, Pruned, Statement};

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
    #[error("expected a checkpoint signed by the key of its epoch, {expected}, too")]
    EpochSignature { expected: String },
    #[error("expected the segments of one log to name one key, {expected:?}, found {found:?}")]
    HeaderKey { expected: String, found: String },
    #[error("expected the key of the log {origin:?} to have its name, found {found:?}")]
    OriginKey { origin: String, found: String },
    #[error(
        "expected the {expected} records of the log's own life among records {from} to {to} that outlive pruning, found {found} \
         or others", to = .to.saturating_sub(1)
    )]
    KeptRecords { from: u64, to: u64, expected: u64, found: u64 },
    #[error("expected the segment header to name the epoch in force, {expected}, found {found}")]
    HeaderEpoch { expected: String, found: String },
    #[error("expected the log to go on with a new epoch, as it does after its beginning, a stop or a recovery")]
    NotOpened,
    #[error("expected epoch {expected} to be the next, found epoch {found}")]
    EpochNumber { expected: u64, found: u64 },
    #[error("expected the key of epoch {number} to be named {expected:?}, found {found:?}")]
    EpochKey { number: u64, expected: String, found: String },
    #[error(
        "expected a new epoch's key to be vouched for by the epoch before: the node's key does so only after a stop"
    )]
    EpochOpener,
    #[error("expected a checkpoint right after the record that opens an epoch")]
    OpeningUnsigned,
    #[error("expected a checkpoint after {most} records at most, as this epoch declares, found {found} without one")]
    TooManyUnsigned { most: u64, found: u64 },
    #[error("expected a statement of the log that can be read: {0:?}")]
    Statement(String),
    #[error("expected whole leaf hashes of 32 bytes, found {found} bytes")]
    PrunedHashes { found: usize },
    #[error("records {from} to {to} were removed, and no record declares it", to = .to.saturating_sub(1))]
    UndeclaredPruning { from: u64, to: u64 },
    #[error("expected a log at rest to end with a checkpoint, found {records} records and {torn_bytes} bytes after it")]
    UnsealedTail { records: u64, torn_bytes: u64 },
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
#[derive(Clone, Debug)]
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
    /// `kept`: pruning never removes it.
    Record {
        kept: bool,
        declares_gap: bool,
        statement: Option<Statement>,
    },
    Checkpoint {
        signed: SignedCheckpoint,
        closing: bool,
    },
    Pruned {
        records: Range<u64>,
    },
}

/// What the next frame must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// Anything.
    Any,
    /// A new epoch by the node's key, or first the word that the log was recovered.
    Opening,
    /// The checkpoint that puts this epoch into force, signed by the epoch's own key (after a stop) or by the one
    /// before (`handover`).
    Force { epoch: Box<EpochKey>, handover: bool },
}

/// The state of the log after the frames accepted so far.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Where the log stands: what the header of a segment that begins here must say.
    pub(crate) state: Header,
    place: Place,
    /// Records under the last checkpoint; `None` until the segment's opening checkpoint.
    signed: Option<u64>,
    next: Next,
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
        let next = if header.epoch.is_none() { Next::Opening } else { Next::Any };
        let place = Place::new(&header.origin);
        let chain = Chain { state: header.clone(), place, signed: None, next, pins };
        chain.check_pins()?;
        Ok(chain)
    }

    pub(crate) fn size(&self) -> u64 {
        self.state.tree.size()
    }

    /// A segment ends here, and another follows.
    pub(crate) fn end_segment(&self) -> Result<(), Violation> {
        match (self.unsigned(), &self.next) {
            (0, Next::Any) => Ok(()),
            (records, _) => Err(Violation::UnsignedEnd { records }),
        }
    }

    /// Records that no checkpoint signs yet.
    pub(crate) fn unsigned(&self) -> u64 {
        self.size() - self.signed.unwrap_or(self.size())
    }

    /// Records that the last checkpoint covers.
    pub(crate) fn signed(&self) -> u64 {
        self.size() - self.unsigned()
    }

    /// The number of the epoch that can be opened next.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.state.epoch.as_ref().map_or(0, |epoch| epoch.number + 1)
    }

    pub(crate) fn accept(&mut self, frame: &Frame<'_>) -> Result<Accepted, Violation> {
        let closing = frame.kind == Kind::ClosingCheckpoint;
        match frame.kind {
            Kind::Header => Err(Violation::SecondHeader),
            Kind::Record | Kind::Pruned if self.signed.is_none() => Err(Violation::NoOpening),
            Kind::Record => self.accept_record(frame.payload),
            Kind::Pruned => self.accept_pruned(frame.payload),
            Kind::Checkpoint | Kind::ClosingCheckpoint => {
                self.accept_checkpoint(frame.payload, closing).map(|signed| Accepted::Checkpoint { signed, closing })
            }
        }
    }

    fn accept_record(&mut self, bytes: &[u8]) -> Result<Accepted, Violation> {
        let seq = self.size();
        let Some(class_uid) = self.place.class_of(bytes, seq, &self.state.prev) else {
            return Err(self.misplaced(bytes));
        };
        let (mut declares_gap, mut statement) = (false, None);
        if class_uid == EVENT_LOG_ACTIVITY {
            let envelope = Envelope::parse(bytes).map_err(|error| Violation::Statement(error.to_string()))?;
            (declares_gap, statement) = (envelope.declares_gap(), envelope.statement().cloned());
        }
        self.next = self.follow(statement.as_ref())?;
        self.state.prev = leaf_hash(bytes);
        self.state.tree.push(self.state.prev);
        self.check_pins()?;
        // The log states several prunings at once and signs them together; a writer that dies in between leaves them.
        if let (Next::Any, Some(epoch), None) = (&self.next, &self.state.epoch, &statement)
            && self.unsigned() > epoch.max_unsigned
        {
            return Err(Violation::TooManyUnsigned { most: epoch.max_unsigned, found: self.unsigned() });
        }
        Ok(Accepted::Record { kept: prune::outlives(class_uid), declares_gap, statement })
    }

    /// Which rule a record breaks that is not the one to stand here.
    fn misplaced(&self, bytes: &[u8]) -> Violation {
        let seq = self.size();
        let envelope = match Envelope::parse(bytes) {
            Ok(envelope) => envelope,
            Err(error) => return Violation::Record(error.to_string()),
        };
        if envelope.seq() != seq {
            return Violation::Sequence { expected: seq, found: envelope.seq() };
        }
        if envelope.prev() != self.state.prev.to_string() {
            return Violation::Prev { seq, expected: self.state.prev, found: envelope.prev().to_owned() };
        }
        if envelope.origin() != self.state.origin {
            let found = envelope.origin().to_owned();
            return Violation::RecordOrigin { expected: self.state.origin.clone(), found };
        }
        if !envelope.uid_is_right() {
            return Violation::Uid { seq, found: envelope.uid().to_owned() };
        }
        Violation::Record("its first and last fields are not the ones that place a record".to_owned())
    }

    /// What must come after a record with this statement, if the record may come at all.
    fn follow(&self, statement: Option<&Statement>) -> Result<Next, Violation> {
        match (&self.next, statement) {
            // What was being opened when the writer died never came into force.
            (_, Some(Statement::Recovered(_))) => Ok(Next::Opening),
            (Next::Force { .. }, _) => Err(Violation::OpeningUnsigned),
            (Next::Opening, Some(Statement::Epoch(epoch))) => self.opened(epoch, Opener::Node),
            (Next::Opening, _) => Err(Violation::NotOpened),
            (Next::Any, Some(Statement::Epoch(epoch))) => self.opened(epoch, Opener::Epoch),
            (Next::Any, _) => Ok(Next::Any),
        }
    }

    fn opened(&self, epoch: &Epoch, opener: Opener) -> Result<Next, Violation> {
        let number = self.next_epoch();
        if epoch.number != number {
            return Err(Violation::EpochNumber { expected: number, found: epoch.number });
        }
        if epoch.opened_by != opener {
            return Err(Violation::EpochOpener);
        }
        let expected = epoch_key_name(&self.state.origin, number);
        let key: VerifierKey = epoch.key.parse().map_err(|error| Violation::Statement(format!("{error}")))?;
        if key.name() != expected {
            return Err(Violation::EpochKey { number, expected, found: key.name().to_owned() });
        }
        let epoch = Box::new(EpochKey { number, key, max_unsigned: epoch.max_unsigned });
        Ok(Next::Force { epoch, handover: opener == Opener::Epoch })
    }

    fn accept_pruned(&mut self, hashes: &[u8]) -> Result<Accepted, Violation> {
        let (leaves, rest) = hashes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Violation::PrunedHashes { found: hashes.len() });
        }
        if self.next != Next::Any {
            return Err(Violation::NotOpened);
        }
        let from = self.size();
        for leaf in leaves {
            self.state.prev = Hash::from_bytes(*leaf);
            self.state.tree.push(self.state.prev);
            self.check_pins()?;
        }
        Ok(Accepted::Pruned { records: from..self.size() })
    }

    fn accept_checkpoint(&mut self, note: &[u8], closing: bool) -> Result<SignedCheckpoint, Violation> {
        let node = std::slice::from_ref(&self.state.key);
        let signed = SignedCheckpoint::open(note, node).map_err(Violation::Checkpoint)?;
        let Checkpoint { origin, size, root } = &signed.checkpoint;
        if *origin != self.state.origin {
            return Err(Violation::CheckpointOrigin { expected: self.state.origin.clone(), found: origin.clone() });
        }
        if *size != self.size() {
            return Err(Violation::CheckpointSize { expected: self.size(), found: *size });
        }
        if *root != self.state.tree.root() {
            let (expected, found) = (self.state.tree.root().to_base64(), root.to_base64());
            return Err(Violation::CheckpointRoot { size: *size, expected, found });
        }
        let signer = match &self.next {
            Next::Force { epoch, handover: false } => Some(&epoch.key),
            Next::Opening if self.signed.is_some() => return Err(Violation::NotOpened),
            _ => self.state.epoch.as_ref().map(|epoch| &epoch.key),
        };
        if let Some(key) = signer
            && !signed.is_signed_by(key)
        {
            return Err(Violation::EpochSignature { expected: key.to_string() });
        }
        match std::mem::replace(&mut self.next, Next::Any) {
            Next::Force { epoch, .. } => self.state.epoch = Some(*epoch),
            Next::Opening => self.next = Next::Opening,
            Next::Any => {}
        }
        if closing {
            self.next = Next::Opening;
        }
        self.signed = Some(*size);
        self.pins.iter_mut().filter(|pin| pin.signed.note == signed.note).for_each(|pin| pin.framed = false);
        Ok(signed)
    }

    /// Compares each pinned checkpoint with the tree at the moment the tree has its size.
    fn check_pins(&self) -> Result<(), Violation> {
        let size = self.size();
        for Pin { name: pin, signed, .. } in self.pins.iter().filter(|pin| pin.signed.checkpoint.size == size) {
            let (expected, found) = (signed.checkpoint.root, self.state.tree.root());
            if expected != found {
                let (expected, found) = (expected.to_base64(), found.to_base64());
                return Err(Violation::PinRoot { pin, size, expected, found });
            }
        }
        Ok(())
    }

    /// Whether the published note was among the frames: nothing behind it was promised to anybody.
    pub(crate) fn published_was_met(&self) -> bool {
        self.signed.is_some() && self.pins.iter().all(|pin| !pin.framed)
    }

    /// The pins, those that were met in the segments no longer asking to be.
    pub(crate) fn into_pins(self) -> Vec<Pin> {
        self.pins
    }
}

/// The next segment's header must repeat where the log stands.
pub(crate) fn continues(state: &Header, header: &Header) -> Result<(), Violation> {
    if header.origin != state.origin {
        return Err(Violation::SegmentOrigin { expected: state.origin.clone(), found: header.origin.clone() });
    }
    if header.key != state.key {
        return Err(Violation::HeaderKey { expected: state.key.to_string(), found: header.key.to_string() });
    }
    if header.first_seq() != state.first_seq() {
        return Err(Violation::FirstSeq { expected: state.first_seq(), found: header.first_seq() });
    }
    if header.tree != state.tree {
        let (expected, found) = (state.tree.root().to_base64(), header.tree.root().to_base64());
        return Err(Violation::HeaderTree { expected, found });
    }
    if header.prev != state.prev {
        return Err(Violation::HeaderPrev { expected: state.prev, found: header.prev });
    }
    if header.epoch != state.epoch {
        let name = |epoch: &Option<EpochKey>| format!("{:?}", epoch.as_ref().map(|epoch| &epoch.key));
        return Err(Violation::HeaderEpoch { expected: name(&state.epoch), found: name(&header.epoch) });
    }
    Ok(())
}

/// The log ends at `size` records: every pinned checkpoint must have been met.
pub(crate) fn pins_are_met(pins: &[Pin], size: u64) -> Result<(), Violation> {
    for Pin { name: pin, signed, framed } in pins {
        let expected = signed.checkpoint.size;
        if expected > size {
            return Err(Violation::PinSize { pin, expected, found: size });
        }
        if *framed {
            return Err(Violation::PinUnframed { pin });
        }
    }
    Ok(())
}

/// The first pruned range that no statement covers.
pub(crate) fn undeclared<'a, T>(pruned: &'a [(Range<u64>, T)], declared: &[Pruned]) -> Option<&'a (Range<u64>, T)> {
    pruned.iter().find(|(range, _)| {
        let mut at = range.start;
        // Statements may overlap and come in any order.
        while let Some(pruning) = declared.iter().find(|pruning| pruning.from <= at && at < pruning.to) {
            at = pruning.to;
        }
        at < range.end
    })
}
