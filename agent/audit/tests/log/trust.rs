//! Whom a verifier believes: logs signed with other keys, and checkpoints kept elsewhere.

use expect_test::expect;
use plumbline_audit::checkpoint::{Checkpoint, SignedCheckpoint};
use plumbline_audit::frame::Kind;
use plumbline_audit::merkle::{Frontier, leaf_hash};
use plumbline_audit::{Log, SigningKey};

use crate::support::*;
use crate::tampering::{check, copy_file, finding, segment};

/// Everything an attacker can make alone: a consistent log with the same records, signed with another key.
fn forged_log(name: &str) -> tempfile::TempDir {
    let dir = scratch();
    let forger = SigningKey::from_seed(name, &[2; 32]).unwrap();
    let options = plumbline_audit::Options { key: forger, ..options() };
    let (mut log, _) = Log::open(dir.path(), options).unwrap();
    append(&mut log, 1..8);
    log.close().unwrap();
    dir
}

#[test]
fn a_log_signed_with_another_key_is_untrusted_and_not_intact() {
    expect![[r#"3 segment-00000000000000000000.plog, offset 8, record seq 0: expected a segment signed by a trusted key, found key "node-17.example.com/plumbline+183ced09+AYE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU""#]].assert_eq(&finding(forged_log(ORIGIN).path()));
    expect![[r#"3 segment-00000000000000000000.plog, offset 8, record seq 0: expected a segment signed by a trusted key, found key "node-18.example.com/plumbline+69060eec+AYE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU""#]].assert_eq(&finding(forged_log("node-18.example.com/plumbline").path()));
}

#[test]
fn a_segment_signed_with_another_key_among_good_ones_is_untrusted() {
    let forged = forged_log(ORIGIN);
    check(
        |dir| copy_file(&segment(forged.path(), 2), &segment(dir, 2)),
        expect![[
            r#"3 segment-00000000000000000006.plog, offset 8, record seq 6: expected a segment signed by a trusted key, found key "node-17.example.com/plumbline+183ced09+AYE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU""#
        ]],
    );
}

#[test]
fn a_checkpoint_signed_with_another_key_under_a_good_header_is_found() {
    let forger = SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap();
    let resign = |all: &mut Vec<(Kind, Vec<u8>)>| {
        let good = Checkpoint::open(&all.last().unwrap().1, &[vkey()]).unwrap();
        all.last_mut().unwrap().1 = good.sign(&[&forger, &epoch_key(0)]).note.into_bytes();
    };
    check(
        |dir| edit_frames(&segment(dir, 0), resign),
        expect![
            "1 segment-00000000000000000000.plog, offset 2057, record seq 3: expected a checkpoint signed by the segment's key: the note has no signature by a key that is trusted here"
        ],
    );
}

/// Two trusted keys are keys of two logs: one cannot sign the other's.
#[test]
fn a_trusted_key_of_another_log_cannot_sign_this_one() {
    let other = SigningKey::from_seed("node-18.example.com/plumbline", &[2; 32]).unwrap();
    let forged = scratch();
    let (mut log, _) = Log::open(forged.path(), plumbline_audit::Options { key: other.clone(), ..options() }).unwrap();
    append(&mut log, 1..8);
    log.close().unwrap();
    let rename = |all: &mut Vec<(Kind, Vec<u8>)>| {
        let text = String::from_utf8(all[0].1.clone()).unwrap();
        all[0].1 = text.replacen("origin node-18", "origin node-17", 1).into_bytes();
    };
    edit_frames(&segment(forged.path(), 0), rename);
    let report = verified_with(forged.path(), &[vkey(), other.verifier().clone()], None);
    expect![[r#"TAMPERED at segment-00000000000000000000.plog, offset 8, record seq 0: expected the key of the log "node-17.example.com/plumbline" to have its name, found "node-18.example.com/plumbline""#]].assert_eq(report.to_string().lines().next().unwrap());
}

#[test]
fn a_rollback_to_an_older_state_is_found_only_by_a_checkpoint_kept_elsewhere() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    append(&mut log, 0..4);
    log.checkpoint().unwrap();
    let older = copy_dir(dir.path());
    append(&mut log, 4..7);
    let kept_elsewhere = log.close().unwrap();

    assert_eq!(verified(older.path()).exit_code(), 0);
    let report = verified_with(older.path(), &[vkey()], Some(kept_elsewhere.clone()));
    expect![[r#"
        TAMPERED at segment-00000000000000000005.plog, offset 857, record seq 5: expected at least the 8 records that the expected checkpoint signs, found 5: the log was cut or rolled back
          verified    5 records, 6 checkpoints, 3 segments before this place
          log         node-17.example.com/plumbline
          key         node-17.example.com/plumbline+05bbd3d2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c
          signed      the first 5 records, root UDyVzOR+bbJLfau3FG2deQP1qJmeT0L0Ye/nlvqxHrc=
          epochs      1 epoch key, 1 of them vouched for by the node's key alone
    "#]].assert_eq(&report.to_string());
    assert_eq!(verified_with(dir.path(), &[vkey()], Some(kept_elsewhere)).exit_code(), 0);
}

#[test]
fn two_histories_signed_with_the_same_key_are_found_by_a_checkpoint_kept_elsewhere() {
    let dir = closed_log();
    let leaves: Frontier = (0..5u8).map(|n| leaf_hash(&[n])).collect();
    let other: SignedCheckpoint = Checkpoint::of(ORIGIN, &leaves).sign(&[&key()]);
    let report = verified_with(dir.path(), &[vkey()], Some(other));
    expect![[r#"
        TAMPERED at segment-00000000000000000003.plog, offset 1205, record seq 4: the expected checkpoint signs root uFW0LWww9bCH4FJmeD+9bjlPe5JgE8yqZ3AKiwxaWW8= over 5 records, but they have root 5pfR6FG96AsRyZ+Spz4jjytk2CRuJ2LbF5fHYmR0Mq4=: these are two histories, or a record was changed
          verified    4 records, 4 checkpoints, 2 segments before this place
          log         node-17.example.com/plumbline
          key         node-17.example.com/plumbline+05bbd3d2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c
          signed      the first 3 records, root bXbtaosPMSI+G/3kc/SFcGBOutEfUc8lOJY1/Fii+AU=
          epochs      1 epoch key, 1 of them vouched for by the node's key alone
    "#]].assert_eq(&report.to_string());
}
