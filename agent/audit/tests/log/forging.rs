//! Forgers who hold keys: the node's, an epoch's, or both. What each can do unseen, and what not.

use std::fs;

use expect_test::{Expect, expect};
use plumbline_audit::SigningKey;
use plumbline_audit::checkpoint::Checkpoint;
use plumbline_audit::frame::Kind;
use plumbline_audit::merkle::{Frontier, Hash, leaf_hash};
use plumbline_audit::segment::Header;
use plumbline_audit::verify::{self, verify};
use plumbline_audit::{Log, Options};
use serde_json::{Value, json};

use crate::support::*;
use crate::tampering::finding;

/// Writes any frames as a log of one segment, with right CRCs, hashes and sequence numbers.
struct Forger {
    frames: Vec<(Kind, Vec<u8>)>,
    tree: Frontier,
    prev: Hash,
}

impl Forger {
    /// A log before its first record.
    fn new() -> Self {
        let tree = Frontier::new();
        let header =
            Header { origin: ORIGIN.to_owned(), key: vkey(), epoch: None, prev: Hash::ZERO, tree: tree.clone() };
        let frames = vec![(Kind::Header, header.to_text().into_bytes())];
        Forger { frames, tree, prev: Hash::ZERO }.checkpoint(&[&key()])
    }

    fn sealed(mut self, class_uid: u64, own: Value) -> Self {
        let Value::Object(mut own) = own else { panic!("an object") };
        own.insert("prev".to_owned(), self.prev.to_string().into());
        let seq = self.tree.size();
        let metadata = json!({"sequence": seq, "log_name": ORIGIN, "uid": format!("{ORIGIN}/{seq}")});
        let record = json!({"class_uid": class_uid, "metadata": metadata, "unmapped": {"plumbline": own}});
        let bytes = record.to_string().into_bytes();
        self.prev = leaf_hash(&bytes);
        self.tree.push(self.prev);
        self.frames.push((Kind::Record, bytes));
        self
    }

    fn record(self, text: &str) -> Self {
        self.sealed(1001, json!({ "text": text }))
    }

    fn records(self, count: usize) -> Self {
        (0..count).fold(self, |forger, number| forger.record(&format!("event {number}")))
    }

    fn opening(self, number: u64, opened_by: &str, key: &SigningKey) -> Self {
        let epoch =
            json!({"number": number, "key": key.verifier().to_string(), "opened_by": opened_by, "max_unsigned": 3});
        self.sealed(1008, json!({"statement": {"epoch": epoch}}))
    }

    fn recovered(self) -> Self {
        let recovered = json!({"last_seq": null, "signed": 0, "dropped_bytes": 0});
        self.sealed(1008, json!({"statement": {"recovered": recovered}}))
    }

    fn note(&self, keys: &[&SigningKey]) -> Vec<u8> {
        Checkpoint::of(ORIGIN, &self.tree).sign(keys).note.into_bytes()
    }

    fn checkpoint(mut self, keys: &[&SigningKey]) -> Self {
        self.frames.push((Kind::Checkpoint, self.note(keys)));
        self
    }

    fn closing(mut self, keys: &[&SigningKey]) -> Self {
        self.frames.push((Kind::ClosingCheckpoint, self.note(keys)));
        self
    }

    /// Publishes the last checkpoint and verifies.
    #[expect(clippy::needless_pass_by_value, reason = "an expectation is written in place")]
    fn check(self, expect: Expect) -> tempfile::TempDir {
        let dir = scratch();
        write_frames(&dir.path().join("segment-00000000000000000000.plog"), &self.frames);
        let is_checkpoint = |kind: &Kind| matches!(kind, Kind::Checkpoint | Kind::ClosingCheckpoint);
        let published = self.frames.iter().rfind(|(kind, _)| is_checkpoint(kind)).unwrap();
        fs::write(dir.path().join("checkpoint"), &published.1).unwrap();
        expect.assert_eq(finding(dir.path()).lines().next().unwrap());
        dir
    }
}

/// Epoch 0 with two records under its checkpoint, and epoch 1 put into force by it.
fn two_epochs() -> Forger {
    let (node, e0, e1) = (key(), epoch_key(0), epoch_key(1));
    let first = Forger::new().opening(0, "node", &e0).checkpoint(&[&node, &e0]);
    let second = first.records(2).checkpoint(&[&node, &e0]).opening(1, "epoch", &e1).checkpoint(&[&node, &e0]);
    second.record("later").closing(&[&node, &e1])
}

/// The same, signed by someone who has no key of epoch 0 any more.
fn resealed(with: &SigningKey) -> Forger {
    let (node, e0, e1) = (key(), epoch_key(0), epoch_key(1));
    let first = Forger::new().opening(0, "node", &e0).checkpoint(&[&node, &e0]);
    let second = first.record("changed").record("changed").checkpoint(&[&node, with]);
    second.opening(1, "epoch", &e1).checkpoint(&[&node, with]).record("later").closing(&[&node, &e1])
}

#[test]
fn the_forger_of_these_tests_writes_logs_that_verify() {
    let dir = two_epochs().check(expect!["0 intact: 5 records, 5 checkpoints, 1 segment"]);
    let (log, found) = Log::open(dir.path(), wide_options()).unwrap();
    assert_eq!((log.epoch(), found.clean_stop), (2, true));
}

#[test]
fn records_of_an_epoch_that_is_over_cannot_be_sealed_again_with_the_keys_of_today() {
    let expect = || {
        expect![
            "1 segment-00000000000000000000.plog, offset 1799, record seq 3: expected a checkpoint signed by the key of its epoch, node-17.example.com/plumbline/e0+9e412905+ASvCgAszFuAJIJ/9dX2rGczwroS8eukGVOHoFxLScPZT, too"
        ]
    };
    // The node's key and that of the present epoch, or a new key under the old epoch's name.
    resealed(&epoch_key(1)).check(expect());
    let own = SigningKey::from_seed(epoch_key(0).verifier().name(), &[77; 32]).unwrap();
    resealed(&own).check(expect());
    // The node's key alone, which is all that a stock verifier of checkpoints asks for.
    resealed(&key()).check(expect());
}

#[test]
fn epochs_follow_each_other_without_a_gap_and_each_is_vouched_for_by_the_one_before() {
    let (node, e0, e1, e2) = (key(), epoch_key(0), epoch_key(1), epoch_key(2));
    let begun = || Forger::new().opening(0, "node", &e0).checkpoint(&[&node, &e0]).record("a");
    begun().opening(2, "epoch", &e2).checkpoint(&[&node, &e0]).check(expect![
        "1 segment-00000000000000000000.plog, offset 1536, record seq 2: expected epoch 1 to be the next, found epoch 2"
    ]);
    // Opened by the node's key in the middle, as if there had been a stop.
    begun().opening(1, "node", &e1).checkpoint(&[&node, &e1]).check(expect!["1 segment-00000000000000000000.plog, offset 1536, record seq 2: expected a new epoch's key to be vouched for by the epoch before: the node's key does so only after a stop"]);
    // Put into force by itself.
    begun().opening(1, "epoch", &e1).checkpoint(&[&node, &e1]).check(expect!["1 segment-00000000000000000000.plog, offset 1943, record seq 3: expected a checkpoint signed by the key of its epoch, node-17.example.com/plumbline/e0+9e412905+ASvCgAszFuAJIJ/9dX2rGczwroS8eukGVOHoFxLScPZT, too"]);
    // Never put into force.
    begun().opening(1, "epoch", &e1).record("b").checkpoint(&[&node, &e1]).check(expect!["1 segment-00000000000000000000.plog, offset 1943, record seq 3: expected a checkpoint right after the record that opens an epoch"]);
    // Another epoch's key, by its name.
    begun().opening(1, "epoch", &e2).checkpoint(&[&node, &e0]).check(expect![[r#"1 segment-00000000000000000000.plog, offset 1536, record seq 2: expected the key of epoch 1 to be named "node-17.example.com/plumbline/e1", found "node-17.example.com/plumbline/e2""#]]);
    // The key of the epoch before goes on signing.
    begun().opening(1, "epoch", &e1).checkpoint(&[&node, &e0]).record("b").closing(&[&node, &e0]).check(expect!["1 segment-00000000000000000000.plog, offset 2541, record seq 4: expected a checkpoint signed by the key of its epoch, node-17.example.com/plumbline/e1+bc621823+AdYvAWoe/R5P33k+tCzYRHHhup8M8E0Sh7XMcfYWKHy4, too"]);
}

#[test]
fn a_log_begins_with_an_epoch_and_goes_on_with_one_after_a_stop_or_a_recovery() {
    let (node, e0, e1) = (key(), epoch_key(0), epoch_key(1));
    Forger::new().record("no epoch").checkpoint(&[&node]).check(expect!["1 segment-00000000000000000000.plog, offset 532, record seq 0: expected the log to go on with a new epoch, as it does after its beginning, a stop or a recovery"]);
    let closed = || Forger::new().opening(0, "node", &e0).checkpoint(&[&node, &e0]).record("a").closing(&[&node, &e0]);
    closed().record("after the stop").checkpoint(&[&node, &e0]).check(expect!["1 segment-00000000000000000000.plog, offset 1883, record seq 2: expected the log to go on with a new epoch, as it does after its beginning, a stop or a recovery"]);
    closed().checkpoint(&[&node, &e0]).check(expect!["1 segment-00000000000000000000.plog, offset 1883, record seq 2: expected the log to go on with a new epoch, as it does after its beginning, a stop or a recovery"]);
    closed().recovered().record("after the recovery").checkpoint(&[&node, &e0]).check(expect!["1 segment-00000000000000000000.plog, offset 2196, record seq 3: expected the log to go on with a new epoch, as it does after its beginning, a stop or a recovery"]);
    closed()
        .opening(1, "node", &e1)
        .checkpoint(&[&node, &e1])
        .check(expect!["0 intact: 3 records, 4 checkpoints, 1 segment"]);
}

/// Records after the last checkpoint are a running writer's, up to the number that the epoch declares.
#[test]
fn a_tail_without_a_checkpoint_is_reported_bounded_and_refused_at_rest() {
    let (node, e0) = (key(), epoch_key(0));
    let begun = || Forger::new().opening(0, "node", &e0).checkpoint(&[&node, &e0]);
    let dir = begun().records(3).check(expect!["0 intact: 4 records, 2 checkpoints, 1 segment"]);
    begun().records(4).check(expect!["1 segment-00000000000000000000.plog, offset 2056, record seq 4: expected a checkpoint after 3 records at most, as this epoch declares, found 4 without one"]);
    let options = verify::Options { at_rest: true, ..verify::Options::default() };
    let report = verify(dir.path(), &[vkey()], &options).unwrap();
    expect!["TAMPERED at segment-00000000000000000000.plog, offset 2056, record seq 4: expected a log at rest to end with a checkpoint, found 3 records and 0 bytes after it"].assert_eq(report.to_string().lines().next().unwrap());
}

/// The limit of it all: whoever has the node's key can write another history from any restart on. Only a checkpoint
/// kept elsewhere tells the two apart.
#[test]
fn a_history_forged_with_the_nodes_key_is_found_only_by_a_checkpoint_kept_elsewhere() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), wide_options()).unwrap();
    append(&mut log, 0..3);
    let kept_elsewhere = log.close().unwrap();
    let forged = scratch();
    let (mut log, _) = Log::open(forged.path(), Options { seeds: |_| Ok([78; 32]), ..wide_options() }).unwrap();
    append(&mut log, 5..9);
    log.close().unwrap();
    assert_eq!(verified(forged.path()).exit_code(), 0);
    assert_eq!(verified_with(forged.path(), &[vkey()], Some(kept_elsewhere)).exit_code(), 1);
}
