//! Pruning removes bytes and no proof, says so before it does, and hides nothing else.

use std::fs;
use std::path::Path;

use expect_test::expect;
use plumbline_audit::frame::Kind;
use plumbline_audit::merkle::leaf_hash;
use plumbline_audit::{Log, Reader};

use crate::support::*;
use crate::tampering::{finding, segment};

/// Ten events in segments of three records, those before record 7 pruned as far as segments allow.
fn pruned_log() -> tempfile::TempDir {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    append(&mut log, 1..11);
    let pruned = log.prune(7, "older than 183 days").unwrap().unwrap();
    assert_eq!(pruned, 0..6);
    log.close().unwrap();
    dir
}

#[test]
fn a_pruned_log_verifies_and_says_what_is_gone() {
    let dir = pruned_log();
    expect![[r#"
        0 intact: 13 records, 11 checkpoints, 5 segments
          log         node-17.example.com/plumbline
          key         node-17.example.com/plumbline+05bbd3d2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c
          signed      the first 13 records, root EWEh95a3TiASu52tHN746dSBhPF9GI/QT6ZdpBAr5ms=
          epochs      1 epoch key, 1 of them vouched for by the node's key alone
          pruned      the bytes of 5 records, as the log declares; their hashes are proved
    "#]]
    .assert_eq(&finding(dir.path()));
    // The record that opened the epoch stays, and so does every record from 6 on.
    let seqs: Vec<u64> = Reader::from_seq(dir.path(), 0).unwrap().map(|entry| entry.unwrap().seq).collect();
    assert_eq!(seqs, [0, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn the_same_records_are_not_pruned_twice_and_the_log_goes_on() {
    let dir = pruned_log();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    assert_eq!(log.prune(7, "again").unwrap(), None);
    append(&mut log, 20..24);
    assert!(log.prune(9, "later").unwrap().is_some());
    log.close().unwrap();
    assert_eq!(verified(dir.path()).exit_code(), 0);
}

#[test]
fn a_crash_between_the_record_and_the_pruning_leaves_a_log_that_verifies() {
    let (dir, whole) = (pruned_log(), scratch());
    let (mut log, _) = Log::open(whole.path(), options()).unwrap();
    append(&mut log, 1..11);
    log.close().unwrap();
    fs::copy(segment(whole.path(), 1), segment(dir.path(), 1)).unwrap();
    assert_eq!(verified(dir.path()).exit_code(), 0);
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    assert_eq!(log.prune(7, "once more").unwrap(), Some(3..6));
}

/// Takes the bytes of a record away, as pruning does, without a record that says so.
fn prune_in_secret(path: &Path, n: usize) {
    edit_frames(path, |all| {
        let at = record(all, n);
        all[at] = (Kind::Pruned, leaf_hash(&all[at].1).as_bytes().to_vec());
    });
}

#[test]
fn bytes_that_are_gone_without_a_record_that_says_so_are_found() {
    let dir = closed_log();
    prune_in_secret(&segment(dir.path(), 1), 1);
    expect!["1 segment-00000000000000000003.plog, offset 1205, record seq 4: records 4 to 4 were removed, and no record declares it"].assert_eq(&finding(dir.path()));
    // Nor does the record of another pruning cover them.
    let dir = pruned_log();
    prune_in_secret(&segment(dir.path(), 2), 1);
    expect!["1 segment-00000000000000000006.plog, offset 1205, record seq 7: records 7 to 7 were removed, and no record declares it"].assert_eq(&finding(dir.path()));
}

#[test]
fn a_pruned_hash_that_was_changed_is_found_by_the_checkpoint() {
    let dir = pruned_log();
    edit_frames(&segment(dir.path(), 1), |all| {
        let pruned = all.iter_mut().find(|(kind, _)| *kind == Kind::Pruned).unwrap();
        pruned.1[40] ^= 1;
    });
    expect!["1 segment-00000000000000000003.plog, offset 965, record seq 6: the checkpoint signs root EzNGPpgMpYOtxvXE/GAhs8EALfIb+y5eYuclZuithAI= over 6 records, but they have root buEEOSKldhgkvMp2o0jApYayGVdyXqzuZoxANtVLp1c=: one was changed"].assert_eq(&finding(dir.path()));
    let dir = pruned_log();
    edit_frames(&segment(dir.path(), 1), |all| {
        let pruned = all.iter_mut().find(|(kind, _)| *kind == Kind::Pruned).unwrap();
        pruned.1.truncate(95);
    });
    expect!["1 segment-00000000000000000003.plog, offset 857, record seq 3: expected whole leaf hashes of 32 bytes, found 95 bytes"].assert_eq(&finding(dir.path()));
}

/// What the log says of itself outlives pruning, and nobody can take it for pruned.
#[test]
fn a_record_that_outlives_pruning_cannot_be_taken_away_with_the_others() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    append(&mut log, 1..3);
    let mut loss = event("12 events were lost");
    loss.insert("class_uid".into(), 1008.into());
    loss.insert("unmapped".into(), serde_json::json!({"plumbline": {"kind": "loss"}}));
    log.append(&plumbline_audit::Draft::new(loss).unwrap()).unwrap();
    append(&mut log, 4..11);
    log.prune(7, "older than 183 days").unwrap().unwrap();
    log.close().unwrap();
    assert_eq!(verified(dir.path()).exit_code(), 2);
    prune_in_secret(&segment(dir.path(), 1), 0);
    expect!["1 segment-00000000000000000003.plog, offset 8, record seq 3: expected the 1 records of the log's own life among records 3 to 5 that outlive pruning, found 0 or others"].assert_eq(&finding(dir.path()));
}

/// Prunings are stated together and signed together: whoever dies between two of them leaves more records without a
/// checkpoint than the epoch allows to events.
#[test]
fn a_crash_between_the_statements_of_a_pruning_raises_no_alarm() {
    let dir = scratch();
    let options = || plumbline_audit::Options { checkpoint_every_records: 3, ..options() };
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    append(&mut log, 1..12);
    let whole = copy_dir(dir.path());
    let last = segments(dir.path()).len() - 1;
    let before = frames(&segment(dir.path(), last)).len();
    log.prune(12, "older than 183 days").unwrap().unwrap();
    drop(log);
    let all = frames(&segment(dir.path(), last));
    assert!(all.len() > before + 3, "several statements");
    for cut in before..=all.len() {
        // Nothing is pruned yet, and the statements are there as far as they were written.
        let crashed = copy_dir(whole.path());
        write_frames(&segment(crashed.path(), last), &all[..cut]);
        assert!(finding(crashed.path()).starts_with("0 intact"), "cut to {cut} frames: {}", finding(crashed.path()));
        drop(Log::open(crashed.path(), options()).unwrap());
        assert_eq!(verified(crashed.path()).exit_code(), 2, "cut to {cut} frames");
    }
}
