//! `cargo xtask test`: every test that this machine can run, with the time of each step.
//!
//! Order: cheap and telling first. A step that fails does not stop the others; only without a build there is nothing to
//! test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::build::Build;
use crate::cache::Cache;
use crate::cmd;
use crate::engine::Llama;
use crate::error::{Error, Result};
use crate::lint;
use crate::privilege;
use crate::promtool;
use crate::python::Python;
use crate::report::{Report, Tally};
use crate::toolchain::BpfToolchain;
use crate::vm::{self, Kernel};
use crate::workspace;

/// Tests that need root, or other programs than ours, live in this package.
const END_TO_END: &str = "plumbline-tests";

/// Run every test that this machine can run.
///
/// Sets up what is missing, builds, lints, runs unit tests as the user, end-to-end tests as root (with `sudo -n` where
/// needed), and the kernel programs on Debian kernels in QEMU: the oldest and the newest, or all with `--full`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --full")]
pub(crate) struct Test {
    /// All kernels, not only the oldest and the newest.
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
        set_up("set-up: Python and promtool", &|| {
            Python::for_tests(cache)?;
            promtool::set_up(cache).map(drop)
        });
        let can_boot = set_up("set-up: QEMU and kernels", &|| vm::set_up(cache, &kernels));
        if !report.step("build", || Build::default().run(cache).map(|()| Tally::default())) {
            return;
        }
        lint::run_all(report);
        report.step("unit tests", || libtest(cargo_test().args(["--workspace", "--exclude", END_TO_END])));
        end_to_end(cache, report);
        for kernel in kernels {
            let name = format!("kernel {kernel}");
            if can_boot {
                report.step(&name, || on_kernel(cache, kernel));
            } else {
                report.not_run(&name, "QEMU or the kernel could not be set up");
            }
        }
    }
}

fn end_to_end(cache: &Cache, report: &mut Report) {
    const NAME: &str = "end-to-end tests";
    let mut variables = vec![
        ("PLUMBLINE_E2E", PathBuf::from("1")),
        ("PLUMBLINE_BIN", Build::default().binary()),
        ("PLUMBLINE_BPF_OBJECT", workspace::bpf_object()),
        ("PLUMBLINE_SKIPPED", workspace::target().join("skipped-tests")),
    ];
    // Where these are missing, the tests that want them say so and count as skipped.
    variables.extend(Python::for_tests(cache).ok().map(|python| ("PLUMBLINE_PYTHON", python.program)));
    variables.extend(promtool::set_up(cache).ok().map(|promtool| ("PLUMBLINE_PROMTOOL", promtool)));
    if let Some(llama) = Llama::cached(cache) {
        variables.extend([("PLUMBLINE_LLAMA_SERVER", llama.server), ("PLUMBLINE_LLAMA_MODEL", llama.model)]);
    }
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    let runner = match privilege::silent_runner(&names) {
        Ok(runner) => runner,
        Err(why) => return report.not_run(NAME, why),
    };
    report.step(NAME, || {
        let mut cargo = cargo_test();
        cargo.args(["--package", END_TO_END]).envs(variables.iter().map(|(name, value)| (name, value)));
        if !runner.is_empty() {
            cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner.join(" "));
        }
        let skipped = workspace::target().join("skipped-tests");
        fs::write(&skipped, "").map_err(Error::file("write", &skipped))?;
        let tally = libtest(&mut cargo)?;
        without_skipped(tally, &skipped)
    });
}

/// libtest knows no skipping at run time: a test that cannot run adds a line `NAME: why` to a file and passes.
fn without_skipped(mut tally: Tally, list: &Path) -> Result<Tally> {
    for line in fs::read_to_string(list).map_err(Error::file("read", list))?.lines() {
        let (name, why) = line.split_once(": ").unwrap_or((line, "no reason given"));
        println!("skip {name}: not run, because {why}");
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped += 1;
    }
    Ok(tally)
}

fn on_kernel(cache: &Cache, kernel: Kernel) -> Result<Tally> {
    vm::build_init()?;
    vm::test_on(cache, kernel, &vm::default_init(), false)
}

fn cargo_test() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root()).args(["test", "--no-fail-fast"]);
    cargo
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
    fn a_test_that_said_it_cannot_run_counts_as_skipped_and_not_as_passed() {
        let list = std::env::temp_dir().join(format!("plumbline-skipped-{}", std::process::id()));
        fs::write(&list, "promtool accepts the page: promtool is missing\n").unwrap();
        let tally = without_skipped(Tally { passed: 3, failed: 0, skipped: 1 }, &list).unwrap();
        fs::remove_file(list).unwrap();
        assert_eq!(tally, Tally { passed: 2, failed: 0, skipped: 2 });
    }

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
