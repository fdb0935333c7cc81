//! `cargo xtask gpu-e2e`: the daemon on this machine's GPUs, beside nvidia-smi and a caller of CUDA.

use std::path::PathBuf;

use clap::Args;

use crate::build::Build;
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};
use crate::privilege;
use crate::workspace;

/// Read this machine's GPUs beside nvidia-smi and compare value by value; call CUDA and compare call by call.
///
/// Unattended, as root, in about four minutes. Keeps the page of metrics, `nvidia-smi -q` and the comparisons, with what the
/// probes cost a loop of graph launches. With PyTorch for `python3`, its launches are compared with its own profiler, and a
/// communicator of one rank with NCCL's log. Without a GPU it says so and is not a failure.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask gpu-e2e\n  cargo xtask gpu-e2e --out tests/fixtures/h100/e2e")]
pub(crate) struct GpuE2e {
    /// Where what was seen is kept.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What the script ends with when there is no GPU.
const NOT_RUN: i32 = 77;

impl GpuE2e {
    /// Whether nothing differed.
    pub(crate) fn run(&self, cache: &Cache) -> Result<bool> {
        let build = Build { release: true, ..Build::default() };
        build.run(cache)?;
        let out = self.out.clone().unwrap_or_else(|| workspace::target().join("gpu-e2e"));
        let mut script = privilege::elevated(&workspace::root().join("tests/gpu_e2e.sh"))?;
        script.arg(build.binary()).arg(&out);
        let line = cmd::line(&script);
        let status = script.status().map_err(|source| Error::Start { program: line, source })?;
        if status.success() {
            println!("kept in {}", out.display());
        }
        Ok(status.success() || status.code() == Some(NOT_RUN))
    }
}
