//! A disk that is full or fails, seen from inside: faults that no file system makes on demand.

use super::*;
use crate::report::Verdict;
use crate::verify::{self, verify};
use crate::writer::Fault;
use serde_json::Map;

fn options() -> Options {
    Options::new(SigningKey::from_seed("log.example/a", &[1; 32]).unwrap())
}

fn draft(message: &str) -> Draft {
    let fields = [("class_uid".to_owned(), 1001.into()), ("message".to_owned(), message.into())];
    Draft::new(Map::from_iter(fields)).unwrap()
}

#[track_caller]
fn check_intact(dir: &Path, records: u64) {
    let report = verify(dir, &[options().key.verifier().clone()], &verify::Options::default()).unwrap();
    assert!(matches!(report.verdict, Verdict::Intact), "{report}");
    assert_eq!(report.records, records);
}

/// The disk takes any number of bytes of the frames, from none to all but one, and then no more.
#[test]
fn a_full_disk_loses_nothing_and_the_records_are_durable_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    for written_bytes in [0, 1, 11, 12, 13, 100, 250] {
        let durable = log.durable();
        log.append(&draft("kept")).unwrap();
        log.segment.fault = Some(Fault::Full { written_bytes });
        for _ in 0..2 {
            let error = log.commit().unwrap_err();
            assert!(error.is_storage_full(), "{error}");
            log.append(&draft("kept too")).unwrap();
        }
        assert_eq!(log.durable(), durable);
        log.segment.fault = None;
        log.commit().unwrap();
        assert_eq!(log.durable(), durable + 3);
        check_intact(dir.path(), durable + 3);
    }
    log.close().unwrap();
    check_intact(dir.path(), 22);
}

#[test]
fn what_waits_while_nothing_can_be_written_is_bounded_and_then_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), Options { backlog_bytes: 2000, ..options() }).unwrap();
    log.segment.fault = Some(Fault::Full { written_bytes: 0 });
    let taken = (0..100).take_while(|_| log.append(&draft("waits")).is_ok()).count() as u64;
    assert!((3..20).contains(&taken), "{taken}");
    assert!(matches!(log.append(&draft("no room")), Err(LogError::Backlog { .. })));
    log.segment.fault = None;
    log.commit().unwrap();
    log.append(&draft("there is room")).unwrap();
    log.close().unwrap();
    check_intact(dir.path(), taken + 2);
}

/// A failed flush may have lost what it was to flush: the file here was cut back to what was durable before.
#[test]
fn after_a_failed_flush_the_segment_is_written_anew_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    log.append(&draft("durable")).unwrap();
    log.commit().unwrap();
    log.append(&draft("lost by the disk")).unwrap();
    log.segment.fault = Some(Fault::FlushFails);
    let error = log.commit().unwrap_err();
    assert!(matches!(&error, LogError::Io { doing: "write", .. }), "{error}");
    log.append(&draft("while it is broken")).unwrap();
    log.segment.fault = None;
    log.commit().unwrap();
    check_intact(dir.path(), 4);
    log.append(&draft("after it")).unwrap();
    log.close().unwrap();
    check_intact(dir.path(), 5);
}
