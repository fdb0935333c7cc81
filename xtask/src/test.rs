//! `cargo xtask test`: every test that this machine can run, with the time of each step.
//!
//! Order: cheap and telling first. A step that fails does not stop the others; only without a build there is nothing to
//! test.

use std::process::Command;

use clap::Args;

use crate::build::Build;
use crate::cache::Cache;
use crate::cmd;
use crate::end_to_end;
use crate::error::Result;
use crate::lint;
use crate::portable;
use crate::promtool;
use crate::python::Python;
use crate::report::{Report, Tally};
use crate::toolchain::BpfToolchain;
use crate::tools::Tools;
use crate::vm::{self, Errand, Kernel};
use crate::workspace;

/// Run every test that this machine can run.
///
/// Sets up what is missing, builds, lints, runs unit tests as the user, end-to-end tests as root (with `sudo -n` where
/// needed), and the kernel programs on Debian kernels in QEMU: the oldest and the newest, or all with `--full`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --full")]
pub(crate) struct Test {
    /// All kernels and file systems, not only the oldest and the newest on one, a thousand kills of the log's writer instead
    /// of twenty, and five thousand inputs for each property test instead of 256.
    #[arg(long)]
    full: bool,
}

impl Test {
    /// Whether nothing failed.
    pub(crate) fn run(&self, cache: &Cache) -> bool {
        let mut report = Report::default();
        self.steps(cache, &mut report);
        println!("\n{report}");
        report.total().failed == 0
    }

    fn steps(&self, cache: &Cache, report: &mut Report) {
        let kernels = if self.full { vm::ALL.to_vec() } else { vec![vm::ALL[0], vm::ALL[vm::ALL.len() - 1]] };
        let mut set_up =
            |name: &str, run: &dyn Fn() -> Result<()>| report.step(name, || run().map(|()| Tally::default()));
        set_up("set-up: kernel programs", &|| BpfToolchain::set_up(cache).map(drop));
        set_up("set-up: Python, promtool and tools", &|| {
            Python::for_tests(cache)?;
            promtool::set_up(cache)?;
            Tools::set_up(cache).map(drop)
        });
        let can_boot = set_up("set-up: QEMU and kernels", &|| vm::set_up(cache, &kernels));
        let build = || Build::default().run(cache).and_then(|()| end_to_end::build()).map(|()| Tally::default());
        if !report.step("build", build) {
            return;
        }
        lint::run_all(report);
        portable::run(cache, report);
        report.step("unit tests", || unit_tests(cache, self.full));
        end_to_end::run_all(cache, self.full, report);
        for kernel in kernels {
            let name = format!("kernel {kernel}");
            if can_boot {
                // An emulated machine takes two minutes for the other file systems; natively they are checked each time.
                let errand = if self.full { Errand::Checks } else { Errand::ChecksOnOneFileSystem };
                report.step(&name, || on_kernel(cache, kernel, errand));
            } else {
                report.not_run(&name, "QEMU or the kernel could not be set up");
            }
        }
    }
}

/// What a property test tries with `--full`, instead of 256: the fuzzing of every parser.
const MANY_CASES: &str = "5000";

/// Everything that needs neither root nor a kernel of its own.
fn unit_tests(cache: &Cache, full: bool) -> Result<Tally> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root()).args(["test", "--no-fail-fast", "--workspace"]);
    // Where it is missing, the tests that want it say so.
    if let Ok(python) = Python::for_tests(cache) {
        cargo.env("PLUMBLINE_PYTHON", python.program);
    }
    if full {
        cargo.env("PROPTEST_CASES", MANY_CASES);
    }
    libtest(&mut cargo)
}

fn on_kernel(cache: &Cache, kernel: Kernel, errand: Errand) -> Result<Tally> {
    vm::build(cache)?;
    vm::test_on(cache, kernel, &vm::default_init(), errand, false)
}

/// Runs libtest binaries, shows what is worth reading and adds up their summaries.
fn libtest(cargo: &mut Command) -> Result<Tally> {
    let mut tally = Tally::default();
    let status = cmd::stream(cargo, |line| {
        if let Some(counted) = Tally::of_libtest_line(line) {
            tally += counted;
        } else if is_telling(line) {
            println!("{line}");
        }
    })?;
    println!("{tally}");
    // It did not build, or a test brought its whole process down.
    if !status.success() && tally.failed == 0 {
        println!("not ok: `{}` ended with {status}", cmd::line(cargo));
        tally += Tally::FAILED;
    }
    Ok(tally)
}

/// Everything but tests that passed and headings of binaries.
fn is_telling(line: &str) -> bool {
    let passed = line.starts_with("test ") && line.ends_with(" ... ok");
    let heading = line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test"));
    !(passed || heading || line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_tests_are_counted_and_not_shown_and_all_else_is_shown() {
        assert!(!is_telling("test cache::tests::x ... ok"));
        assert!(!is_telling("running 3 tests"));
        assert!(is_telling("test cache::tests::x ... FAILED"));
        assert!(is_telling("thread 'x' panicked at src/a.rs:1:1:"));
    }

    #[test]
    fn a_test_binary_that_dies_without_a_summary_is_a_failure() {
        let tally = libtest(Command::new("sh").args(["-c", "echo 'running 1 test'; exit 101"])).unwrap();
        assert_eq!(tally, Tally::FAILED);
    }
}
