//! Verifying a log with nothing but its directory and a public key.
//!
//! Every frame, record, checkpoint and header is checked against the rules in `chain`, up to the length the files
//! had at the start, so that a log can be verified while it is written. A segment says in its header where the log stood,
//! so segments are checked side by side and then joined in order; the answer is the same with any number of threads.
//! Never answered here: whether records were cut off since the last checkpoint that left the node. Who kept such a
//! checkpoint gives it as [`Options::expect_at_least`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::chain::{self, Accepted, Chain, Pin, Violation};
use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::frame::FrameError;
use crate::key::{KeyError, VerifierKey};
use crate::log::{CHECKPOINT_FILE, PUBLISHED};
use crate::prune::Kept;
use crate::recovery::read_published;
use crate::report::{Finding, Report, Verdict};
use crate::segment::{self, Header, SegmentError, SegmentPath};
use crate::statement::{Epoch, Opener, Pruned, Statement};

/// What the expected checkpoint is called in messages.
const EXPECTED: &str = "the expected checkpoint";

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A checkpoint of this log kept elsewhere: the log must contain it, so that nothing before it was cut off.
    pub expect_at_least: Option<SignedCheckpoint>,
    /// The log is at rest: nothing may follow its last checkpoint.
    pub at_rest: bool,
    /// Segments checked side by side; 0 is as many as the machine has processors.
    pub threads: usize,
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
#[derive(Debug)]
enum Stop {
    At { place: Location, violation: Violation },
    NoAnswer(VerifyError),
}

#[derive(Clone, Debug)]
struct Location {
    path: PathBuf,
    offset: u64,
    seq: u64,
}

impl Location {
    fn stop<E: Into<Violation>>(self) -> impl FnOnce(E) -> Stop {
        move |violation| Stop::At { place: self, violation: violation.into() }
    }
}

/// Verifies the log in `dir`. The error is for questions without an answer; bad news is a [`Report`].
///
/// A running writer that prunes puts shorter files in the place of old segments. Where that happened meanwhile, bad news
/// may be no news, and the log is verified again.
pub fn verify(dir: &Path, trusted: &[VerifierKey], options: &Options) -> Result<Report, VerifyError> {
    let mut before = snapshot(dir).unwrap_or_default();
    loop {
        let report = verify_once(dir, trusted, options);
        if report.as_ref().is_ok_and(|report| matches!(report.exit_code(), 0 | 2)) {
            return report;
        }
        let after = snapshot(dir).unwrap_or_default();
        let shorter = |(old, new): (&Snapshot, &Snapshot)| old.path == new.path && new.len < old.len;
        if !before.iter().zip(&after).any(shorter) {
            return report;
        }
        before = after;
    }
}

fn verify_once(dir: &Path, trusted: &[VerifierKey], options: &Options) -> Result<Report, VerifyError> {
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
    let published_place = Location { path: published_path, offset: 0, seq: 0 };
    let Some(first) = segments.first() else {
        let published = published.map_err(published_place.clone().stop())?;
        let Some(signed) = options.expect_at_least.as_ref().or(published.as_ref()) else {
            return Err(Stop::NoAnswer(VerifyError::NotALog { dir: dir.to_owned() }));
        };
        let pin = if options.expect_at_least.is_some() { EXPECTED } else { PUBLISHED };
        let violation = Violation::PinSize { pin, expected: signed.checkpoint.size, found: 0 };
        return Err(published_place.stop()(violation));
    };
    // Only once it is known that the log's key is trusted is a note that is not signed by it wrong.
    let (header, _) = open_segment(first, trusted, 0)?;
    if header.first_seq() != first.path.first_seq || header.first_seq() > 0 {
        let place = Location { path: first.path.path.clone(), offset: segment::MAGIC.len() as u64, seq: 0 };
        return Err(place.stop()(out_of_place(&header, first, 0)));
    }
    let published = published.map_err(published_place.clone().stop())?;
    let is_published = published.is_some();
    let mut pins: Vec<Pin> = Vec::new();
    pins.extend(options.expect_at_least.clone().map(|signed| Pin { name: EXPECTED, signed, framed: false }));
    pins.extend(published.map(|signed| Pin { name: PUBLISHED, signed, framed: true }));

    let mut joined = Joined { pins, ..Joined::default() };
    let pins = joined.pins.clone();
    for_each_in_order(
        segments.len(),
        options.threads,
        |index| check_segment(&segments[index], trusted, &pins, index == segments.len() - 1),
        |checked| joined.join(checked, report),
    )?;
    if let Some(end) = &joined.end {
        chain::pins_are_met(&joined.pins, report.records).map_err(end.clone().stop())?;
        if options.at_rest && report.unsigned_records + report.torn_bytes > 0 {
            let (records, torn_bytes) = (report.unsigned_records, report.torn_bytes);
            return Err(end.clone().stop()(Violation::UnsealedTail { records, torn_bytes }));
        }
    }
    joined.prunings_kept_their_word()?;
    if let Some((range, place)) = chain::undeclared(&joined.pruned, &joined.declared) {
        let violation = Violation::UndeclaredPruning { from: range.start, to: range.end };
        return Err(place.clone().stop()(violation));
    }
    if !is_published && report.records > 0 {
        return Err(published_place.stop()(Violation::PinMissing { pin: PUBLISHED }));
    }
    Ok(())
}

/// What the segments so far add up to.
#[derive(Debug, Default)]
struct Joined {
    pins: Vec<Pin>,
    state: Option<Header>,
    pruned: Vec<(Range<u64>, Location)>,
    declared: Vec<Pruned>,
    /// By the number of a segment's first record: the one after its last, what outlives its pruning, and where it is.
    kept: BTreeMap<u64, (u64, Kept, Location)>,
    end: Option<Location>,
}

impl Joined {
    fn join(&mut self, mut checked: CheckedSegment, report: &mut Report) -> Result<(), Stop> {
        if let (Some(state), Some(header)) = (&self.state, &checked.header) {
            let place = Location { offset: segment::MAGIC.len() as u64, seq: report.records, ..checked.end.clone() };
            chain::continues(state, header).map_err(place.stop())?;
        }
        report.add(&checked.counts);
        if let Some(stop) = checked.stop.take() {
            return Err(stop);
        }
        self.pruned.append(&mut checked.pruned);
        self.declared.append(&mut checked.declared);
        for (pin, met) in self.pins.iter_mut().zip(&checked.pins) {
            pin.framed &= met.framed;
        }
        if let (Some(header), Some(state)) = (&checked.header, &checked.state) {
            let place =
                Location { offset: segment::MAGIC.len() as u64, seq: header.first_seq(), ..checked.end.clone() };
            self.kept.insert(header.first_seq(), (state.first_seq(), checked.kept, place));
        }
        self.state = checked.state;
        self.end = Some(checked.end);
        Ok(())
    }

    /// Every pruning left the records that it said it would.
    fn prunings_kept_their_word(&self) -> Result<(), Stop> {
        for Pruned { from, to, kept: expected, kept_sha256, .. } in &self.declared {
            let (end, kept, place) = match self.kept.get(from) {
                Some((end, kept, place)) => (*end, kept.clone(), place.clone()),
                None => (0, Kept::default(), Location { path: PathBuf::new(), offset: 0, seq: *from }),
            };
            if end != *to || kept.count != *expected || kept.sha256() != *kept_sha256 {
                let (from, to, expected, found) = (*from, *to, *expected, kept.count);
                return Err(place.stop()(Violation::KeptRecords { from, to, expected, found }));
            }
        }
        Ok(())
    }
}

/// One segment, checked on its own.
struct CheckedSegment {
    header: Option<Header>,
    counts: Report,
    stop: Option<Stop>,
    pruned: Vec<(Range<u64>, Location)>,
    declared: Vec<Pruned>,
    /// Records that outlive pruning.
    kept: Kept,
    pins: Vec<Pin>,
    /// Where the log stands after it.
    state: Option<Header>,
    /// Where reading ended.
    end: Location,
}

fn check_segment(segment: &Snapshot, trusted: &[VerifierKey], pins: &[Pin], is_last: bool) -> CheckedSegment {
    let end = Location { path: segment.path.path.clone(), offset: 0, seq: segment.path.first_seq };
    let mut checked = CheckedSegment {
        header: None,
        counts: Report::new(),
        stop: None,
        pruned: Vec::new(),
        declared: Vec::new(),
        kept: Kept::default(),
        pins: Vec::new(),
        state: None,
        end,
    };
    checked.stop = walk_segment(segment, trusted, pins, is_last, &mut checked).err();
    checked
}

fn walk_segment(
    segment: &Snapshot,
    trusted: &[VerifierKey],
    pins: &[Pin],
    is_last: bool,
    checked: &mut CheckedSegment,
) -> Result<(), Stop> {
    let (header, mut frames) = open_segment(segment, trusted, segment.path.first_seq)?;
    let mut place = Location { offset: segment::MAGIC.len() as u64, ..checked.end.clone() };
    if header.first_seq() != segment.path.first_seq {
        return Err(place.stop()(out_of_place(&header, segment, segment.path.first_seq)));
    }
    checked.header = Some(header.clone());
    let mut chain = Chain::resume(&header, pins.to_vec()).map_err(place.clone().stop())?;
    let counts = &mut checked.counts;
    counts.segments = 1;
    counts.origin = Some(header.origin);
    counts.key = Some(header.key.to_string());
    // Offset and number of the last record.
    let mut last_record = None;
    loop {
        place.offset = frames.offset();
        place.seq = chain.size();
        match frames.next_frame() {
            Ok(None) => break,
            Ok(Some(frame)) => match chain.accept(&frame) {
                Ok(Accepted::Record { kept, declares_gap, statement }) => {
                    if kept {
                        checked.kept.push(&chain.state.prev);
                    }
                    last_record = Some((place.offset, place.seq));
                    counts.records += 1;
                    counts.declared_gaps += u64::from(declares_gap);
                    match statement {
                        Some(Statement::Epoch(Epoch { opened_by, .. })) => {
                            counts.epochs += 1;
                            counts.epochs_by_node += u64::from(opened_by == Opener::Node);
                        }
                        Some(Statement::Pruned(pruned)) => checked.declared.push(pruned),
                        Some(Statement::Recovered(_)) | None => {}
                    }
                }
                Ok(Accepted::Pruned { records }) => {
                    counts.records += records.end - records.start;
                    counts.pruned_records += records.end - records.start;
                    checked.pruned.push((records, place.clone()));
                }
                Ok(Accepted::Checkpoint { signed, .. }) => {
                    counts.checkpoints += 1;
                    counts.signed_records = signed.checkpoint.size;
                    counts.root = Some(signed.checkpoint.root.to_base64());
                }
                // The record before is as suspect as this one, and it is where the hashes first disagree.
                Err(violation @ Violation::Prev { .. }) => {
                    (place.offset, place.seq) = last_record.unwrap_or((place.offset, place.seq));
                    return Err(place.stop()(violation));
                }
                Err(violation) => return Err(place.stop()(violation)),
            },
            Err(FrameError::Torn { bytes }) if is_last => {
                counts.torn_bytes = bytes;
                break;
            }
            // What the writer was at when it ended: nothing behind what was published was promised to anybody.
            Err(error) if is_last && !matches!(error, FrameError::Io(_)) && chain.published_was_met() => {
                counts.torn_bytes = segment.len - place.offset;
                break;
            }
            Err(error) => return Err(place.stop()(error)),
        }
    }
    counts.unsigned_records = chain.unsigned();
    if !is_last {
        chain.end_segment().map_err(place.clone().stop())?;
    }
    checked.end = place;
    checked.state = Some(chain.state.clone());
    checked.pins = chain.into_pins();
    Ok(())
}

/// Opens a segment and believes its header as far as its key is trusted.
fn open_segment(
    segment: &Snapshot,
    trusted: &[VerifierKey],
    seq: u64,
) -> Result<(Header, segment::SegmentFrames), Stop> {
    let place = |offset| Location { path: segment.path.path.clone(), offset, seq };
    let header = segment::MAGIC.len() as u64;
    let opened = segment::open(&segment.path.path, segment.len).map_err(|error| {
        let offset =
            if matches!(error, SegmentError::Magic { .. } | SegmentError::Version { .. }) { 0 } else { header };
        place(offset).stop()(error)
    })?;
    if !trusted.contains(&opened.0.key) {
        return Err(place(header).stop()(Violation::UntrustedKey { found: opened.0.key.to_string() }));
    }
    if opened.0.key.name() != opened.0.origin {
        let (origin, found) = (opened.0.origin, opened.0.key.name().to_owned());
        return Err(place(header).stop()(Violation::OriginKey { origin, found }));
    }
    Ok(opened)
}

/// Which rule a header breaks that does not begin where its file's name or the log says.
fn out_of_place(header: &Header, segment: &Snapshot, expected: u64) -> Violation {
    let found = header.first_seq();
    if found == segment.path.first_seq {
        return Violation::FirstSeq { expected, found };
    }
    Violation::Name { expected: segment.path.first_seq, found }
}

/// Does `work` for each of `count` items on some threads and hands the results to `take` in the order of the items,
/// until one is refused.
fn for_each_in_order<R: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> R + Sync,
    mut take: impl FnMut(R) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let machine = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { machine() } else { threads }.min(count);
    if threads <= 1 {
        return (0..count).try_for_each(|index| take(work(index)));
    }
    let next = AtomicUsize::new(0);
    let (results, inbox) = mpsc::sync_channel(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (results, next, work) = (results.clone(), &next, &work);
            scope.spawn(move || {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && index < count
                {
                    // The receiver is gone once an answer is known.
                    if results.send((index, work(index))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(results);
        let mut early = BTreeMap::new();
        let mut wanted = 0;
        let outcome = inbox.iter().try_for_each(|(index, result)| {
            early.insert(index, result);
            while let Some(result) = early.remove(&wanted) {
                wanted += 1;
                take(result)?;
            }
            Ok(())
        });
        drop(inbox);
        outcome
    })
}

/// A segment and how long it was when verification began.
struct Snapshot {
    path: SegmentPath,
    len: u64,
}

/// The segments and how long each is now. Names are listed before lengths are read: a segment that has a successor in
/// the list was complete by then.
fn snapshot(dir: &Path) -> Result<Vec<Snapshot>, VerifyError> {
    let segments = segment::list(dir).map_err(VerifyError::io(dir))?;
    let with_length = |path: SegmentPath| {
        let len = fs::metadata(&path.path).map_err(VerifyError::io(&path.path))?.len();
        Ok(Snapshot { path, len })
    };
    segments.into_iter().map(with_length).collect()
}
