//! What a crash leaves behind is recovered exactly, and what no crash leaves behind is not repaired.

use std::fs;

use expect_test::expect;
use plumbline_audit::{Log, Recovery, Verdict};

use crate::support::*;

/// A log that its writer dropped after a checkpoint over two records and two records more.
fn crashed_log() -> tempfile::TempDir {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), plumbline_audit::Options::new(key())).unwrap();
    append(&mut log, 0..2);
    log.checkpoint().unwrap();
    append(&mut log, 2..4);
    dir
}

#[test]
fn a_log_closed_in_order_goes_on_as_if_nothing_had_been() {
    let dir = closed_log();
    let (mut log, recovery) = Log::open(dir.path(), options()).unwrap();
    assert_eq!(recovery, Recovery { created: false, last_seq: Some(6), clean_stop: true, dropped_bytes: 0 });
    append(&mut log, 7..9);
    log.close().unwrap();
    assert_eq!(verified(dir.path()).records, 9);
}

#[test]
fn a_log_whose_writer_was_killed_goes_on_and_says_that_the_stop_was_not_clean() {
    let dir = crashed_log();
    let (_, recovery) = Log::open(dir.path(), options()).unwrap();
    assert_eq!(recovery, Recovery { created: false, last_seq: Some(3), clean_stop: false, dropped_bytes: 0 });
}

#[test]
fn a_log_with_nothing_in_it_goes_on_too() {
    let dir = scratch();
    let (log, recovery) = Log::open(dir.path(), options()).unwrap();
    assert_eq!(recovery, Recovery { created: true, last_seq: None, clean_stop: true, dropped_bytes: 0 });
    drop(log);
    let (_, recovery) = Log::open(dir.path(), options()).unwrap();
    assert_eq!(recovery, Recovery { created: false, last_seq: None, clean_stop: false, dropped_bytes: 0 });
    assert_eq!(verified(dir.path()).exit_code(), 0);
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
        assert_eq!((torn.exit_code(), torn.records, torn.torn_bytes), (0, 3, dropped_bytes), "cut to {len}");
        let (mut log, recovery) = Log::open(dir.path(), options()).unwrap();
        assert_eq!(recovery, Recovery { created: false, last_seq: Some(2), clean_stop: false, dropped_bytes });
        if len % 8 == 0 {
            append(&mut log, 3..5);
            log.close().unwrap();
            let report = verified(dir.path());
            assert_eq!((report.exit_code(), report.records, report.torn_bytes), (0, 5, 0), "cut to {len}");
        }
    }
}

#[test]
fn a_last_frame_with_a_wrong_crc_or_a_tail_of_zeros_is_dropped_as_torn() {
    let crashed = crashed_log();
    let mut bytes = fs::read(&segments(crashed.path())[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&segments(crashed.path())[0], &bytes).unwrap();
    let (_, recovery) = Log::open(crashed.path(), options()).unwrap();
    assert_eq!((recovery.last_seq, recovery.dropped_bytes > 100), (Some(2), true));

    let crashed = crashed_log();
    let bytes = [fs::read(&segments(crashed.path())[0]).unwrap(), vec![0; 4096]].concat();
    fs::write(&segments(crashed.path())[0], &bytes).unwrap();
    assert_eq!((verified(crashed.path()).exit_code(), verified(crashed.path()).torn_bytes), (0, 4096));
    let (_, recovery) = Log::open(crashed.path(), options()).unwrap();
    assert_eq!((recovery.last_seq, recovery.dropped_bytes), (Some(3), 4096));
}

/// A crash cuts the last frame; it changes no frame before it, and takes back nothing that was published.
#[test]
fn damage_that_no_crash_makes_is_refused_with_its_place() {
    let refused = |dir: &std::path::Path| {
        let error = Log::open(dir, options()).unwrap_err();
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
    expect!["the log is damaged at DIR/segment-00000000000000000000.plog, offset 521: expected the bytes of this frame to have CRC 70cbca60, found ec8ad011"].assert_eq(&refused(dir.path()));

    // A cut below the published checkpoint.
    let dir = crashed_log();
    let path = &segments(dir.path())[0];
    edit_frames(path, |all| all.truncate(3));
    expect!["the log is damaged at DIR/segment-00000000000000000000.plog, offset 869: expected at least the 2 records that the file `checkpoint` signs, found 1: the log was cut or rolled back"].assert_eq(&refused(dir.path()));

    // All segments gone.
    let dir = crashed_log();
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    expect!["the log is damaged at DIR/checkpoint, offset 0: expected at least the 2 records that the file `checkpoint` signs, found 0: the log was cut or rolled back"].assert_eq(&refused(dir.path()));

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
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    log.checkpoint().unwrap();
    drop(log);
    let newer = fs::read(dir.path().join("checkpoint")).unwrap();
    assert_ne!(older, newer);

    fs::write(dir.path().join("checkpoint"), &older).unwrap();
    fs::write(dir.path().join("checkpoint.tmp"), b"half a note").unwrap();
    assert_eq!(verified(dir.path()).exit_code(), 0);
    drop(Log::open(dir.path(), options()).unwrap());
    assert_eq!(fs::read(dir.path().join("checkpoint")).unwrap(), newer);
    assert!(!dir.path().join("checkpoint.tmp").exists());
}

#[test]
fn a_crash_while_the_log_was_being_created_is_made_good() {
    let dir = scratch();
    drop(Log::open(dir.path(), options()).unwrap());
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    assert_eq!(verified(dir.path()).verdict, Verdict::Intact);
    let (_, recovery) = Log::open(dir.path(), options()).unwrap();
    assert_eq!(recovery.last_seq, None);
    assert!(dir.path().join("checkpoint").exists());
}
