//! The tamper corpus: whatever is done to a log without its key is found, with the right exit code and place.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use plumbline_audit::frame::{self, Kind};
use plumbline_audit::merkle::leaf_hash;
use plumbline_audit::verify::{self, verify};
use plumbline_audit::{Draft, Log, Verdict};
use serde_json::json;

use crate::independent;
use crate::support::*;

/// Does `tamper` to a closed log of eight records in three segments (0–2, 3–5, 6–7), then compares exit code and finding.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "an expectation is written in place")]
pub(crate) fn check(tamper: impl FnOnce(&Path), expect: Expect) {
    let dir = closed_log();
    assert_eq!(verified(dir.path()).exit_code(), 0);
    tamper(dir.path());
    expect.assert_eq(&finding(dir.path()));
}

/// What our verifier says; where there is a Python, the independent one must say the same.
pub(crate) fn finding(dir: &Path) -> String {
    let report = verified(dir);
    let code = report.exit_code();
    match report.verdict {
        Verdict::Tampered(finding) | Verdict::Untrusted(finding) => {
            let place = format!("at {}, offset {}, record seq {}:", finding.file, finding.offset, finding.seq);
            independent::agrees(dir, None, code, &place);
            format!("{code} {finding}")
        }
        Verdict::Intact | Verdict::Incomplete => {
            independent::agrees(dir, None, code, &format!("{} records", report.records));
            format!("{code} {report}")
        }
    }
}

pub(crate) fn copy_file(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

pub(crate) fn segment(dir: &Path, n: usize) -> std::path::PathBuf {
    segments(dir)[n].clone()
}

/// Every byte of a small log, which has each kind of frame but no second segment.
#[test]
fn any_byte_flipped_in_any_file_of_a_closed_log_is_found() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    append(&mut log, 0..1);
    log.close().unwrap();
    for path in segments(dir.path()).into_iter().chain([dir.path().join("checkpoint")]) {
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            let report = verified(dir.path());
            assert!(matches!(report.verdict, Verdict::Tampered(_)), "{path:?} byte {at}: {report}");
            if at % 97 == 0 {
                finding(dir.path());
            }
        }
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(verified(dir.path()).exit_code(), 0);
}

#[test]
fn a_byte_flipped_in_each_region_is_found_at_its_offset() {
    /// Flips a bit of the byte `at` bytes into the frame `n` of the second segment.
    fn flip(n: usize, at: usize) -> impl FnOnce(&Path) {
        move |dir| {
            let path = segment(dir, 1);
            let before = frames(&path).iter().take(n).map(|(_, payload)| 12 + payload.len()).sum::<usize>();
            let mut bytes = fs::read(&path).unwrap();
            bytes[8 + before + at] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let magic = |dir: &Path| {
        let mut bytes = fs::read(segment(dir, 1)).unwrap();
        bytes[6] ^= 3;
        fs::write(segment(dir, 1), bytes).unwrap();
    };
    check(
        magic,
        expect![[
            r#"1 segment-00000000000000000003.plog, offset 0, record seq 3: expected the magic bytes of a segment, found PLUMBLM\x02"#
        ]],
    );
    check(
        flip(0, 40),
        expect![
            "1 segment-00000000000000000003.plog, offset 8, record seq 3: expected the bytes of this frame to have CRC 112a7d25, found b65430ce"
        ],
    );
    check(
        flip(1, 40),
        expect![
            "1 segment-00000000000000000003.plog, offset 510, record seq 3: expected the bytes of this frame to have CRC 4fcacde0, found 19413839"
        ],
    );
    check(
        flip(2, 0),
        expect![
            "1 segment-00000000000000000003.plog, offset 857, record seq 3: expected the bytes of this frame to have CRC 79c84875, found 73728688"
        ],
    );
    check(
        flip(2, 3),
        expect![
            "1 segment-00000000000000000003.plog, offset 857, record seq 3: expected a frame length of 1 to 65535, found 16777552"
        ],
    );
    check(
        flip(2, 4),
        expect![
            "1 segment-00000000000000000003.plog, offset 857, record seq 3: expected the bytes of this frame to have CRC 79c84874, found 79c84875"
        ],
    );
    check(
        flip(2, 8),
        expect![
            "1 segment-00000000000000000003.plog, offset 857, record seq 3: expected the bytes of this frame to have CRC 79c84875, found dea1b08e"
        ],
    );
    check(
        flip(2, 12),
        expect![
            "1 segment-00000000000000000003.plog, offset 857, record seq 3: expected the bytes of this frame to have CRC 79c84875, found f6ddc861"
        ],
    );
}

/// Changes the message of the n-th record of a segment, and its CRC with it.
fn reword(path: &Path, n: usize) {
    edit_frames(path, |all| {
        let at = record(all, n);
        let payload = &mut all[at].1;
        *payload = String::from_utf8(payload.clone()).unwrap().replace("event", "avent").into_bytes();
    });
}

#[test]
fn a_changed_record_with_a_right_crc_is_found_by_the_next_record() {
    check(
        |dir| reword(&segment(dir, 0), 1),
        expect![[
            r#"1 segment-00000000000000000000.plog, offset 1361, record seq 1: record 1 hashes to aa4bcad0894a184ea25bc21172bd3d73dd452c73dc7aed560ac67c8805f0cb32, but record 2 keeps "3b8137691d33fd6bbc9c11af33344cd3e2edbed87631dde8250ce5669d66d272" as the hash before it: one of them was changed"#
        ]],
    );
}

#[test]
fn a_changed_record_with_no_record_after_it_is_found_by_the_checkpoint() {
    check(
        |dir| reword(&segment(dir, 0), 2),
        expect![
            "1 segment-00000000000000000000.plog, offset 2057, record seq 3: the checkpoint signs root bXbtaosPMSI+G/3kc/SFcGBOutEfUc8lOJY1/Fii+AU= over 3 records, but they have root 7aEuekURVpXp99jBFcQ3ODTzFMl7sJaqMXKhAz+WWec=: one was changed"
        ],
    );
    check(
        |dir| reword(&segment(dir, 2), 0),
        expect![[
            r#"1 segment-00000000000000000006.plog, offset 857, record seq 6: record 6 hashes to ad16cf9a8c0430bd3b8719a54a748988fe5809a9fa673cdeecff023d6c57a30b, but record 7 keeps "1aa57d46e640e57fa44d1cbccbe20e5d911039164b8b9fb1fc3b957b8353e10a" as the hash before it: one of them was changed"#
        ]],
    );
}

#[test]
fn a_deleted_record_is_found() {
    check(
        |dir| edit_frames(&segment(dir, 0), |all| drop(all.remove(record(all, 1)))),
        expect!["1 segment-00000000000000000000.plog, offset 1361, record seq 1: expected record 1, found record 2"],
    );
}

#[test]
fn a_duplicated_record_is_found() {
    let duplicate = |all: &mut Vec<(Kind, Vec<u8>)>| all.insert(record(all, 1), all[record(all, 1)].clone());
    check(
        |dir| edit_frames(&segment(dir, 0), duplicate),
        expect!["1 segment-00000000000000000000.plog, offset 1709, record seq 2: expected record 2, found record 1"],
    );
}

#[test]
fn reordered_records_are_found() {
    let reorder = |all: &mut Vec<(Kind, Vec<u8>)>| {
        let (first, second) = (record(all, 0), record(all, 1));
        all.swap(first, second);
    };
    check(
        |dir| edit_frames(&segment(dir, 0), reorder),
        expect!["1 segment-00000000000000000000.plog, offset 532, record seq 0: expected record 0, found record 1"],
    );
}

#[test]
fn a_deleted_segment_is_found_wherever_it_was() {
    check(
        |dir| fs::remove_file(segment(dir, 0)).unwrap(),
        expect![
            "1 segment-00000000000000000003.plog, offset 8, record seq 0: expected a segment that begins with record 0, found one that begins with record 3"
        ],
    );
    check(
        |dir| fs::remove_file(segment(dir, 1)).unwrap(),
        expect![
            "1 segment-00000000000000000006.plog, offset 8, record seq 3: expected a segment that begins with record 3, found one that begins with record 6"
        ],
    );
    check(
        |dir| fs::remove_file(segment(dir, 2)).unwrap(),
        expect![
            "1 segment-00000000000000000003.plog, offset 2248, record seq 6: expected at least the 8 records that the file `checkpoint` signs, found 6: the log was cut or rolled back"
        ],
    );
    check(
        |dir| segments(dir).iter().for_each(|path| fs::remove_file(path).unwrap()),
        expect![
            "1 checkpoint, offset 0, record seq 0: expected at least the 8 records that the file `checkpoint` signs, found 0: the log was cut or rolled back"
        ],
    );
}

#[test]
fn a_segment_under_the_name_of_another_is_found() {
    check(
        |dir| copy_file(&segment(dir, 2), &segment(dir, 1)),
        expect![
            "1 segment-00000000000000000003.plog, offset 8, record seq 3: expected this segment to begin with record 3, as its name says, found record 6"
        ],
    );
}

#[test]
fn a_cut_at_a_frame_boundary_below_the_last_checkpoint_is_found() {
    // The closing checkpoint alone, then the record before it too.
    check(
        |dir| edit_frames(&segment(dir, 2), |all| drop(all.pop())),
        expect![
            "1 segment-00000000000000000006.plog, offset 1553, record seq 8: expected the file `checkpoint` to be kept in the segments too, but it is not there"
        ],
    );
    check(
        |dir| edit_frames(&segment(dir, 2), |all| all.truncate(2)),
        expect![
            "1 segment-00000000000000000006.plog, offset 857, record seq 6: expected at least the 8 records that the file `checkpoint` signs, found 6: the log was cut or rolled back"
        ],
    );
    check(
        |dir| edit_frames(&segment(dir, 0), |all| drop(all.pop())),
        expect![
            "1 segment-00000000000000000000.plog, offset 2057, record seq 3: expected a segment that another follows to end with a checkpoint, found 2 records after its last"
        ],
    );
}

#[test]
fn a_cut_inside_a_frame_below_the_last_checkpoint_is_found() {
    let cut = |n: usize| {
        move |dir: &Path| {
            let bytes = fs::read(segment(dir, n)).unwrap();
            fs::write(segment(dir, n), &bytes[..bytes.len() - 5]).unwrap();
        }
    };
    check(
        cut(1),
        expect![
            "1 segment-00000000000000000003.plog, offset 1901, record seq 6: expected a whole frame, found 342 bytes of an unfinished one"
        ],
    );
    check(
        cut(2),
        expect![
            "1 segment-00000000000000000006.plog, offset 1553, record seq 8: expected the file `checkpoint` to be kept in the segments too, but it is not there"
        ],
    );
}

#[test]
fn a_missing_checkpoint_file_is_found() {
    check(
        |dir| fs::remove_file(dir.join("checkpoint")).unwrap(),
        expect![
            "1 checkpoint, offset 0, record seq 0: expected the file `checkpoint`, which is written before the first record, but it is missing"
        ],
    );
}

#[test]
fn a_checkpoint_moved_to_another_place_is_found() {
    let early = |all: &mut Vec<(Kind, Vec<u8>)>| {
        let last = all.pop().unwrap();
        all.insert(record(all, 1), last);
    };
    check(
        |dir| edit_frames(&segment(dir, 0), early),
        expect![
            "1 segment-00000000000000000000.plog, offset 1361, record seq 1: expected a checkpoint over the 1 records before it, found one over 3"
        ],
    );
}

#[test]
fn a_segment_without_its_opening_checkpoint_is_found() {
    check(
        |dir| edit_frames(&segment(dir, 1), |all| drop(all.remove(1))),
        expect![
            "1 segment-00000000000000000003.plog, offset 510, record seq 3: expected a checkpoint right after the segment header"
        ],
    );
}

#[test]
fn a_second_header_is_found() {
    check(
        |dir| edit_frames(&segment(dir, 1), |all| all.push(all[0].clone())),
        expect![
            "1 segment-00000000000000000003.plog, offset 2248, record seq 6: expected a record or a checkpoint, found a second segment header"
        ],
    );
}

#[test]
fn a_header_that_lies_about_what_was_before_is_found() {
    let lie = |all: &mut Vec<(Kind, Vec<u8>)>| {
        let text = String::from_utf8(all[0].1.clone()).unwrap();
        let at = text.find("prev ").unwrap() + 5;
        let mut bytes = text.into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        all[0].1 = bytes;
    };
    check(
        |dir| edit_frames(&segment(dir, 1), lie),
        expect![
            "1 segment-00000000000000000003.plog, offset 8, record seq 3: expected the segment header to repeat the hash b19f4c60d63fc678a484abafcbfb3e804e8cad8fb3f2b77f117597e0867d175c of the record before it, found 019f4c60d63fc678a484abafcbfb3e804e8cad8fb3f2b77f117597e0867d175c"
        ],
    );
}

#[test]
fn a_header_that_lies_about_the_epoch_is_found() {
    let lie = |from: &'static str, to: &'static str| {
        move |dir: &Path| {
            edit_frames(&segment(dir, 1), |all| {
                let text = String::from_utf8(all[0].1.clone()).unwrap();
                assert!(text.contains(from));
                all[0].1 = text.replace(from, to).into_bytes();
            });
        }
    };
    // A longer tail than the epoch declared.
    check(
        lie("epoch 0 1024 ", "epoch 0 9999 "),
        expect![
            "1 segment-00000000000000000003.plog, offset 8, record seq 3: expected the segment header to name the epoch in force, Some(node-17.example.com/plumbline/e0+9e412905+ASvCgAszFuAJIJ/9dX2rGczwroS8eukGVOHoFxLScPZT), found Some(node-17.example.com/plumbline/e0+9e412905+ASvCgAszFuAJIJ/9dX2rGczwroS8eukGVOHoFxLScPZT)"
        ],
    );
    check(
        lie("epoch 0 1024 ", "epoch 1 1024 "),
        expect![
            "1 segment-00000000000000000003.plog, offset 8, record seq 3: expected the segment header to name the epoch in force, Some(node-17.example.com/plumbline/e0+9e412905+ASvCgAszFuAJIJ/9dX2rGczwroS8eukGVOHoFxLScPZT), found Some(node-17.example.com/plumbline/e0+9e412905+ASvCgAszFuAJIJ/9dX2rGczwroS8eukGVOHoFxLScPZT)"
        ],
    );
}

#[test]
fn garbage_appended_to_the_end_is_no_record_and_refused_at_rest() {
    let append = |garbage: &'static [u8]| {
        move |dir: &Path| fs::write(segment(dir, 2), [&fs::read(segment(dir, 2)).unwrap(), garbage].concat()).unwrap()
    };
    check(
        append(&[b'A'; 100]),
        expect![[r#"
            0 intact: 8 records, 7 checkpoints, 3 segments
              log         node-17.example.com/plumbline
              key         node-17.example.com/plumbline+05bbd3d2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c
              signed      the first 8 records, root jf7iXkq9Z4pOoc1+9SoO6/zV8byAPFNa8ASAkerVZn4=
              epochs      1 epoch key, 1 of them vouched for by the node's key alone
              unfinished  100 bytes of a frame at the end: normal while a writer runs or after a crash
        "#]],
    );
    let dir = closed_log();
    append(&[b'A'; 100])(dir.path());
    let at_rest = verify::Options { at_rest: true, ..verify::Options::default() };
    assert_eq!(verify(dir.path(), &[vkey()], &at_rest).unwrap().exit_code(), 1);
    // It hides nothing and it is not a record.
    check(
        append(b"AAAA"),
        expect![[r#"
            0 intact: 8 records, 7 checkpoints, 3 segments
              log         node-17.example.com/plumbline
              key         node-17.example.com/plumbline+05bbd3d2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c
              signed      the first 8 records, root jf7iXkq9Z4pOoc1+9SoO6/zV8byAPFNa8ASAkerVZn4=
              epochs      1 epoch key, 1 of them vouched for by the node's key alone
              unfinished  4 bytes of a frame at the end: normal while a writer runs or after a crash
        "#]],
    );
}

#[test]
fn a_record_appended_to_a_closed_log_without_the_key_is_found() {
    let forge = |dir: &Path, draft: Draft| {
        let all: Vec<_> = segments(dir).iter().flat_map(|path| frames(path)).collect();
        let mut leaves = all.iter().filter(|(kind, _)| *kind == Kind::Record).map(|(_, bytes)| leaf_hash(bytes));
        let last = leaves.next_back().unwrap();
        let mut bytes = fs::read(segment(dir, 2)).unwrap();
        frame::encode(Kind::Record, &draft.seal(ORIGIN, 8, &last).unwrap(), &mut bytes);
        fs::write(segment(dir, 2), bytes).unwrap();
    };
    check(
        |dir| forge(dir, draft("forged")),
        expect![
            "1 segment-00000000000000000006.plog, offset 1900, record seq 8: expected the log to go on with a new epoch, as it does after its beginning, a stop or a recovery"
        ],
    );
}

#[test]
fn a_record_of_another_log_is_found() {
    let steal = |all: &mut Vec<(Kind, Vec<u8>)>| {
        let n = record(all, 0);
        all[n].1 = String::from_utf8(all[n].1.clone()).unwrap().replace("node-17", "node-18").into_bytes();
    };
    check(
        |dir| edit_frames(&segment(dir, 0), steal),
        expect![[
            r#"1 segment-00000000000000000000.plog, offset 532, record seq 0: expected a record of the log "node-17.example.com/plumbline", found one of "node-18.example.com/plumbline""#
        ]],
    );
}

#[test]
fn text_in_the_log_cannot_drive_the_terminal_of_who_verifies() {
    let steal = |all: &mut Vec<(Kind, Vec<u8>)>| {
        let n = record(all, 0);
        let text = String::from_utf8(all[n].1.clone()).unwrap();
        all[n].1 = text.replace("\"log_name\":\"node-17", "\"log_name\":\"\\u001b[2J\u{202e}").into_bytes();
    };
    check(
        |dir| edit_frames(&segment(dir, 0), steal),
        expect![[
            r#"1 segment-00000000000000000000.plog, offset 532, record seq 0: expected a record of the log "node-17.example.com/plumbline", found one of "\u{1b}[2J\u{202e}.example.com/plumbline""#
        ]],
    );
}

#[test]
fn a_declared_loss_makes_the_log_incomplete_and_not_tampered() {
    let dir = scratch();
    let (mut log, _) = Log::open(dir.path(), options()).unwrap();
    append(&mut log, 0..2);
    let mut loss = event("events were lost");
    loss.insert("class_uid".into(), 1008.into());
    loss.insert("unmapped".into(), json!({"plumbline": {"kind": "loss", "count": 12}}));
    log.append(&Draft::new(loss).unwrap()).unwrap();
    log.close().unwrap();
    expect![[r#"
        2 intact but incomplete, as it declares itself: 4 records, 5 checkpoints, 2 segments
          log         node-17.example.com/plumbline
          key         node-17.example.com/plumbline+05bbd3d2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c
          signed      the first 4 records, root 798HoGVDPOrJk9Buns5wW/HMllzslaNkjkKqSazYqHI=
          epochs      1 epoch key, 1 of them vouched for by the node's key alone
          gaps        declared by 1 record
    "#]]
    .assert_eq(&finding(dir.path()));
}
