//! What a crash leaves behind is recovered exactly, and what no crash leaves behind is not repaired.

use std::fs;
use std::path::Path;

use expect_test::expect;
use plumbline_audit::record::Envelope;
use plumbline_audit::{Log, Recovery, Statement, Verdict};

use crate::support::*;

/// A log that its writer dropped after a checkpoint over three records and two records more.
fn crashed_log() -> tempfile::TempDir {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), wide_options()).unwrap();
    append(&mut log, 1..3);
    log.checkpoint().unwrap();
    append(&mut log, 3..5);
    dir
}

/// The recovery without the last record's bytes.
fn reopened(dir: &Path) -> (Log, Recovery) {
    let (log, recovery) = Log::open(dir, wide_options()).unwrap();
    (log, Recovery { last_record: None, ..recovery })
}

fn recovery(last_seq: Option<u64>, clean_stop: bool, signed: u64, dropped_bytes: u64) -> Recovery {
    Recovery { created: false, last_seq, clean_stop, signed, dropped_bytes, last_record: None }
}

/// The statements of the log, by kind.
fn statements(dir: &Path) -> Vec<&'static str> {
    let entries = plumbline_audit::Reader::from_seq(dir, 0).unwrap().map(Result::unwrap);
    entries.filter_map(|entry| Envelope::parse(&entry.bytes).unwrap().statement().map(Statement::kind)).collect()
}

#[test]
fn a_log_closed_in_order_goes_on_with_a_new_epoch() {
    let dir = closed_log();
    let (mut log, found) = reopened(dir.path());
    assert_eq!(found, recovery(Some(7), true, 8, 0));
    append(&mut log, 7..9);
    log.close().unwrap();
    let report = verified(dir.path());
    assert_eq!((report.exit_code(), report.records, report.epochs, report.epochs_by_node), (0, 11, 2, 2));
    assert_eq!(statements(dir.path()), ["epoch", "epoch"]);
}

#[test]
fn a_log_whose_writer_was_killed_goes_on_and_says_so_in_a_record() {
    let dir = crashed_log();
    let (log, found) = reopened(dir.path());
    assert_eq!(found, recovery(Some(4), false, 3, 0));
    log.close().unwrap();
    assert_eq!(statements(dir.path()), ["epoch", "recovered", "epoch"]);
    let report = verified(dir.path());
    assert_eq!((report.exit_code(), report.records, report.declared_gaps), (2, 7, 1), "{report}");
}

#[test]
fn recovery_gives_the_last_record_so_that_the_downtime_can_be_told() {
    let dir = closed_log();
    let (_, found) = Log::open(dir.path(), options()).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&found.last_record.unwrap()).unwrap();
    assert_eq!(record["message"], "event 7");
}

#[test]
fn a_log_with_nothing_in_it_goes_on_too() {
    let dir = scratch();
    let (log, found) = reopened(dir.path());
    assert_eq!(found, Recovery { created: true, ..recovery(None, true, 0, 0) });
    drop(log);
    let (_, found) = reopened(dir.path());
    assert_eq!(found, recovery(Some(0), false, 1, 0));
    assert_eq!(verified(dir.path()).exit_code(), 2);
}

#[test]
fn a_cut_at_every_byte_of_the_last_frame_drops_that_frame_and_nothing_else() {
    let crashed = crashed_log();
    let path = &segments(crashed.path())[0];
    let whole = fs::read(path).unwrap();
    let last_frame_bytes = 12 + frames(path).last().unwrap().1.len();
    let before = whole.len() - last_frame_bytes;
    for len in before..whole.len() {
        let dir = copy_dir(crashed.path());
        fs::write(&segments(dir.path())[0], &whole[..len]).unwrap();
        let dropped_bytes = (len - before) as u64;

        let torn = verified(dir.path());
        assert_eq!((torn.exit_code(), torn.records, torn.torn_bytes), (0, 4, dropped_bytes), "cut to {len}");
        let (mut log, found) = reopened(dir.path());
        assert_eq!(found, recovery(Some(3), false, 3, dropped_bytes));
        if len % 8 == 0 {
            append(&mut log, 3..5);
            log.close().unwrap();
            let report = verified(dir.path());
            assert_eq!((report.exit_code(), report.records, report.torn_bytes), (2, 8, 0), "cut to {len}");
        }
    }
}

#[test]
fn a_last_frame_with_a_wrong_crc_or_a_tail_of_zeros_is_dropped_as_torn() {
    let crashed = crashed_log();
    let mut bytes = fs::read(&segments(crashed.path())[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&segments(crashed.path())[0], &bytes).unwrap();
    let (_, found) = reopened(crashed.path());
    assert_eq!((found.last_seq, found.dropped_bytes > 100), (Some(3), true));

    let crashed = crashed_log();
    let bytes = [fs::read(&segments(crashed.path())[0]).unwrap(), vec![0; 4096]].concat();
    fs::write(&segments(crashed.path())[0], &bytes).unwrap();
    assert_eq!((verified(crashed.path()).exit_code(), verified(crashed.path()).torn_bytes), (0, 4096));
    let (_, found) = reopened(crashed.path());
    assert_eq!((found.last_seq, found.dropped_bytes), (Some(4), 4096));
}

/// A power failure keeps any sectors of the last commit: here the first of its frames whole, then a hole, then more.
#[test]
fn any_part_of_the_last_commit_may_be_missing_after_a_power_failure() {
    let crashed = crashed_log();
    let path = &segments(crashed.path())[0];
    let whole = fs::read(path).unwrap();
    let all = frames(path);
    let last_frame_bytes = |n: usize| all.iter().rev().take(n).map(|(_, payload)| 12 + payload.len()).sum::<usize>();
    let (second, last) = (whole.len() - last_frame_bytes(2), whole.len() - last_frame_bytes(1));
    let shapes: [(&str, std::ops::Range<usize>, u8, u64); 5] = [
        ("a hole in the last frame but one", second + 20..second + 90, 0, 3),
        ("a hole over its beginning", second..second + 16, 0, 3),
        ("old bytes in its length", second..second + 4, 0xff, 3),
        ("a hole in the last frame", last + 20..last + 60, 0, 4),
        ("half of the last frame, and zeros", last + 100..whole.len(), 0, 4),
    ];
    for (what, hole, byte, records) in shapes {
        let dir = copy_dir(crashed.path());
        let mut bytes = whole.clone();
        bytes[hole].fill(byte);
        fs::write(&segments(dir.path())[0], &bytes).unwrap();
        let torn = verified(dir.path());
        assert_eq!((torn.exit_code(), torn.records), (0, records), "{what}: {torn}");
        assert!(crate::tampering::finding(dir.path()).starts_with("0 intact"), "{what}");
        let (log, found) = reopened(dir.path());
        assert_eq!((found.last_seq, found.clean_stop), (Some(records - 1), false), "{what}");
        assert!(found.dropped_bytes > 0, "{what}");
        log.close().unwrap();
        let report = verified(dir.path());
        assert_eq!((report.exit_code(), report.torn_bytes), (2, 0), "{what}: {report}");
    }
}

/// A writer that is killed while it opens the log leaves an opening that never came into force.
#[test]
fn a_crash_at_any_byte_of_an_opening_is_recovered_and_the_epochs_number_is_used_again() {
    let crashed = crashed_log();
    let path = &segments(crashed.path())[0];
    let (before, published) = (fs::read(path).unwrap(), fs::read(crashed.path().join("checkpoint")).unwrap());
    drop(reopened(crashed.path()));
    let after = fs::read(path).unwrap();
    let checkpoint_bytes = 12 + frames(path).last().unwrap().1.len();
    for len in (before.len()..after.len()).step_by(5) {
        let dir = copy_dir(crashed.path());
        fs::write(&segments(dir.path())[0], &after[..len]).unwrap();
        fs::write(dir.path().join("checkpoint"), &published).unwrap();
        let torn = verified(dir.path());
        assert!(matches!(torn.exit_code(), 0 | 2), "cut to {len}: {torn}");
        let (log, found) = reopened(dir.path());
        assert!(!found.clean_stop && log.epoch() == 1, "cut to {len}");
        log.close().unwrap();
        let report = verified(dir.path());
        assert_eq!(report.exit_code(), 2, "cut to {len}: {report}");
    }
    assert!(after.len() - before.len() > checkpoint_bytes);
}

/// A crash cuts the last frame; it changes no frame before it, and takes back nothing that was published.
#[test]
fn damage_that_no_crash_makes_is_refused_with_its_place() {
    let refused = |dir: &Path| {
        let error = Log::open(dir, wide_options()).unwrap_err();
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let text = format!("{error}{}", source.unwrap_or_default());
        text.replace(dir.to_str().unwrap(), "DIR")
    };
    // A bit in the middle.
    let dir = crashed_log();
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[700] ^= 1;
    fs::write(path, bytes).unwrap();
    expect!["the log is damaged at DIR/segment-00000000000000000000.plog, offset 532: expected the bytes of this frame to have CRC 50a5458a, found 0a496348"].assert_eq(&refused(dir.path()));

    // A cut below the published checkpoint.
    let dir = crashed_log();
    let path = &segments(dir.path())[0];
    edit_frames(path, |all| all.truncate(5));
    expect!["the log is damaged at DIR/segment-00000000000000000000.plog, offset 1709: expected at least the 3 records that the file `checkpoint` signs, found 2: the log was cut or rolled back"].assert_eq(&refused(dir.path()));

    // All segments gone.
    let dir = crashed_log();
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    expect!["the log is damaged at DIR/checkpoint, offset 0: expected at least the 3 records that the file `checkpoint` signs, found 0: the log was cut or rolled back"].assert_eq(&refused(dir.path()));

    // The checkpoint gone.
    let dir = crashed_log();
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    expect!["the log is damaged at DIR/checkpoint, offset 0: expected the file `checkpoint`, which is written before the first record, but it is missing"].assert_eq(&refused(dir.path()));

    // Another key.
    let dir = crashed_log();
    let other = plumbline_audit::SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap();
    let error = Log::open(dir.path(), plumbline_audit::Options::new(other)).unwrap_err().to_string();
    assert!(error.starts_with("the log was written with key node-17.example.com/plumbline+"), "{error}");
}

#[test]
fn a_crash_between_a_checkpoint_and_its_publication_is_made_good() {
    let dir = crashed_log();
    let older = fs::read(dir.path().join("checkpoint")).unwrap();
    drop(reopened(dir.path()));
    let newer = fs::read(dir.path().join("checkpoint")).unwrap();
    assert_ne!(older, newer);

    fs::write(dir.path().join("checkpoint"), &older).unwrap();
    fs::write(dir.path().join("checkpoint.tmp"), b"half a note").unwrap();
    assert_eq!(verified(dir.path()).exit_code(), 2);
    drop(reopened(dir.path()));
    assert_eq!(verified(dir.path()).exit_code(), 2);
    assert!(!dir.path().join("checkpoint.tmp").exists());
}

#[test]
fn a_crash_while_the_log_was_being_created_is_made_good() {
    let dir = scratch();
    drop(reopened(dir.path()));
    // The file as it was before the first record, and no checkpoint published yet.
    edit_frames(&segments(dir.path())[0], |all| all.truncate(2));
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    assert_eq!(verified(dir.path()).verdict, Verdict::Intact);
    let (_, found) = reopened(dir.path());
    assert_eq!(found.last_seq, None);
    assert!(dir.path().join("checkpoint").exists());
    assert_eq!(verified(dir.path()).exit_code(), 2);
}

#[test]
fn hashes_of_the_tree_that_are_gone_or_wrong_at_their_end_are_made_anew() {
    let dir = closed_log();
    let level = dir.path().join("tree/level-0");
    let good = fs::read(&level).unwrap();
    fs::remove_dir_all(dir.path().join("tree")).unwrap();
    drop(reopened(dir.path()));
    assert_eq!(fs::read(&level).unwrap()[..good.len()], good);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&level, bad).unwrap();
    drop(reopened(dir.path()));
    assert_eq!(fs::read(&level).unwrap()[..good.len()], good);
}
