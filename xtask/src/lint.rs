//! `cargo xtask lint`: formatting, clippy, and the rules of this repository that no tool knows.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::cmd;
use crate::error::{Error, Result};
use crate::report::{Report, Tally};
use crate::workspace;

/// A longer file holds more than one concept.
const MAX_LINES: usize = 500;

/// Files that may be longer, each with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Texts that tie the repository to one machine or to one package registry; split so that this file does not hold them.
const UNWANTED: [(&str, &str); 7] = [
    (concat!("/wor", "k/"), "a path of one machine"),
    (concat!("/root/", ".cache/plumbline"), "a path of one machine"),
    (concat!("/root/", ".cargo"), "a path of one machine"),
    (concat!("deb.", "debian.org"), "a registry's host; write \"the Debian mirror\""),
    (concat!("static.", "crat", "es.io"), "a registry's host"),
    (concat!("pypi", ".org"), "a registry's host; write \"PyPI\""),
    (concat!("files.", "pythonhosted"), "a registry's host"),
];

/// Formatting, clippy, and the rules of this repository.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask lint\n  cargo xtask lint --tidy-only")]
pub(crate) struct Lint {
    /// Only the repository's own rules: file length, module heads, paths of this machine.
    #[arg(long)]
    tidy_only: bool,
}

impl Lint {
    /// Whether all is clean.
    pub(crate) fn run(&self) -> bool {
        let mut report = Report::default();
        if self.tidy_only {
            report.step("tidy", tidy);
        } else {
            run_all(&mut report);
        }
        println!("\n{report}");
        report.total().failed == 0
    }
}

pub(crate) fn run_all(report: &mut Report) {
    report.step("fmt", || cargo(&["fmt", "--all", "--check"]));
    report.step("clippy", || cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    report.step("tidy", tidy);
}

fn cargo(arguments: &[&str]) -> Result<Tally> {
    cmd::run(Command::new("cargo").current_dir(workspace::root()).args(arguments)).map(|()| Tally::PASSED)
}

fn tidy() -> Result<Tally> {
    let root = workspace::root();
    // Also what is not committed yet, but nothing that git ignores.
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let files = cmd::output(Command::new("git").current_dir(&root).args(list))?;
    let mut complaints = Vec::new();
    for name in files.lines() {
        let path = root.join(name);
        // A file deleted but still in the index, or a link into nowhere.
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
        complaints.extend(complaints_about(name, &String::from_utf8_lossy(&bytes)));
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    if complaints.is_empty() {
        return Ok(Tally::PASSED);
    }
    Err(Error::said(format!("{} breaches of the repository's rules", complaints.len())))
}

fn complaints_about(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if Path::new(name).extension().is_some_and(|extension| extension == "rs") {
        let lines = text.lines().count();
        let allowed = LONG_FILES.iter().any(|(long, _reason)| *long == name);
        if lines > MAX_LINES && !allowed {
            complaints
                .push(format!("{name}: {lines} lines, more than {MAX_LINES}; split it, or list it with a reason"));
        }
        if !text.starts_with("//!") {
            complaints.push(format!("{name}: no `//!` head that says what the file does and does not do"));
        }
    }
    if name == "Cargo.lock" {
        return complaints;
    }
    for (number, line) in (1..).zip(text.lines()) {
        for (unwanted, why) in UNWANTED {
            if line.contains(unwanted) {
                complaints.push(format!("{name}:{number}: `{unwanted}`: {why}"));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(name: &str, text: &str, expected: &Expect) {
        expected.assert_eq(&complaints_about(name, text).join("\n"));
    }

    #[test]
    fn a_rust_file_has_a_head_and_at_most_500_lines() {
        check("a.rs", "//! Head.\n", &expect![""]);
        check("a.rs", "fn main() {}\n", &expect!["a.rs: no `//!` head that says what the file does and does not do"]);
        check("a.rs", &"//! Long.\n".repeat(500), &expect![""]);
        check(
            "a.rs",
            &"//! Long.\n".repeat(501),
            &expect!["a.rs: 501 lines, more than 500; split it, or list it with a reason"],
        );
        check("a.md", &"long\n".repeat(501), &expect![""]);
    }

    #[test]
    fn paths_of_one_machine_and_hosts_of_registries_are_named_with_their_line() {
        let text = format!("fine\nsee {}/x\n", concat!("deb.", "debian.org"));
        let host = concat!("deb.", "debian.org");
        assert_eq!(
            complaints_about("a.md", &text),
            [format!("a.md:2: `{host}`: a registry's host; write \"the Debian mirror\"")]
        );
        assert!(complaints_about("Cargo.lock", &text).is_empty(), "cargo writes its registry there");
    }
}
