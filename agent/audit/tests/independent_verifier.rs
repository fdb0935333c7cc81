//! The Python verifier in `tests/verify_log.py`, written from the documentation alone, agrees with ours.
//!
//! Runs when `PLUMBLINE_PYTHON` names an interpreter that has the package `cryptography`; set-up provides one. A
//! missing interpreter or package is then a failure. Without the variable it says that it was not run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plumbline_audit::{Draft, Log, Options, SigningKey, verify};
use serde_json::json;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/verify_log.py");

/// Ten records in several segments.
fn write_log(dir: &Path, key: &SigningKey) {
    let options = Options { segment_bytes: 1500, ..Options::new(key.clone()) };
    let (mut log, _) = Log::open(dir, options).expect("an empty directory");
    for number in 0..10 {
        let event =
            json!({"class_uid": 1001, "message": format!("event {number} — ü"), "metadata": {"version": "1.8.0"}});
        let event = event.as_object().expect("it is written as an object").clone();
        log.append(&mut Draft::new(event).expect("free of chain fields")).expect("room on the disk");
    }
    log.close().expect("room on the disk");
}

#[test]
fn the_independent_verifier_agrees_on_an_intact_log_and_on_every_flipped_byte_sampled() {
    let Some(python) = std::env::var_os("PLUMBLINE_PYTHON") else {
        eprintln!("not run, because PLUMBLINE_PYTHON is not set");
        return;
    };
    let key = SigningKey::generate("node-17.example.com/plumbline").unwrap();
    let trusted = [key.verifier().clone()];
    let dir = tempfile::tempdir().unwrap();
    write_log(dir.path(), &key);
    let theirs = |vkey: &str| {
        let output = Command::new(&python).arg(SCRIPT).arg(dir.path()).arg(vkey).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let ours = || verify(dir.path(), &trusted, &verify::Options::default()).unwrap();
    let vkey = key.verifier().to_string();

    let root = ours().root.expect("a closed log is signed");
    let (code, text) = theirs(&vkey);
    assert_eq!((code, text.trim_end()), (Some(0), format!("intact 10 records root {root}").as_str()));
    let stranger = SigningKey::generate("node-17.example.com/plumbline").unwrap();
    assert_eq!(theirs(&stranger.verifier().to_string()).0, Some(1));

    let files: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut compared = 0;
    for path in files.iter().filter(|path| !path.ends_with("lock")) {
        let good = fs::read(path).unwrap();
        for at in (0..good.len()).step_by(good.len() / 6) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(path, bad).unwrap();
            let (code, text) = theirs(&vkey);
            assert_eq!((ours().exit_code(), code), (1, Some(1)), "{path:?} byte {at}: {text}");
            assert!(text.starts_with("TAMPERED at "), "{path:?} byte {at}: {text}");
            compared += 1;
        }
        fs::write(path, good).unwrap();
    }
    assert!(compared >= 20, "only {compared} flips were compared");
    assert_eq!(theirs(&vkey).0, Some(0));
}
