//! `plumbline-verify` as a command: exit codes, output, help.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use plumbline_audit::SigningKey;
use plumbline_audit::note::sign;

use crate::support::*;

fn plumbline_verify(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plumbline-verify")).args(arguments).output().unwrap()
}

#[track_caller]
fn check(dir: &Path, arguments: &[&str], code: i32, says: &str) {
    let dir = dir.to_str().unwrap();
    let output = plumbline_verify(&[&[dir], arguments].concat());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.code() == Some(code) && text.contains(says), "{:?}: {text}", output.status);
}

#[test]
fn each_answer_has_its_exit_code() {
    let dir = closed_log();
    let files = scratch();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = vkey().to_string();
    let other = SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap();
    let other_key = other.verifier().to_string();

    check(dir.path(), &["--key", &good], 0, "intact: 8 records");
    check(dir.path(), &["--key", &file("key", &format!("{good}\n"))], 0, "intact: 8 records");
    check(dir.path(), &["--key", &other_key, "--key", &good], 0, "intact: 8 records");
    check(dir.path(), &["--key", &good, "--format", "json"], 0, r#""verdict": "intact""#);
    check(dir.path(), &["--key", &other_key], 3, "UNTRUSTED KEY at segment-00000000000000000000.plog");
    check(dir.path(), &["--key", "nonsense"], 4, "cannot read nonsense");
    check(dir.path(), &["--key", &file("secret", &key().to_text())], 4, "this is a signing key");
    check(dir.path(), &[], 4, "--key");
    check(dir.path(), &["--key", &good, "--format", "xml"], 4, "human, json");
    check(files.path(), &["--key", &good], 4, "there is no audit log in");
    check(Path::new("/nonexistent"), &["--key", &good], 4, "cannot read /nonexistent");

    let checkpoint = fs::read_to_string(dir.path().join("checkpoint")).unwrap();
    check(dir.path(), &["--key", &good, "--expect-at-least", &file("kept", &checkpoint)], 0, "intact");
    let forged = sign("node-17.example.com/plumbline\n9\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", &[&other]);
    check(dir.path(), &["--key", &good, "--expect-at-least", &file("forged", &forged)], 3, "no signature by a key");
    check(dir.path(), &["--key", &good, "--expect-at-least", &file("empty", "")], 4, "no checkpoint that a trusted");
    let ahead = sign("node-17.example.com/plumbline\n9\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", &[&key()]);
    check(dir.path(), &["--key", &good, "--expect-at-least", &file("ahead", &ahead)], 1, "cut or rolled back");

    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[800] ^= 1;
    fs::write(path, bytes).unwrap();
    check(dir.path(), &["--key", &good], 1, "TAMPERED at segment-00000000000000000000.plog, offset ");
    check(dir.path(), &["--key", &good, "--format", "json"], 1, r#""verdict": "tampered""#);
}

#[test]
fn help_says_what_the_exit_codes_mean() {
    let output = plumbline_verify(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for line in ["0  intact", "1  tampered", "2  intact but incomplete", "3  signed with a key", "4  no answer"] {
        assert!(text.contains(line), "{text}");
    }
}
