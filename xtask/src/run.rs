//! `cargo xtask run`: build, then become the daemon, as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use clap::Args;

use crate::build::Build;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::privilege;

/// Build the daemon and run it as root.
///
/// Everything is built as the user; only the daemon is elevated, with `sudo` where needed.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask run\n  cargo xtask run --release -- --listen 127.0.0.1:9500\n  cargo xtask run --trace"
)]
pub(crate) struct Run {
    /// Optimise the daemon.
    #[arg(long)]
    release: bool,
    /// Add log lines inside the kernel programs.
    #[arg(long)]
    trace: bool,
    /// Arguments of `plumbline run`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Run {
    /// Does not return if all goes well: this process becomes the daemon, so that signals reach it.
    pub(crate) fn run(&self, cache: &Cache) -> Result<()> {
        let build = Build { release: self.release, trace: self.trace, bpf_only: false };
        build.run(cache)?;
        let binary = build.binary();
        let mut daemon = privilege::elevated(&binary)?;
        let source = daemon.arg("run").args(&self.arguments).exec();
        Err(Error::Start { program: binary.display().to_string(), source })
    }
}
