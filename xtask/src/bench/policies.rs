//! A thousand policies beside one. The measuring is in the package `plumbline-tests`, because it must be optimised.

use std::process::Command;

use crate::build::Build;
use crate::cmd;
use crate::error::Result;
use crate::workspace;

pub(super) fn run(_: &Build) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root());
    cargo.args(["build", "--release", "--package", "plumbline-tests", "--bin", "bench-policies"]);
    cmd::run(&mut cargo)?;
    let dir = workspace::target().join("bench/policies");
    cmd::run(Command::new(workspace::target().join("release/bench-policies")).arg(dir))
}
