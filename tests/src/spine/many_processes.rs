//! As many processes with CUDA's driver as no node has.

use std::{path::Path, time::Duration};

use super::{QUIET, caller, ensure, library, nccl::is, not_ok, wait_until};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools},
};

const PROCESSES: usize = 10_000;

/// Until the next sample, which must not say more.
const MORE: Duration = Duration::from_secs(6);

/// Of the daemon, in all; a small part of it is of CUDA's.
const MOST_KIB: u64 = 1 << 20;

pub(super) fn ten_thousand_are_counted(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let libcuda = library(tools, "libfake_cuda.so", scratch.join("libcuda.so.1"))?;
    let mut caller = caller(tools, "cuda-caller", &libcuda)?;
    let config = format!("{QUIET}cuda: {{budget_percent: 100}}\n");
    let daemon = Daemon::start(tools, scratch, &config).map_err(not_ok)?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", libcuda.display());
    daemon.wait_for(&probed, |functions| functions > 10.0).map_err(not_ok)?;
    caller.call(&format!("fork {PROCESSES} cuGraphLaunch 3"), "0")?;

    // Those beyond the thousand that a series has lines for are added up in one.
    let sum = || -> Option<f64> {
        let page = daemon.metrics().ok()?;
        let lines = page.lines().filter(|line| line.starts_with("plumbline_cuda_calls_total{"));
        lines.map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let all = 3.0 * PROCESSES as f64;
    wait_until(|| sum().is_some_and(|sum| sum >= all), "a count of all")?;
    std::thread::sleep(MORE);
    ensure(sum().is_some_and(is(all)), || format!("{:?} calls are counted and not {all}", sum()))?;
    for what in ["calls", "in_flight", "records"] {
        daemon.wait_for(&format!("plumbline_cuda_lost_total{{what=\"{what}\"}}"), is(0.0)).map_err(not_ok)?;
    }
    let kib = daemon.resident_kib().map_err(not_ok)?;
    ensure(kib < MOST_KIB, || format!("the daemon has {kib} KiB of memory"))?;

    // They end, and nothing of them is left.
    drop(caller);
    wait_until(|| sum().is_some_and(is(0.0)), "processes that are forgotten")
}
