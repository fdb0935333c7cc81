//! The verifier must build for the laptops of reviewers: `cargo check` of `plumbline-audit` for Windows and macOS.
//!
//! The standard library of those targets is compiled from the same `rust-src` as the kernel programs' core; nothing is
//! linked, and nothing runs.

use std::process::Command;

use crate::cache::Cache;
use crate::cmd;
use crate::error::Result;
use crate::report::{Report, Tally};
use crate::toolchain::BpfToolchain;
use crate::workspace;

const TARGETS: [&str; 2] = ["x86_64-pc-windows-msvc", "aarch64-apple-darwin"];

/// One check for each target; not run where the compiler has no sources of its standard library.
pub(crate) fn run(cache: &Cache, report: &mut Report) {
    let step = "verifier on Windows and macOS";
    match BpfToolchain::set_up(cache) {
        Ok(toolchain) if toolchain.build_std => {
            report.step(step, || check(&toolchain));
        }
        Ok(_) => report.not_run(step, "there is no rust-src of this compiler"),
        Err(error) => report.not_run(step, &error.chain()),
    }
}

fn check(toolchain: &BpfToolchain) -> Result<Tally> {
    let mut tally = Tally::default();
    for target in TARGETS {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace::root()).args([
            "check",
            "--quiet",
            "--package",
            "plumbline-audit",
            "--lib",
            "--bins",
        ]);
        cargo.args(["--target", target, "--target-dir"]).arg(workspace::target().join("portable"));
        toolchain.apply_with(&mut cargo, "-Zbuild-std=std,panic_abort")?;
        match cmd::run(&mut cargo) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                println!("not ok plumbline-audit for {target}: {}", error.chain());
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}
