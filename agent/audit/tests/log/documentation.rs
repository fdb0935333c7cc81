//! The worked example in `docs/audit-format.md` is what the code writes, byte for byte.

use std::fmt::Write as _;
use std::fs;

use plumbline_audit::{Draft, Log, Options, SigningKey};
use serde_json::json;

use crate::support::scratch;

const DOCUMENT: &str = include_str!("../../../../docs/audit-format.md");

fn hexdump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let hex: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let ascii: String =
            chunk.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }).collect();
        writeln!(text, "{:04x}  {:<47}  {ascii}", row * 16, hex.join(" ")).unwrap();
    }
    text
}

#[test]
fn the_worked_example_is_what_the_code_writes() {
    let dir = scratch();
    let key = SigningKey::from_seed("log.example/a", &[1; 32]).unwrap();
    let (mut log, _) = Log::open(dir.path(), Options { seeds: |_| Ok([2; 32]), ..Options::new(key.clone()) }).unwrap();
    let event = json!({"class_uid": 1008, "message": "one"});
    log.append(&Draft::new(event.as_object().unwrap().clone()).unwrap()).unwrap();
    log.close().unwrap();

    let segment = hexdump(&fs::read(dir.path().join("segment-00000000000000000000.plog")).unwrap());
    let checkpoint = fs::read_to_string(dir.path().join("checkpoint")).unwrap();
    for written in [&segment, &checkpoint, &key.verifier().to_string()] {
        assert!(DOCUMENT.contains(written.as_str()), "not in the document:\n{written}");
    }
}
