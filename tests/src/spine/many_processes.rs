//! As many processes with CUDA's driver as no node has, and one that has another's number.

use std::{fs, path::Path, time::Duration};

use super::{QUIET, caller, ensure, library, nccl::is, not_ok, skipped, wait_until};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools},
};

const PROCESSES: usize = 10_000;

/// Until the next sample, which must not say more.
const MORE: Duration = Duration::from_secs(6);

/// Of the daemon, in all; a small part of it is of CUDA's.
const MOST_KIB: u64 = 512 << 10;

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
        // Whose sample failed has none of these.
        let _ = page.lines().find(|line| line.starts_with("plumbline_cuda_watched_seconds_total{"))?;
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

/// Where the kernel is told which number it gave last (proc_sys_kernel(5)).
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

pub(super) fn a_number_that_is_used_again_is_another_process(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let libcuda = library(tools, "libfake_cuda.so", scratch.join("libcuda.so.1"))?;
    let start = || caller(tools, "cuda-caller", &libcuda);
    let mut first = start()?;
    let daemon = Daemon::start(tools, scratch, QUIET).map_err(not_ok)?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", libcuda.display());
    daemon.wait_for(&probed, |functions| functions > 10.0).map_err(not_ok)?;
    let pid = first.pid();
    let counted = first.line("plumbline_cuda_calls_total", "device=\"unknown\",call=\"graph_launch\"");
    first.call("cuGraphLaunch 5", "0")?;
    daemon.wait_for(&counted, is(5.0)).map_err(not_ok)?;
    // As soon as it has ended, so that its thread is still in the tables.
    drop(first);
    let mut again = None;
    for _ in 0..50 {
        if fs::write(LAST_PID, (pid - 1).to_string()).is_err() {
            return Err(skipped("the next process's number cannot be chosen here"));
        }
        let other = start()?;
        if other.pid() == pid {
            again = Some(other);
            break;
        }
    }
    let Some(mut again) = again else { return Err(skipped("other processes took the number each time")) };
    again.call("cuGraphLaunch 7", "0")?;
    daemon.wait_for(&counted, is(7.0)).map_err(not_ok)?;
    std::thread::sleep(MORE);
    let found = daemon.metric(&counted).map_err(not_ok)?;
    ensure(found == Some(7.0), || format!("{found:?} launches of a process that made 7"))
}
