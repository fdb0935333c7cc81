//! Eight simulated GPUs: what reading them costs. The measuring is in the package `plumbline-tests`.

use std::process::Command;

use crate::build::Build;
use crate::cmd;
use crate::error::Result;
use crate::privilege;
use crate::workspace;

pub(super) fn run(build: &Build) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root());
    cargo.args([
        "build",
        "--release",
        "--package",
        "fake-nvml",
        "--package",
        "plumbline-tests",
        "--bin",
        "bench-gpu",
        "--lib",
    ]);
    cmd::run(&mut cargo)?;
    let release = workspace::target().join("release");
    let mut bench = privilege::elevated(&release.join("bench-gpu"))?;
    bench.arg(build.binary()).arg(release.join("libfake_nvml.so"));
    bench.arg(workspace::root().join("tests/fake-nvml/scenarios/h100x8.yaml"));
    cmd::run(bench.arg(workspace::target().join("bench/gpu")))
}
