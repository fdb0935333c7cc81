//! The recent past of a node: what remembering it takes. The measuring is in the package `plumbline-tests`.

use std::process::Command;

use crate::build::Build;
use crate::cmd;
use crate::error::Result;
use crate::workspace;

pub(super) fn run(_build: &Build) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root());
    cargo.args(["build", "--release", "--package", "plumbline-tests", "--bin", "bench-timeline"]);
    cmd::run(&mut cargo)?;
    let mut bench = Command::new(workspace::target().join("release/bench-timeline"));
    cmd::run(bench.arg(workspace::root().join("agent/src/engines/testdata/vllm-0.32.0.txt")))
}
