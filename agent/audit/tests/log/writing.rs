//! Writing: any events, any rhythm of checkpoints and restarts, and the log verifies.

use std::fs;
use std::time::Duration;

use plumbline_audit::frame::Kind;
use plumbline_audit::merkle::{Hash, leaf_hash};
use plumbline_audit::{Draft, Log, LogError, Options};
use proptest::prelude::*;

use crate::support::*;

#[test]
fn the_leaf_of_a_record_is_the_hash_of_its_bytes_and_the_next_record_names_it() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), wide_options()).unwrap();
    let first = log.append(&draft("first")).unwrap();
    let second = log.append(&draft("second")).unwrap();
    log.commit().unwrap();
    let all = frames(&segments(dir.path())[0]);
    let records: Vec<_> = all.iter().filter(|(kind, _)| *kind == Kind::Record).map(|(_, bytes)| bytes).collect();
    assert_eq!((first.seq, first.leaf), (1, leaf_hash(records[1])));
    assert_eq!((second.seq, second.leaf), (2, leaf_hash(records[2])));
    let prev = |bytes: &[u8]| {
        let record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        record["unmapped"]["plumbline"]["prev"].as_str().unwrap().to_owned()
    };
    assert_eq!(prev(records[0]), Hash::ZERO.to_string());
    assert_eq!(prev(records[2]), first.leaf.to_string());
}

#[test]
fn a_second_writer_is_refused_while_the_first_is_there() {
    let dir = scratch();
    let (log, _) = Log::open(dir.path(), options()).unwrap();
    assert!(matches!(Log::open(dir.path(), options()), Err(LogError::Locked { .. })));
    drop(log);
    Log::open(dir.path(), options()).unwrap();
}

#[cfg(unix)]
#[test]
fn files_and_directory_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = scratch();
    let dir = parent.path().join("log");
    drop(Log::open(&dir, options()).unwrap());
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(dir.join("tree")).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&dir).unwrap().chain(fs::read_dir(dir.join("tree")).unwrap()) {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }
}

#[test]
fn commits_and_checkpoints_come_after_so_many_records_or_so_much_time_and_also_when_idle() {
    let dir = scratch();
    let options = Options {
        checkpoint_every_records: 5,
        checkpoint_every: Duration::from_secs(10),
        commit_every_records: 3,
        commit_every: Duration::from_secs(2),
        ..wide_options()
    };
    let (mut log, _) = Log::open(dir.path(), options).unwrap();
    // What is durable and what is published as signed, at a second, after so many more records.
    let mut tick = |second: u64, records: u64| {
        (0..records).for_each(|_| assert!(log.append(&draft("x")).is_ok()));
        log.tick(Duration::from_secs(second)).unwrap();
        (log.durable(), log.last_checkpoint().checkpoint.size)
    };
    assert_eq!(tick(100, 0), (1, 1));
    assert_eq!(tick(100, 1), (1, 1));
    assert_eq!(tick(101, 1), (1, 1));
    assert_eq!(tick(102, 0), (3, 1), "the first has waited two seconds");
    assert_eq!(tick(102, 3), (6, 6), "three records are a batch, and five are a checkpoint");
    assert_eq!(tick(109, 2), (6, 6));
    assert_eq!(tick(110, 0), (8, 8), "ten seconds");

    // Idle: the last checkpoint again, in its file, and nothing more in the segments.
    let bytes = fs::read(&segments(dir.path())[0]).unwrap();
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    assert_eq!(tick(119, 0), (8, 8));
    assert!(!dir.path().join("checkpoint").exists());
    assert_eq!(tick(120, 0), (8, 8));
    assert!(dir.path().join("checkpoint").exists());
    assert_eq!(fs::read(&segments(dir.path())[0]).unwrap(), bytes);
    assert_eq!(verified(dir.path()).exit_code(), 0);
}

#[test]
fn an_epoch_ends_after_its_time_also_when_idle_and_the_next_is_vouched_for_by_its_key() {
    let dir = scratch();
    let options = Options { epoch_every: Duration::from_secs(60), ..options() };
    let (mut log, _) = Log::open(dir.path(), options).unwrap();
    for second in [0, 59, 60, 61, 119, 120] {
        log.tick(Duration::from_secs(second)).unwrap();
    }
    assert_eq!((log.epoch(), log.next_seq()), (2, 3));
    append(&mut log, 0..3);
    log.close().unwrap();
    let report = verified(dir.path());
    assert_eq!((report.exit_code(), report.epochs, report.epochs_by_node), (0, 3, 1), "{report}");
}

#[test]
fn a_log_verifies_at_every_moment_of_its_writing() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    for number in 0..20 {
        append(&mut log, number..number + 1);
        let report = verified(dir.path());
        assert_eq!((report.exit_code(), report.records), (0, number + 2), "{report}");
    }
}

#[test]
fn a_verifier_beside_a_running_writer_raises_no_alarm() {
    let dir = scratch();
    let options = Options { segment_bytes: 60_000, checkpoint_every_records: 10, ..options() };
    let (mut log, _) = Log::open(dir.path(), options).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..3000 {
                append(&mut log, number..number + 1);
                if number % 100 == 0 {
                    log.next_epoch().unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let report = verified(dir.path());
            assert_eq!(report.exit_code(), 0, "{report}");
        }
    });
    assert_eq!(verified(dir.path()).records, 3031);
}

#[derive(Clone, Debug)]
enum Step {
    Append(String),
    Checkpoint,
    Commit,
    NextEpoch,
    Prune(u64),
    Crash,
    Close,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => ".{0,300}".prop_map(Step::Append),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Commit),
        1 => Just(Step::NextEpoch),
        1 => (0u64..60).prop_map(Step::Prune),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_appends_checkpoints_and_restarts_verifies_intact(
        steps in prop::collection::vec(any_step(), 0..60),
        segment_bytes in 0u64..4000,
    ) {
        let dir = scratch();
        let open = || Log::open(dir.path(), Options { segment_bytes, ..options() }).unwrap().0;
        let mut log = open();
        let (mut records, mut crashes) = (1, 0);
        for step in steps {
            match step {
                Step::Append(message) => {
                    let at = log.append(&Draft::new(event(&message)).unwrap()).unwrap();
                    prop_assert_eq!(at.seq, records);
                    records += 1;
                }
                Step::Checkpoint => prop_assert_eq!(log.checkpoint().unwrap().checkpoint.size, records),
                Step::Commit => log.commit().unwrap(),
                Step::NextEpoch => {
                    log.next_epoch().unwrap();
                    records += 1;
                }
                Step::Prune(to) => {
                    log.prune(to, "it is old").unwrap();
                    records = log.next_seq();
                }
                Step::Crash => {
                    // What was not committed is gone, and that is said.
                    records = log.durable() + 2;
                    crashes += 1;
                    drop(log);
                    log = open();
                }
                Step::Close => {
                    log.close().unwrap();
                    log = open();
                    records += 1;
                }
            }
        }
        let last = log.close().unwrap();
        let report = verified_with(dir.path(), &[vkey()], Some(last.clone()));
        prop_assert_eq!(report.exit_code(), if crashes == 0 { 0 } else { 2 }, "{}", report);
        prop_assert_eq!((report.records, report.signed_records), (records, records));
        prop_assert_eq!(report.declared_gaps, crashes);
        prop_assert_eq!(report.root, Some(last.checkpoint.root.to_base64()));
    }
}
