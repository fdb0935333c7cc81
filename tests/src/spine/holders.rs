//! Which container has which GPU: a kubelet's socket served by Google's gRPC (`tests/pod_resources.py`), and a process in a
//! pod's cgroup.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{ensure, equal, not_ok, pods::Cgroup, skipped};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools, run, run_with},
};

/// As NVML of `a100-mig.yaml` calls them: the GPU that is not divided, and an instance of the other.
const WHOLE: &str = "GPU-5eed0000-0000-4000-8000-0000000000b0";
const INSTANCE: &str = "MIG-5eed0000-0000-4000-8000-0000000000a3";

pub(super) fn who_has_which_gpu_is_told(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(library) = &tools.fake_nvml else { return Err(skipped("libfake_nvml.so is not built")) };
    let (Some(promtool), Some(python)) = (&tools.promtool, &tools.python) else {
        return Err(skipped("no promtool or Python (PLUMBLINE_PROMTOOL, PLUMBLINE_PYTHON)"));
    };
    let cgroup = Cgroup::make()?;
    let logs = cgroup.logs(&scratch.join("log"))?;
    let process = cgroup.runs(Command::new("sleep").arg("600"))?;
    let scenario = scratch.join("scenario.yaml");
    let text = fs::read_to_string(tools.scripts.join("fake-nvml/scenarios/a100-mig.yaml")).map_err(not_ok)?;
    let text = text.replace("4444", &process.0.id().to_string()) + "events: [{ at_s: 8, gpu: 1, xid: 48 }]\n";
    fs::write(&scenario, text).map_err(not_ok)?;
    let kubelet = Kubelet::start(python, tools, &scratch.join("kubelet"))?;
    let config = format!(
        "gpu: {{library: {}}}\nengines: {{discover: false}}\nkubelet: {{log_dir: {}, pod_resources: {{socket: {}}}}}\n",
        library.display(),
        logs.display(),
        kubelet.socket.display()
    );
    let scenario = scenario.display().to_string();
    let daemon = Daemon::start_with(tools, scratch, &config, &[("FAKE_NVML_SCENARIO", &scenario)]).map_err(not_ok)?;

    let has = |pod: &str, part: &str, source: &str| {
        format!(
            "plumbline_gpu_pod_info{{UUID=\"{}\",gpu=\"{}\",simulated=\"true\",GPU_I_ID=\"{part}\",pod=\"{pod}\",namespace=\"serving\",container=\"engine\",source=\"{source}\"}}",
            if part.is_empty() { WHOLE } else { "GPU-5eed0000-0000-4000-8000-0000000000a0" },
            if part.is_empty() { "1" } else { "0" },
        )
    };
    let is_one = |one: f64| (one - 1.0).abs() < 1e-9;
    // Its process runs there, the kubelet gave it; another pod was given the instance, and one has what is not here.
    for series in [
        has("vllm-0", "", "processes"),
        has("vllm-0", "", "kubelet"),
        has("small-0", "11", "kubelet"),
        "plumbline_gpu_unknown_allocations".to_owned(),
    ] {
        daemon.wait_for(&series, is_one).map_err(not_ok)?;
    }
    let of_process = format!("type=\"compute\",pid=\"{}\",process=\"sleep\",pod=\"vllm-0\"", process.0.id());
    let of_dashboard = format!("DCGM_FI_DEV_GPU_UTIL{{gpu=\"1\",UUID=\"{WHOLE}\"");
    let page = settled(&daemon, &of_dashboard, "pod=\"vllm-0\",namespace=\"serving\",container=\"engine\"")?;
    ensure(page.contains(&of_process), || format!("no {of_process}"))?;
    let said = run_with(Command::new(promtool).args(["check", "metrics"]), page.as_bytes()).map_err(not_ok)?;
    ensure(said.status.success() && said.stderr.is_empty(), || String::from_utf8_lossy(&said.stderr).into_owned())?;
    until("`plumbline gpu` says who has it", || {
        let mut shown = Command::new(&tools.plumbline);
        let shown = run(shown.args(["gpu", "--listen", &daemon.address.to_string()])).map_err(not_ok)?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        Ok(shown.contains("held by serving/vllm-0/engine (kubelet)").then_some(()))
    })?;

    // An error says whose GPU it was, also where the kernel names no process.
    let is_xid = |record: &Value| record["finding_info"]["types"] == json!(["gpu.xid"]);
    let record = daemon.wait_for_record("the double-bit error", is_xid).map_err(not_ok)?;
    let holder =
        |told_by: &str| json!({ "namespace": "serving", "pod": "vllm-0", "container": "engine", "told_by": told_by });
    equal("who had it", &record["unmapped"]["plumbline"]["holders"], json!([holder("kubelet"), holder("processes")]))?;

    // What nobody says any more is not told.
    drop(kubelet);
    let up = "plumbline_source_up{source=\"kubelet:pod-resources\"}";
    daemon.wait_for(up, |up| up.abs() < 1e-9).map_err(not_ok)?;
    let page = daemon.metrics().map_err(not_ok)?;
    ensure(!page.contains(&has("vllm-0", "", "kubelet")), || "the kubelet's word outlives it".to_owned())?;
    ensure(page.contains(&has("vllm-0", "", "processes")), || "the process is forgotten".to_owned())
}

/// The page, once the line that begins so has this in it.
fn settled(daemon: &Daemon, line: &str, part: &str) -> Result<String, Ended> {
    until(&format!("{line} with {part}"), || {
        let page = daemon.metrics().map_err(not_ok)?;
        let is_there = page.lines().any(|of_page| of_page.starts_with(line) && of_page.contains(part));
        Ok(is_there.then_some(page))
    })
}

fn until<T>(what: &str, look: impl Fn() -> Result<Option<T>, Ended>) -> Result<T, Ended> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        ensure(Instant::now() < deadline, || format!("not seen: {what}"))?;
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The socket in Python.
struct Kubelet {
    child: Child,
    socket: PathBuf,
}

impl Kubelet {
    fn start(python: &Path, tools: &Tools, dir: &Path) -> Result<Self, Ended> {
        fs::create_dir_all(dir).map_err(not_ok)?;
        let given = |pod: &str, resource: &str, ids: &[&str]| {
            let devices =
                json!([{ "resource_name": resource, "device_ids": ids, "topology": { "nodes": [{ "ID": 1 }] } }]);
            json!({ "namespace": "serving", "name": pod, "containers": [{ "name": "engine", "devices": devices, "cpu_ids": [1, 2] }] })
        };
        let pods = Value::from(vec![
            given("vllm-0", "nvidia.com/gpu", &[WHOLE]),
            given("small-0", "nvidia.com/mig-1g.10gb", &[INSTANCE]),
            given("elsewhere", "nvidia.com/gpu", &["GPU-of-another-node"]),
        ]);
        fs::write(dir.join("pods.json"), pods.to_string()).map_err(not_ok)?;
        let (socket, log) = (dir.join("kubelet.sock"), fs::File::create(dir.join("log")).map_err(not_ok)?);
        let mut command = Command::new(python);
        command.arg(tools.scripts.join("pod_resources.py")).arg("--socket").arg(&socket);
        command.arg("--pods").arg(dir.join("pods.json")).stdin(Stdio::null()).stderr(log);
        let kubelet = Self { child: command.spawn().map_err(not_ok)?, socket };
        until("the kubelet's socket", || Ok(kubelet.socket.exists().then_some(())))?;
        Ok(kubelet)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
