//! The audit log beside the same work done bare: group commit, verifying, proofs. The measuring is in the package
//! `plumbline-tests`, because it must be optimised.

use std::process::Command;

use crate::build::Build;
use crate::cmd;
use crate::error::Result;
use crate::workspace;

pub(super) fn run(_: &Build) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root());
    cargo.args(["build", "--release", "--package", "plumbline-tests", "--bin", "bench-audit"]);
    cmd::run(&mut cargo)?;
    let dir = workspace::target().join("bench/audit");
    cmd::run(Command::new(workspace::target().join("release/bench-audit")).arg(dir))
}
