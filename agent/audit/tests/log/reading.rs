//! Reading by cursor: from anywhere, across segments, and on past the end as the log grows.

use std::fs;

use plumbline_audit::reader::ReadError;
use plumbline_audit::{Log, Reader};

use crate::support::*;

fn seqs(reader: &mut Reader) -> Vec<u64> {
    reader.map(|entry| entry.unwrap().seq).collect()
}

#[test]
fn records_come_in_order_from_any_sequence_number() {
    let dir = closed_log();
    for from in 0..10 {
        let mut reader = Reader::from_seq(dir.path(), from).unwrap();
        assert_eq!(seqs(&mut reader), (from..8).collect::<Vec<_>>());
        assert_eq!(reader.next_seq(), from.max(8));
    }
}

#[test]
fn the_bytes_are_the_record_as_it_was_written() {
    let dir = closed_log();
    let all = segments(dir.path()).iter().flat_map(|path| frames(path)).collect::<Vec<_>>();
    let written = all.into_iter().filter(|(kind, _)| *kind == plumbline_audit::frame::Kind::Record);
    let read = Reader::from_seq(dir.path(), 0).unwrap().map(|entry| entry.unwrap().bytes);
    assert_eq!(read.collect::<Vec<_>>(), written.map(|(_, bytes)| bytes).collect::<Vec<_>>());
}

#[test]
fn a_reader_at_the_end_goes_on_when_there_is_more_also_in_a_new_segment() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    let mut reader = Reader::from_seq(dir.path(), 0).unwrap();
    assert_eq!(seqs(&mut reader), [0]);
    for number in 1..12 {
        assert!(seqs(&mut reader).is_empty());
        append(&mut log, number..number + 1);
        assert_eq!(seqs(&mut reader), [number]);
    }
}

#[test]
fn a_half_written_record_is_not_there_yet() {
    let dir = closed_log();
    let path = segments(dir.path())[2].clone();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 400]).unwrap();
    let mut reader = Reader::from_seq(dir.path(), 5).unwrap();
    assert_eq!(seqs(&mut reader), [5, 6]);
    assert!(seqs(&mut reader).is_empty());
    fs::write(&path, &whole).unwrap();
    assert_eq!(seqs(&mut reader), [7]);
}

#[test]
fn damage_and_absence_are_errors_with_their_place() {
    let dir = closed_log();
    let path = segments(dir.path())[1].clone();
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[1300] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damaged = Reader::from_seq(dir.path(), 0).unwrap().find_map(Result::err);
    assert!(matches!(&damaged, Some(ReadError::Damaged { path: at, .. }) if *at == path), "{damaged:?}");

    // A cut in a segment that another follows is damage, not a record still being written.
    fs::write(&path, &whole[..whole.len() - 400]).unwrap();
    fs::rename(segments(dir.path())[2].clone(), dir.path().join("segment-00000000000000000005.plog")).unwrap();
    let damaged = Reader::from_seq(dir.path(), 3).unwrap().find_map(Result::err);
    assert!(matches!(&damaged, Some(ReadError::Damaged { path: at, .. }) if *at == path), "{damaged:?}");

    fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert!(matches!(Reader::from_seq(dir.path(), 0), Err(ReadError::Gone { wanted: 0, first: 3 })));
    let empty = scratch();
    assert!(matches!(Reader::from_seq(empty.path(), 0), Err(ReadError::NotALog { .. })));
}
