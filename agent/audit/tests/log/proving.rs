//! Proofs for people who do not have the log: of one record, of consistency, as tiles, by a witness.

use std::fs;
use std::path::Path;

use plumbline_audit::merkle::Hash;
use plumbline_audit::note::SignedNote;
use plumbline_audit::tlog_proof::{ProveError, prove, prove_consistency};
use plumbline_audit::witness::{Answer, Request, Witness, cosigned};
use plumbline_audit::{Log, Reader, SigningKey, tiles};

use crate::support::*;

/// A log of 600 events and the record that opens its epoch, in many segments.
fn long_log() -> tempfile::TempDir {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), plumbline_audit::Options { segment_bytes: 20_000, ..options() }).unwrap();
    for number in 0..600 {
        log.append(&draft(&format!("event {number}"))).unwrap();
        log.tick(std::time::Duration::ZERO).unwrap();
    }
    log.close().unwrap();
    dir
}

#[test]
fn every_record_is_proved_also_without_the_hashes_beside_the_log_and_after_its_bytes_are_gone() {
    let dir = long_log();
    let trusted = [vkey()];
    let records: Vec<_> = Reader::from_seq(dir.path(), 0).unwrap().map(|entry| entry.unwrap().bytes).collect();
    let check = |dir: &Path| {
        for (seq, record) in records.iter().enumerate().step_by(97) {
            let proof = prove(dir, seq as u64, &trusted).unwrap();
            assert_eq!(proof.check(record, &trusted).unwrap().size, 601);
            assert!(proof.check(&records[seq / 2 + 300], &trusted).is_err() || seq / 2 + 300 == seq);
        }
    };
    check(dir.path());
    // In a copy without the hashes, and in one where they are wrong.
    fs::write(dir.path().join("tree/level-0"), vec![7; 601 * 32]).unwrap();
    check(dir.path());
    fs::remove_dir_all(dir.path().join("tree")).unwrap();
    check(dir.path());
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    log.prune(300, "old").unwrap().unwrap();
    log.close().unwrap();
    let proof = prove(dir.path(), 5, &trusted).unwrap();
    assert!(proof.check(&records[5], &trusted).is_ok());
    assert!(matches!(prove(dir.path(), 9999, &trusted), Err(ProveError::NotSigned { seq: 9999, .. })));
}

#[test]
fn a_log_whose_records_were_changed_gives_no_proof() {
    let dir = long_log();
    fs::remove_dir_all(dir.path().join("tree")).unwrap();
    edit_frames(&segments(dir.path())[0], |all| {
        let at = record(all, 3);
        let last = all[at].1.len() / 2;
        all[at].1[last] ^= 1;
    });
    assert!(matches!(prove(dir.path(), 400, &[vkey()]), Err(ProveError::Root)));
}

#[test]
fn tiles_hold_the_tree_and_every_record_in_the_published_layout() {
    let (dir, out) = (long_log(), scratch());
    let signed = plumbline_audit::verify::checkpoint_from_file(&dir.path().join("checkpoint"), &[vkey()]).unwrap();
    let exported = tiles::export(dir.path(), &signed, out.path()).unwrap();
    assert_eq!((exported.tiles, exported.bundles), (4, 3));
    let tile = |path: &str| fs::read(out.path().join("tile").join(path)).unwrap();
    assert_eq!((tile("0/000").len(), tile("0/002.p/89").len(), tile("1/000.p/2").len()), (8192, 89 * 32, 64));
    let bundle = tile("entries/001");
    let first = &bundle[2..2 + usize::from(u16::from_be_bytes([bundle[0], bundle[1]]))];
    let record = Reader::from_seq(dir.path(), 256).unwrap().next().unwrap().unwrap().bytes;
    assert_eq!(first, record);
    assert_eq!(fs::read(out.path().join("checkpoint")).unwrap(), fs::read(dir.path().join("checkpoint")).unwrap());

    // A bundle of which a record was pruned is left out; the hashes are all there.
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    log.prune(300, "old").unwrap().unwrap();
    let signed = log.close().unwrap();
    let out = scratch();
    let exported = tiles::export(dir.path(), &signed, out.path()).unwrap();
    assert_eq!(exported.bundles, 1);
    assert!(!out.path().join("tile/entries/001").exists() && out.path().join("tile/0/001").exists());
}

/// A witness, the log it knows, and requests of that log.
struct Scene {
    dir: tempfile::TempDir,
    state: tempfile::TempDir,
    log: Log,
}

impl Scene {
    fn new() -> Self {
        let dir = scratch();
        let (log, _) = Log::open(dir.path(), options()).unwrap();
        Scene { dir, state: scratch(), log }
    }

    fn witness(&self) -> Witness {
        let key = SigningKey::from_seed("witness.example/w1", &[9; 32]).unwrap();
        Witness::new(self.state.path(), key, vec![vkey()]).unwrap()
    }

    fn grow(&mut self) {
        append(&mut self.log, 0..3);
        self.log.checkpoint().unwrap();
    }

    fn request(&self, old: u64) -> Request {
        let (proof, signed) = prove_consistency(self.dir.path(), old, &[vkey()]).unwrap();
        Request { old, proof, checkpoint: signed.note }
    }

    /// The answer's status, and the size that a conflict names.
    fn ask(&self, request: &Request) -> (u16, Option<u64>) {
        let answer = self.witness().add_checkpoint(request.to_text().as_bytes(), 1_790_000_000).unwrap();
        (answer.status(), if let Answer::Conflict { known } = answer { Some(known) } else { None })
    }
}

#[test]
fn a_witness_signs_what_continues_what_it_signed_before_and_nothing_else() {
    let mut scene = Scene::new();
    scene.grow();
    let first = scene.request(0);
    assert_eq!(scene.ask(&first), (200, None));
    assert_eq!(scene.ask(&first), (409, Some(4)));
    scene.grow();
    // The proof must begin at the size that the witness knows.
    assert_eq!(scene.ask(&scene.request(1)), (409, Some(4)));
    let good = scene.request(4);
    let mut bad = good.clone();
    bad.proof[0] = Hash::ZERO;
    assert_eq!(scene.ask(&bad), (422, None));
    assert_eq!(scene.ask(&good), (200, None));
    // The same again is no step back.
    assert_eq!(scene.ask(&scene.request(7)), (200, None));
    // A rollback: the older checkpoint, which the log did sign once.
    assert_eq!(scene.ask(&Request { old: 4, ..first }), (409, Some(7)));
}

#[test]
fn two_histories_of_one_log_do_not_both_get_a_signature() {
    let mut scene = Scene::new();
    scene.grow();
    assert_eq!(scene.ask(&scene.request(0)), (200, None));
    let mut other = Scene::new();
    append(&mut other.log, 50..57);
    other.log.checkpoint().unwrap();
    let fork = other.request(4);
    assert_eq!(scene.ask(&fork), (422, None));
    // Of the same size, too.
    let mut other = Scene::new();
    append(&mut other.log, 50..53);
    other.log.checkpoint().unwrap();
    assert_eq!(scene.ask(&other.request(4)), (409, Some(4)));
}

#[test]
fn a_witness_refuses_strangers_and_nonsense() {
    let mut scene = Scene::new();
    scene.grow();
    let good = scene.request(0);
    assert_eq!(scene.ask(&Request { old: 9, ..good.clone() }), (400, None));
    let renamed = good.checkpoint.replace("node-17", "node-18");
    assert_eq!(scene.ask(&Request { checkpoint: renamed, ..good.clone() }), (404, None));
    let changed = good.checkpoint.replace("\n4\n", "\n5\n");
    assert_eq!(scene.ask(&Request { checkpoint: changed, ..good }), (403, None));
    for nonsense in ["", "old x\n\nnote", "old 1\nnot base64\n\nnote", "old 1\n\nnote"] {
        let answer = scene.witness().add_checkpoint(nonsense.as_bytes(), 0).unwrap();
        assert_eq!(answer, Answer::Malformed, "{nonsense:?}");
    }
}

#[test]
fn a_cosigned_checkpoint_is_kept_by_the_witness_and_proves_a_rollback() {
    let mut scene = Scene::new();
    scene.grow();
    let request = scene.request(0);
    let answer = scene.witness().add_checkpoint(request.to_text().as_bytes(), 1_790_000_000).unwrap();
    let Answer::Cosigned(lines) = answer else { panic!("{answer:?}") };
    let witness = scene.witness();
    let note = cosigned(&request.checkpoint, &lines, witness.verifier()).unwrap();
    assert_eq!(fs::read_to_string(witness.kept(ORIGIN)).unwrap(), note);
    let parsed = SignedNote::parse(note.as_bytes()).unwrap();
    assert!(parsed.is_signed_by(witness.verifier()) && parsed.is_signed_by(&vkey()));
    let other = SigningKey::from_seed("witness.example/w1", &[8; 32]).unwrap().into_witness();
    assert!(cosigned(&request.checkpoint, &lines, other.verifier()).is_err());

    let kept = plumbline_audit::verify::checkpoint_from_file(&witness.kept(ORIGIN), &[vkey()]).unwrap();
    assert_eq!(verified_with(scene.dir.path(), &[vkey()], Some(kept.clone())).exit_code(), 0);
    let young = scratch();
    Log::open(young.path(), options()).unwrap().0.close().unwrap();
    assert_eq!(verified_with(young.path(), &[vkey()], Some(kept)).exit_code(), 1);
}
