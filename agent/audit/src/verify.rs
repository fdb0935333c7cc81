//! Verifying a log with nothing but its directory and a public key.
//!
//! Every frame, record, checkpoint and header is checked against the rules in `chain`, up to the length the files
//! had at the start, so that a log can be verified while it is written. Never answered here: whether records were
//! cut off since the last checkpoint that left the node. Who kept such a checkpoint gives it as
//! [`Options::expect_at_least`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::chain::{Accepted, Chain, Pin, Violation};
use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::frame::FrameError;
use crate::log::{CHECKPOINT_FILE, PUBLISHED};
use crate::note::{KeyError, VerifierKey};
use crate::recovery::read_published;
use crate::report::{Finding, Report, Verdict};
use crate::segment::{self, SegmentError, SegmentPath};

/// What the expected checkpoint is called in messages.
const EXPECTED: &str = "the expected checkpoint";

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A checkpoint of this log kept elsewhere: the log must contain it, so that nothing before it was cut off.
    pub expect_at_least: Option<SignedCheckpoint>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("there is no audit log in {}", dir.display())]
    NotALog { dir: PathBuf },
    #[error("{} holds no verifier key", path.display())]
    KeyFile { path: PathBuf, source: KeyError },
    #[error("{} holds no checkpoint that a trusted key signed", path.display())]
    Checkpoint { path: PathBuf, source: CheckpointError },
}

impl VerifyError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> VerifyError + use<'_> {
        move |source| VerifyError::Io { path: path.to_owned(), source }
    }
}

/// A verifier key given as text, or as the name of a file that holds the text.
pub fn key_from_text_or_file(argument: &str) -> Result<VerifierKey, VerifyError> {
    if let Ok(key) = argument.parse() {
        return Ok(key);
    }
    let path = Path::new(argument);
    let text = fs::read_to_string(path).map_err(VerifyError::io(path))?;
    text.trim().parse().map_err(|source| VerifyError::KeyFile { path: path.to_owned(), source })
}

/// A checkpoint kept elsewhere, as a signed note in a file.
pub fn checkpoint_from_file(path: &Path, trusted: &[VerifierKey]) -> Result<SignedCheckpoint, VerifyError> {
    let note = fs::read(path).map_err(VerifyError::io(path))?;
    SignedCheckpoint::open(&note, trusted).map_err(|source| VerifyError::Checkpoint { path: path.to_owned(), source })
}

/// Where verification stopped, and why.
enum Stop {
    At { place: Place, violation: Violation },
    NoAnswer(VerifyError),
}

#[derive(Clone)]
struct Place {
    path: PathBuf,
    offset: u64,
    seq: u64,
}

impl Place {
    fn stop<E: Into<Violation>>(self) -> impl FnOnce(E) -> Stop {
        move |violation| Stop::At { place: self, violation: violation.into() }
    }
}

/// Verifies the log in `dir`. The error is for questions without an answer; bad news is a [`Report`].
pub fn verify(dir: &Path, trusted: &[VerifierKey], options: &Options) -> Result<Report, VerifyError> {
    let mut report = Report::new();
    report.verdict = match walk(dir, trusted, options, &mut report) {
        Ok(()) if report.declared_gaps > 0 => Verdict::Incomplete,
        Ok(()) => Verdict::Intact,
        Err(Stop::NoAnswer(error)) => return Err(error),
        Err(Stop::At { place, violation: Violation::Frame(FrameError::Io(source)) }) => {
            return Err(VerifyError::Io { path: place.path, source });
        }
        Err(Stop::At { place, violation }) => {
            let file = place.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let finding = Finding { file, offset: place.offset, seq: place.seq, what: violation.to_string() };
            match violation {
                Violation::UntrustedKey { .. } => Verdict::Untrusted(finding),
                _ => Verdict::Tampered(finding),
            }
        }
    };
    Ok(report)
}

fn walk(dir: &Path, trusted: &[VerifierKey], options: &Options, report: &mut Report) -> Result<(), Stop> {
    // The checkpoint first, the lengths last: then a running writer can only have added to what the checkpoint signs.
    let published_path = dir.join(CHECKPOINT_FILE);
    let published = read_published(dir, trusted).map_err(VerifyError::io(&published_path)).map_err(Stop::NoAnswer)?;
    let segments = snapshot(dir).map_err(Stop::NoAnswer)?;
    let published_place = Place { path: published_path, offset: 0, seq: 0 };
    let Some((first, _)) = segments.first() else {
        let published = published.map_err(published_place.clone().stop())?;
        let Some(signed) = options.expect_at_least.as_ref().or(published.as_ref()) else {
            return Err(Stop::NoAnswer(VerifyError::NotALog { dir: dir.to_owned() }));
        };
        let pin = if options.expect_at_least.is_some() { EXPECTED } else { PUBLISHED };
        let violation = Violation::PinSize { pin, expected: signed.checkpoint.size, found: 0 };
        return Err(published_place.stop()(violation));
    };

    let mut pins: Vec<Pin> = Vec::new();
    if let Some(signed) = options.expect_at_least.clone() {
        pins.push(Pin { name: EXPECTED, signed, framed: false });
    }
    let mut published = Some(published);
    let mut is_published = false;
    let mut chain: Option<Chain> = None;
    let mut place = Place { path: first.path.clone(), offset: 0, seq: 0 };
    let mut last_record = place.clone();
    let last = segments.len() - 1;
    for (index, (segment, end)) in segments.iter().enumerate() {
        place = Place { path: segment.path.clone(), offset: 0, seq: report.records };
        let (header, mut frames) = segment::open(&segment.path, *end).map_err(|error| {
            let offset = if matches!(error, SegmentError::Magic { .. }) { 0 } else { segment::MAGIC.len() as u64 };
            Place { offset, ..place.clone() }.stop()(error)
        })?;
        place.offset = segment::MAGIC.len() as u64;
        if !trusted.contains(&header.key) {
            return Err(place.stop()(Violation::UntrustedKey { found: header.key.to_string() }));
        }
        if header.first_seq() != segment.first_seq {
            let (expected, found) = (segment.first_seq, header.first_seq());
            return Err(place.stop()(Violation::Name { expected, found }));
        }
        let chain = match &mut chain {
            Some(chain) => {
                chain.next_segment(&header).map_err(place.clone().stop())?;
                chain
            }
            None => {
                if let found @ 1.. = header.first_seq() {
                    return Err(place.stop()(Violation::FirstSeq { expected: 0, found }));
                }
                // Only now is it known that the key is trusted, and that a note that is not signed by it is wrong.
                if let Some(published) = published.take() {
                    let published = published.map_err(published_place.clone().stop())?;
                    is_published = published.is_some();
                    pins.extend(published.map(|signed| Pin { name: PUBLISHED, signed, framed: true }));
                }
                let resumed = Chain::resume(&header, std::mem::take(&mut pins)).map_err(place.clone().stop())?;
                chain.insert(resumed)
            }
        };
        report.segments += 1;
        report.origin = Some(header.origin);
        report.key = Some(header.key.to_string());

        loop {
            place = Place { offset: frames.offset(), seq: report.records, ..place };
            match frames.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    match chain.accept(&frame) {
                        Ok(Accepted::Record { declares_loss }) => {
                            last_record = place.clone();
                            report.declared_gaps += u64::from(declares_loss);
                        }
                        Ok(Accepted::Checkpoint { signed, .. }) => {
                            report.checkpoints += 1;
                            report.signed_records = signed.checkpoint.size;
                            report.root = Some(signed.checkpoint.root.to_base64());
                        }
                        // The record before is as suspect as this one, and it is where the hashes first disagree.
                        Err(violation @ Violation::Prev { seq: 1.., .. }) => return Err(last_record.stop()(violation)),
                        Err(violation) => return Err(place.stop()(violation)),
                    }
                    report.records = chain.tree.size();
                }
                Err(FrameError::Torn { bytes }) if index == last => {
                    report.torn_bytes = bytes;
                    break;
                }
                Err(error) => return Err(place.stop()(error)),
            }
        }
        report.unsigned_records = chain.unsigned();
        if index < last {
            chain.end_segment().map_err(place.clone().stop())?;
        }
    }
    if let Some(chain) = chain {
        chain.finish().map_err(place.stop())?;
    }
    if !is_published && report.records > 0 {
        return Err(published_place.stop()(Violation::PinMissing { pin: PUBLISHED }));
    }
    Ok(())
}

/// The segments and how long each is now. Names are listed before lengths are read: a segment that has a successor in
/// the list was complete by then.
fn snapshot(dir: &Path) -> Result<Vec<(SegmentPath, u64)>, VerifyError> {
    let segments = segment::list(dir).map_err(VerifyError::io(dir))?;
    let with_length = |segment: SegmentPath| {
        let len = fs::metadata(&segment.path).map_err(VerifyError::io(&segment.path))?.len();
        Ok((segment, len))
    };
    segments.into_iter().map(with_length).collect()
}
