//! Writing: any events, any rhythm of checkpoints and restarts, and the log verifies.

use std::fs;
use std::time::Duration;

use plumbline_audit::merkle::{Hash, leaf_hash};
use plumbline_audit::{Draft, Log, LogError, Options};
use proptest::prelude::*;

use crate::support::*;

#[test]
fn the_leaf_of_a_record_is_the_hash_of_its_bytes_and_the_next_record_names_it() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), Options::new(key())).unwrap();
    let first = log.append(&mut draft("first")).unwrap();
    let second = log.append(&mut draft("second")).unwrap();
    let all = frames(&segments(dir.path())[0]);
    assert_eq!((first.seq, first.leaf), (0, leaf_hash(&all[2].1)));
    assert_eq!((second.seq, second.leaf), (1, leaf_hash(&all[3].1)));
    let prev = |bytes: &[u8]| {
        let record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        record["unmapped"]["plumbline"]["prev"].as_str().unwrap().to_owned()
    };
    assert_eq!(prev(&all[2].1), Hash::ZERO.to_string());
    assert_eq!(prev(&all[3].1), first.leaf.to_string());
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
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn checkpoints_come_after_so_many_records_or_so_much_time_and_also_when_idle() {
    let dir = scratch();
    let options = Options { checkpoint_every_records: 3, checkpoint_every: Duration::from_secs(10), ..options() };
    let (mut log, _) = Log::open(dir.path(), options).unwrap();
    let tick = |log: &mut Log, second: u64| {
        let signed = log.tick(Duration::from_secs(second)).unwrap();
        signed.map(|signed| signed.checkpoint.size)
    };
    assert_eq!(tick(&mut log, 100), None);
    append(&mut log, 0..2);
    assert_eq!(tick(&mut log, 101), None);
    append(&mut log, 2..3);
    assert_eq!(tick(&mut log, 102), Some(3));
    append(&mut log, 3..4);
    assert_eq!(tick(&mut log, 111), None);
    assert_eq!(tick(&mut log, 112), Some(4));

    // Idle: the last checkpoint again, in its file, and nothing more in the segments.
    let bytes = fs::read(&segments(dir.path())[0]).unwrap();
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    assert_eq!(tick(&mut log, 121), None);
    assert_eq!(tick(&mut log, 122), Some(4));
    assert!(dir.path().join("checkpoint").exists());
    assert_eq!(fs::read(&segments(dir.path())[0]).unwrap(), bytes);
    assert_eq!(verified(dir.path()).exit_code(), 0);
}

#[test]
fn a_log_verifies_at_every_moment_of_its_writing() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    for number in 0..20 {
        append(&mut log, number..number + 1);
        let report = verified(dir.path());
        assert_eq!((report.exit_code(), report.records), (0, number + 1), "{report}");
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
                log.tick(Duration::ZERO).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let report = verified(dir.path());
            assert_eq!(report.exit_code(), 0, "{report}");
        }
    });
    assert_eq!(verified(dir.path()).records, 3000);
}

#[derive(Clone, Debug)]
enum Step {
    Append(String),
    Checkpoint,
    Flush,
    Crash,
    Close,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => ".{0,300}".prop_map(Step::Append),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Flush),
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
        let mut appended = 0;
        for step in steps {
            match step {
                Step::Append(message) => {
                    let at = log.append(&mut Draft::new(event(&message)).unwrap()).unwrap();
                    prop_assert_eq!(at.seq, appended);
                    appended += 1;
                }
                Step::Checkpoint => prop_assert_eq!(log.checkpoint().unwrap().checkpoint.size, appended),
                Step::Flush => log.flush().unwrap(),
                Step::Crash => {
                    drop(log);
                    log = open();
                }
                Step::Close => {
                    log.close().unwrap();
                    log = open();
                }
            }
        }
        let last = log.close().unwrap();
        let report = verified_with(dir.path(), &[vkey()], Some(last.clone()));
        prop_assert_eq!(report.exit_code(), 0, "{}", report);
        prop_assert_eq!((report.records, report.signed_records), (appended, appended));
        prop_assert_eq!(report.root, Some(last.checkpoint.root.to_base64()));
    }
}
