//! The Python verifier in `tests/verify_log.py`, written from the documentation alone, must agree with ours: on each
//! intact log and on each tampered one of these tests, in exit code and place.
//!
//! It runs when `PLUMBLINE_PYTHON` names an interpreter that has the package `cryptography`; set-up provides one. A
//! missing interpreter or package is then a failure. Without the variable it says that it was not run.

use std::path::Path;
use std::process::Command;

use crate::support::*;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/verify_log.py");

/// The independent verifier gives this exit code for the log and says this.
#[track_caller]
pub(crate) fn agrees(dir: &Path, expect_at_least: Option<&Path>, code: u8, says: &str) {
    let Some(python) = std::env::var_os("PLUMBLINE_PYTHON").filter(|python| !python.is_empty()) else {
        eprintln!("not run, because PLUMBLINE_PYTHON is not set: the independent verifier");
        return;
    };
    let mut command = Command::new(&python);
    command.arg(SCRIPT).arg(dir).arg(vkey().to_string());
    if let Some(path) = expect_at_least {
        command.arg("--expect-at-least").arg(path);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(code)), "expected `{says}`, the independent verifier: {text}");
    assert!(text.contains(says), "expected `{says}`, the independent verifier: {text}");
}

#[test]
fn a_log_in_many_segments_with_letters_of_many_scripts_is_intact_for_both() {
    let dir = scratch();
    let (mut log, _) = plumbline_audit::Log::open(dir.path(), options()).unwrap();
    for number in 0..10 {
        log.append(&draft(&format!("event {number} — ü 漢 \u{202e}\u{7f}\\\" \n"))).unwrap();
        log.commit().unwrap();
    }
    log.close().unwrap();
    let report = verified(dir.path());
    let root = report.root.clone().unwrap();
    assert_eq!(report.exit_code(), 0);
    agrees(dir.path(), None, 0, &format!("intact 11 records root {root}"));
}
