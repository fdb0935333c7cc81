//! Which GPU a process means by its own number of a device: what its driver told it, and else where NVML has it.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{caller, ensure, equal, library, not_ok, skipped};
use crate::{
    caller::Caller,
    checks::Ended,
    daemon::{Daemon, Tools},
};

/// As NVML of `h100-pair.yaml` calls them.
const FIRST: &str = "GPU-5eed0000-0000-4000-8000-000000000000";
const SECOND: &str = "GPU-5eed0000-0000-4000-8000-000000000001";
/// What NVML does not list has no more than its octets.
const UNLISTED: &str = "5eed0000-0000-4000-8000-000000000007";

pub(super) fn a_device_is_the_gpu_that_somebody_says(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(nvml) = &tools.fake_nvml else { return Err(skipped("libfake_nvml.so is not built")) };
    let path = tools.beside("cuda-caller").ok_or_else(|| skipped("cuda-caller is not built"))?;
    let library = library(tools, "libfake_cuda.so", scratch.join("libcuda.so.1"))?;
    // Its first device is the node's second GPU, and its third is of another node.
    let visible = [("CUDA_VISIBLE_DEVICES", "1,0,7")];
    let mut asking = Caller::start_with("cuda-caller", &path, &library, &visible)?;
    let mut silent = caller(tools, "cuda-caller", &library)?;
    let mut spread = caller(tools, "cuda-caller", &library)?;

    let scenario = scratch.join("scenario.yaml");
    let text = fs::read_to_string(tools.scripts.join("fake-nvml/scenarios/h100-pair.yaml")).map_err(not_ok)?;
    let on = |pid: u32| format!("{{ pid: {pid}, memory_bytes: 1048576 }}");
    let processes = [format!("{}, {}", on(silent.pid()), on(spread.pid())), on(spread.pid())];
    let mut gpus = text.split("      - at_s: 0\n");
    let head = gpus.next().unwrap_or_default().to_owned();
    let text = gpus.zip(processes).fold(head, |text, (gpu, processes)| {
        text + &format!("      - at_s: 0\n        processes: [{processes}]\n") + gpu
    });
    fs::write(&scenario, text).map_err(not_ok)?;
    let config = format!(
        "gpu: {{library: {}, full_interval_seconds: 1}}\nengines: {{discover: false}}\ncuda: {{detail: sync, budget_percent: 100}}\n",
        nvml.display()
    );
    let scenario = scenario.display().to_string();
    let daemon = Daemon::start_with(tools, scratch, &config, &[("FAKE_NVML_SCENARIO", &scenario)]).map_err(not_ok)?;
    let watched = "plumbline_cuda_watched_seconds_total{part=\"rest\"}";
    daemon.wait_for(watched, |seconds| seconds > 0.5).map_err(not_ok)?;

    asking.call("cuDeviceGetUuid_v2 1 0", "0")?;
    asking.call("cuDeviceGetUuid_v2 1 2", "0")?;
    // Of which it is told nothing.
    asking.call("cuDeviceGetUuid_v2 1 3", "101")?;
    // Of one that it does not use, nobody says that it has it.
    asking.call("cuDeviceGetUuid_v2 1 1", "0")?;
    for device in [2, 0] {
        asking.call(&format!("cuCtxCreate_v2 1 {device}"), "0")?;
        asking.call("cuGraphLaunch 5", "0")?;
    }
    silent.call("cuGraphLaunch 5", "0")?;
    silent.call("cuCtxCreate_v2 1 0", "0")?;
    silent.call("cuGraphLaunch 5", "0")?;
    spread.call("cuGraphLaunch 5", "0")?;

    let info = |caller: &Caller, device: &str, uuid: &str, source: &str| {
        let labels = format!("device=\"{device}\",UUID=\"{uuid}\",GPU_I_ID=\"\",source=\"{source}\"");
        caller.line("plumbline_cuda_device_info", &labels)
    };
    for series in [
        info(&asking, "0", SECOND, "driver"),
        info(&asking, "2", UNLISTED, "driver"),
        info(&silent, "0", FIRST, "processes"),
        info(&silent, "unknown", FIRST, "processes"),
        // And this it has called by now.
        spread.line("plumbline_cuda_calls_total", "device=\"unknown\",call=\"graph_launch\""),
    ] {
        daemon.wait_for(&series, |value| value > 0.5).map_err(not_ok)?;
    }
    let page = daemon.metrics().map_err(not_ok)?;
    let infos: Vec<&str> = page.lines().filter(|line| line.starts_with("plumbline_cuda_device_info{")).collect();
    ensure(infos.len() == 4, || infos.join("\n"))?;

    // What goes wrong is of these GPUs.
    for (caller, gpus) in [(&mut asking, json!([UNLISTED, SECOND])), (&mut silent, json!([FIRST]))] {
        caller.call("cuMemAlloc_v2 1 999999999999999", "2")?;
        let pid = caller.pid();
        let is_its = |record: &Value| {
            let own = &record["unmapped"]["plumbline"];
            let is_allocation = record["message"].as_str().is_some_and(|text| text.contains("allocate of"));
            is_allocation && own["process"]["pid"] == pid
        };
        let failure = daemon.wait_for_record("the failure", is_its).map_err(not_ok)?;
        equal("on which", &failure["unmapped"]["plumbline"]["gpus"], gpus)?;
    }
    Ok(())
}
