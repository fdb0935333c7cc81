//! `cargo xtask build`: the kernel object first, then the daemon that embeds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};
use crate::toolchain::BpfToolchain;
use crate::workspace;

/// Build the kernel programs and the daemon.
///
/// What is needed and missing is set up first. Nothing is rebuilt that has not changed.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(after_help = "Examples:\n  cargo xtask build\n  cargo xtask build --release\n  cargo xtask build --bpf-only")]
pub(crate) struct Build {
    /// Optimise the daemon (the kernel programs always are: the verifier cannot follow unoptimised code).
    #[arg(long)]
    pub(crate) release: bool,
    /// Add log lines inside the kernel programs, shown by `RUST_LOG=trace`.
    #[arg(long)]
    pub(crate) trace: bool,
    /// Only the kernel object, `target/bpf/plumbline.bpf.o`.
    #[arg(long)]
    pub(crate) bpf_only: bool,
}

impl Build {
    pub(crate) fn run(self, cache: &Cache) -> Result<()> {
        self.kernel_object(&BpfToolchain::set_up(cache)?)?;
        if self.bpf_only { Ok(()) } else { self.daemon() }
    }

    /// The daemon's binary after a build.
    pub(crate) fn binary(self) -> PathBuf {
        workspace::target().join(if self.release { "release" } else { "debug" }).join("plumbline")
    }

    fn kernel_object(self, toolchain: &BpfToolchain) -> Result<()> {
        // A target directory of its own: other flags in the shared one would rebuild everything at each turn.
        let target = workspace::target().join("bpf-build");
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace::root()).args(["build", "--release", "--package", "plumbline-ebpf"]);
        cargo.args(["--bins", "--target", "bpfel-unknown-none", "--target-dir"]).arg(&target);
        if self.trace {
            cargo.args(["--features", "trace"]);
        }
        // Not in a configuration file, so that packages for the host never see these flags.
        let flags = [r#"--cfg=bpf_target_arch="x86_64""#, "-Cdebuginfo=2", "-Clink-arg=--btf"];
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env_remove("RUSTFLAGS");
        toolchain.apply(&mut cargo)?;
        cmd::run(&mut cargo)?;
        let built = target.join("bpfel-unknown-none/release");
        copy_if_changed(&built.join("plumbline-cuda"), &workspace::cuda_object())?;
        copy_if_changed(&built.join("plumbline-bpf"), &workspace::bpf_object())
    }

    fn daemon(self) -> Result<()> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace::root()).args(["build", "--package", "plumbline", "--package", "plumbline-audit"]);
        if self.release {
            cargo.arg("--release");
        }
        if self.trace {
            cargo.args(["--features", "plumbline/trace"]);
        }
        cmd::run(&mut cargo)
    }
}

/// Leaves an equal file alone, time stamp included, so that cargo does not rebuild what embeds it.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).map_err(Error::file("read", from))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let dir = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    fs::write(to, new).map_err(Error::file("write", to))
}
