//! Small logs for tests, and ways to take them apart and put them together again, wrong.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use plumbline_audit::checkpoint::SignedCheckpoint;
use plumbline_audit::frame::{self, Frames, Kind};
use plumbline_audit::key::KeyError;
use plumbline_audit::segment::{self, MAGIC, epoch_key_name};
use plumbline_audit::verify::{self, verify};
use plumbline_audit::{Draft, Log, Options, Report, SigningKey, VerifierKey};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

pub(crate) const ORIGIN: &str = "node-17.example.com/plumbline";

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[1; 32]).expect("the name is a key name")
}

pub(crate) fn vkey() -> VerifierKey {
    key().verifier().clone()
}

/// The key of an epoch of the logs here.
pub(crate) fn epoch_key(number: u64) -> SigningKey {
    SigningKey::from_seed(&epoch_key_name(ORIGIN, number), &seed(number).expect("it is fixed")).expect("it is a name")
}

fn seed(number: u64) -> Result<[u8; 32], KeyError> {
    Ok([u8::try_from(100 + number).expect("tests have few epochs"); 32])
}

/// Segments hold two or three of the records of [`event`]; the secrets of epochs are known.
pub(crate) fn options() -> Options {
    Options { segment_bytes: 1900, ..wide_options() }
}

/// Everything in one segment.
pub(crate) fn wide_options() -> Options {
    Options { seeds: seed, ..Options::new(key()) }
}

pub(crate) fn event(message: &str) -> Map<String, Value> {
    let event = json!({
        "class_uid": 1001, "type_uid": 100_114, "time": 1_760_000_000_000_u64, "message": message,
        "metadata": {"version": "1.8.0", "product": {"name": "plumbline"}},
    });
    event.as_object().expect("it is written as an object").clone()
}

pub(crate) fn draft(message: &str) -> Draft {
    Draft::new(event(message)).expect("the event is free of chain fields")
}

/// An empty directory, in memory where the system has such a place: these tests flush often and never cut the power.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a place for temporary files")
}

/// A log of eight records in three segments, closed in order; the first record opens epoch 0.
pub(crate) fn closed_log() -> TempDir {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).expect("an empty directory");
    append(&mut log, 1..8);
    log.close().expect("room on the disk");
    assert_eq!(segments(dir.path()).len(), 3);
    dir
}

pub(crate) fn append(log: &mut Log, messages: std::ops::Range<u64>) {
    for number in messages {
        log.append(&draft(&format!("event {number}"))).expect("room on the disk");
        log.commit().expect("room on the disk");
    }
}

pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let listed = segment::list(dir).expect("the directory is there");
    listed.into_iter().map(|segment| segment.path).collect()
}

pub(crate) fn verified(dir: &Path) -> Report {
    verified_with(dir, &[vkey()], None)
}

pub(crate) fn verified_with(dir: &Path, trusted: &[VerifierKey], expect: Option<SignedCheckpoint>) -> Report {
    let options = verify::Options { expect_at_least: expect, ..verify::Options::default() };
    verify(dir, trusted, &options).expect("the files can be read")
}

/// The frames of a segment file, header included.
pub(crate) fn frames(path: &Path) -> Vec<(Kind, Vec<u8>)> {
    let bytes = fs::read(path).expect("the segment is there");
    let mut cursor = Cursor::new(&bytes);
    cursor.set_position(MAGIC.len() as u64);
    let mut frames = Frames::new(cursor, MAGIC.len() as u64, bytes.len() as u64);
    let mut all = Vec::new();
    while let Some(frame) = frames.next_frame().expect("the segment is whole") {
        all.push((frame.kind, frame.payload.to_vec()));
    }
    all
}

/// What someone who knows the format and has no key can write: frames with right CRCs.
pub(crate) fn write_frames(path: &Path, frames: &[(Kind, Vec<u8>)]) {
    let mut bytes = MAGIC.to_vec();
    frames.iter().for_each(|(kind, payload)| frame::encode(*kind, payload, &mut bytes));
    fs::write(path, bytes).expect("the segment can be written");
}

pub(crate) fn edit_frames(path: &Path, edit: impl FnOnce(&mut Vec<(Kind, Vec<u8>)>)) {
    let mut all = frames(path);
    edit(&mut all);
    write_frames(path, &all);
}

/// The index, among the frames of a segment, of its n-th record.
pub(crate) fn record(frames: &[(Kind, Vec<u8>)], n: usize) -> usize {
    let mut records = frames.iter().enumerate().filter(|(_, (kind, _))| *kind == Kind::Record);
    records.nth(n).expect("the segment has so many records").0
}

pub(crate) fn copy_dir(from: &Path) -> TempDir {
    let to = scratch();
    for entry in fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("the directory can be read");
        if entry.path().is_dir() {
            continue;
        }
        fs::copy(entry.path(), to.path().join(entry.file_name())).expect("the file can be copied");
    }
    to
}
