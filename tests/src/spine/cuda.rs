//! Calls of CUDA's driver, of a library with its interface and nothing behind it: what is called so often is counted as often.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{caller::Caller, ensure, not_ok, skipped};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools},
};

/// The start of a line of the page.
fn line(caller: &Caller, series: &str, device: &str, more: &str) -> String {
    caller.line(&format!("plumbline_cuda_{series}"), &format!("device=\"{device}\"{more}"))
}

pub(super) fn calls_are_counted_exactly(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let built = tools.beside("libfake_cuda.so").ok_or_else(|| skipped("libfake_cuda.so is not built"))?;
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let library = scratch.join("libcuda.so.1");
    fs::copy(&built, &library).map_err(not_ok)?;
    let mut one = Caller::start(tools, "cuda-caller", &library)?;
    let mut other = Caller::start(tools, "cuda-caller", &library)?;
    let config = "gpu: {enabled: false}\nengines: {discover: false}\ncuda: {detail: full}\n";
    let daemon = Daemon::start(tools, scratch, config).map_err(not_ok)?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", library.display());
    daemon.wait_for(&probed, |functions| functions > 15.0).map_err(not_ok)?;

    one.call("cuCtxCreate_v2 1 3", "0")?;
    one.call("cuLaunchKernel 10000", "0")?;
    one.call("cuLaunchKernel_ptsz 7", "0")?;
    one.call("cuMemAlloc_v2 3 4096", "0")?;
    one.call("cuMemFree_v2 1", "0")?;
    one.call("cuStreamSynchronize 3 20000", "0")?;
    one.call("cuMemAlloc_v2 2 999999999999999", "2")?;
    one.call("cuMemcpyHtoDAsync_v2 4 1000", "0")?;
    one.call("cuMemcpyPeerAsync 1 77", "0")?;
    // What is freed was of the device on which it was allocated, wherever the thread works by now; and it is freed once.
    one.call("cuCtxCreate_v2 1 4", "0")?;
    one.call("cuMemFree_v2 1", "0")?;
    other.call("cuGraphLaunch 5", "0")?;
    // The primary context of a device, which the runtime takes, and which is the thread's once it is set.
    other.call("cuDevicePrimaryCtxRetain 1 6", "0")?;
    other.call("cuCtxSetCurrent", "0")?;
    other.call("cuGraphLaunch 500", "0")?;
    other.call("cuMemCreate 1 1048576", "0")?;

    for (series, expected) in [
        (line(&one, "calls_total", "3", ",call=\"launch\""), 10_007.0),
        (line(&one, "calls_total", "3", ",call=\"allocate\""), 5.0),
        (line(&one, "failures_total", "3", ",call=\"allocate\",result=\"out_of_memory\""), 2.0),
        (line(&one, "allocated_bytes", "3", ""), 4096.0),
        (line(&one, "copied_bytes_total", "3", ",direction=\"host_to_device\""), 4000.0),
        (line(&one, "copied_bytes_total", "3", ",direction=\"peer\""), 77.0),
        (line(&one, "wait_seconds_count", "3", ",call=\"stream_synchronize\""), 3.0),
        (line(&other, "calls_total", "unknown", ",call=\"graph_launch\""), 5.0),
        (line(&other, "calls_total", "6", ",call=\"graph_launch\""), 500.0),
        (line(&other, "allocated_bytes", "6", ""), 1_048_576.0),
        ("plumbline_cuda_lost_total{what=\"calls\"}".to_owned(), 0.0),
        ("plumbline_cuda_lost_total{what=\"in_flight\"}".to_owned(), 0.0),
    ] {
        daemon.wait_for(&series, |found| (found - expected).abs() < 0.5).map_err(not_ok)?;
    }
    let waited = line(&one, "wait_seconds_sum", "3", ",call=\"stream_synchronize\"");
    daemon.wait_for(&waited, |seconds| (0.06..1.0).contains(&seconds)).map_err(not_ok)?;

    // The file is replaced under them: who has the old one is counted on, and who has the new one too.
    fs::remove_file(&library).and_then(|()| fs::copy(&built, &library)).map_err(not_ok)?;
    let mut later = Caller::start(tools, "cuda-caller", &library)?;
    let functions = daemon.metric(&probed).map_err(not_ok)?.unwrap_or_default();
    let is_twice = |now: f64| (now - 2.0 * functions).abs() < 0.5;
    daemon.wait_for(&probed, is_twice).map_err(not_ok)?;
    later.call("cuGraphLaunch 11", "0")?;
    other.call("cuGraphLaunch 1", "0")?;
    let counted = |caller: &Caller, device: &str| line(caller, "calls_total", device, ",call=\"graph_launch\"");
    daemon.wait_for(&counted(&later, "unknown"), |calls| (calls - 11.0).abs() < 0.5).map_err(not_ok)?;
    daemon.wait_for(&counted(&other, "6"), |calls| (calls - 501.0).abs() < 0.5).map_err(not_ok)?;

    // When those with the old one are gone, so is what was attached to it, and what was counted of them.
    let gone = line(&one, "calls_total", "3", ",call=\"launch\"");
    drop((one, other));
    daemon.wait_for(&probed, |now| (now - functions).abs() < 0.5).map_err(not_ok)?;
    // They are told once more when they have ended.
    let deadline = Instant::now() + Duration::from_secs(20);
    while daemon.metric(&gone).map_err(not_ok)?.is_some() {
        ensure(Instant::now() < deadline, || format!("{gone} is still there"))?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
