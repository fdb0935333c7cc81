//! Calls of CUDA's driver, of a library with its interface and nothing behind it: what is called so often is counted as often.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{QUIET, caller, ensure, library, not_ok, wait_until};
use crate::{
    caller::Caller,
    checks::Ended,
    daemon::{Daemon, Tools, post, run},
};

const FAKE: &str = "libfake_cuda.so";
const TOKEN: &str = "0123456789abcdef";

/// The file of the token, which nobody else may read.
fn token(scratch: &Path) -> Result<PathBuf, Ended> {
    let token = scratch.join("token");
    let written = fs::write(&token, TOKEN).and_then(|()| fs::set_permissions(&token, Permissions::from_mode(0o600)));
    written.map(|()| token).map_err(not_ok)
}

/// The start of a line of the page.
fn line(caller: &Caller, series: &str, device: &str, more: &str) -> String {
    caller.line(&format!("plumbline_cuda_{series}"), &format!("device=\"{device}\"{more}"))
}

pub(super) fn calls_are_counted_exactly(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let library = library(tools, FAKE, scratch.join("libcuda.so.1"))?;
    let mut one = caller(tools, "cuda-caller", &library)?;
    let mut other = caller(tools, "cuda-caller", &library)?;
    let config = "gpu: {enabled: false}\nengines: {discover: false}\ncuda: {detail: full, budget_percent: 100}\n";
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
    // What a thread called that has ended since is counted, and stays so.
    other.call("thread cuGraphLaunch 40", "0")?;
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
        (line(&other, "calls_total", "unknown", ",call=\"graph_launch\""), 45.0),
        (line(&other, "calls_total", "6", ",call=\"graph_launch\""), 500.0),
        (line(&other, "allocated_bytes", "6", ""), 1_048_576.0),
        ("plumbline_cuda_lost_total{what=\"calls\"}".to_owned(), 0.0),
        ("plumbline_cuda_lost_total{what=\"in_flight\"}".to_owned(), 0.0),
    ] {
        daemon.wait_for(&series, |found| (found - expected).abs() < 0.5).map_err(not_ok)?;
    }
    let is_failure = |record: &Value| record["finding_info"]["types"] == json!(["cuda.failure"]);
    let failure = daemon.wait_for_record("the failure", is_failure).map_err(not_ok)?.to_string();
    let text = "allocate of 999999999999999 bytes failed on its device 3: out_of_memory";
    ensure(failure.contains(text), || failure.clone())?;
    let waited = line(&one, "wait_seconds_sum", "3", ",call=\"stream_synchronize\"");
    daemon.wait_for(&waited, |seconds| (0.06..1.0).contains(&seconds)).map_err(not_ok)?;

    // The file is replaced under them: who has the old one is counted on, and who has the new one too.
    fs::remove_file(&library).map_err(not_ok)?;
    let library = super::library(tools, FAKE, library)?;
    let mut later = caller(tools, "cuda-caller", &library)?;
    let functions = daemon.metric(&probed).map_err(not_ok)?.unwrap_or_default();
    let is_twice = |now: f64| (now - 2.0 * functions).abs() < 0.5;
    daemon.wait_for(&probed, is_twice).map_err(not_ok)?;
    later.call("cuGraphLaunch 11", "0")?;
    other.call("cuGraphLaunch 1", "0")?;
    let counted = |caller: &Caller, device: &str| line(caller, "calls_total", device, ",call=\"graph_launch\"");
    daemon.wait_for(&counted(&later, "unknown"), |calls| (calls - 11.0).abs() < 0.5).map_err(not_ok)?;
    daemon.wait_for(&counted(&other, "6"), |calls| (calls - 501.0).abs() < 0.5).map_err(not_ok)?;

    let of_threads = daemon.metric(&counted(&other, "unknown")).map_err(not_ok)?;
    ensure(of_threads == Some(45.0), || format!("{of_threads:?} of threads that have ended"))?;

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

/// What is called a second and a half after it was loaded; it is looked for every five seconds alone where the kernel does not tell. Four
/// times, so that it is not by chance.
pub(super) fn a_library_is_looked_at_soon_after_it_is_loaded(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let place = |turn: u32| {
        let directory = scratch.join(turn.to_string());
        fs::create_dir_all(&directory).map_err(not_ok)?;
        library(tools, FAKE, directory.join("libcuda.so.1"))
    };
    // The first has the programs loaded.
    let _first = caller(tools, "cuda-caller", &place(0)?)?;
    let daemon = Daemon::start(tools, scratch, &format!("{QUIET}cuda: {{detail: full, budget_percent: 100}}\n"))
        .map_err(not_ok)?;
    daemon
        .wait_for("plumbline_cuda_watched_seconds_total{part=\"launches\"}", |seconds| seconds > 2.0)
        .map_err(not_ok)?;
    for turn in 1..5 {
        let mut caller = caller(tools, "cuda-caller", &place(turn)?)?;
        std::thread::sleep(Duration::from_millis(1500));
        caller.call("cuLaunchKernel 77", "0")?;
        let series = line(&caller, "calls_total", "unknown", ",call=\"launch\"");
        daemon.wait_for(&series, |calls| (calls - 77.0).abs() < 0.5).map_err(not_ok)?;
    }
    Ok(())
}

/// The script that compares a real driver's calls with the page (`cargo xtask gpu-e2e`), with the library that has nothing behind it.
pub(super) fn the_script_for_real_drivers_compares(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let library = library(tools, FAKE, scratch.join("libcuda.so.1"))?;
    let daemon = Daemon::start(tools, scratch, &format!("{QUIET}cuda: {{detail: full, budget_percent: 100}}\n"));
    let daemon = daemon.map_err(not_ok)?;
    let python = tools.python.clone().unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg(tools.scripts.join("gpu_calls.py")).arg(format!("http://{}/metrics", daemon.address));
    let output = run(command.arg("--libcuda").arg(&library)).map_err(not_ok)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.success() && said.ends_with("\n12 same, 0 DIFFERS\n"), || said.clone().into_owned())
}

/// Launches are counted while somebody traces a process, and not after that.
pub(super) fn a_process_is_traced_for_a_while(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let library = library(tools, FAKE, scratch.join("libcuda.so.1"))?;
    let token = token(scratch)?;
    let mut neighbour = caller(tools, "cuda-caller", &library)?;
    let mut caller = caller(tools, "cuda-caller", &library)?;
    let config = format!("{QUIET}cuda: {{budget_percent: 100}}\nincident: {{token_file: {}}}\n", token.display());
    let daemon = Daemon::start(tools, scratch, &config).map_err(not_ok)?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", library.display());
    let few = daemon.wait_for(&probed, |functions| functions > 10.0).map_err(not_ok)?;
    let activity = scratch.join("activity.log");
    fs::write(&activity, "").map_err(not_ok)?;
    let trace = |pid: u32, span: &str| {
        let mut command = Command::new(&tools.plumbline);
        command.args(["trace", "--pid", &pid.to_string(), "--for", span, "--activity"]).arg(&activity);
        command.arg("--config").arg(scratch.join("config.yaml")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(not_ok)
    };
    let said = |child: Child| child.wait_with_output().map_err(not_ok);
    let traced = trace(caller.pid(), "17s")?;
    daemon.wait_for(&probed, |functions| functions > few).map_err(not_ok)?;
    // As NCCL Inspector, in the process, would write it.
    let inspected =
        "{\"coll_perf\": {\"coll\": \"AllReduce\", \"coll_msg_size_bytes\": 4096, \"coll_exec_time_us\": 250}}\n";
    fs::write(&activity, inspected.repeat(3)).map_err(not_ok)?;
    for _ in 0..40 {
        caller.call("cuLaunchKernel 50", "0")?;
        neighbour.call("cuLaunchKernel 50", "0")?;
        std::thread::sleep(Duration::from_millis(200));
    }
    // A second one would end the first.
    let second = said(trace(neighbour.pid(), "10s")?)?;
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure(!second.status.success() && why.contains("another process is traced"), || why.clone())?;
    let traced = said(traced)?;
    let text = String::from_utf8_lossy(&traced.stdout);
    ensure(traced.status.success() && text.contains(" /s  launch, device unknown\n"), || format!("{text:?}"))?;
    ensure(text.contains("collective AllReduce: 3 times 250.0 us, 12288 bytes"), || format!("{text:?}"))?;
    // All of the one, and nothing of its neighbour.
    let launches = |caller: &Caller| line(caller, "calls_total", "unknown", ",call=\"launch\"");
    daemon.wait_for(&launches(&caller), |launches| (launches - 2000.0).abs() < 0.5).map_err(not_ok)?;
    let found = daemon.metric(&launches(&neighbour)).map_err(not_ok)?;
    ensure(found.is_none(), || format!("{found:?} launches of a process that is not traced"))?;
    // It is as before, by itself.
    daemon.wait_for(&probed, |functions| (functions - few).abs() < 0.5).map_err(not_ok)?;
    let over = |record: &Value| record.to_string().contains(" as for all, as its time is over");
    daemon.wait_for_record("that its time is over", over).map_err(not_ok)?;

    let wrong = said(trace(caller.pid(), "2s")?)?;
    let why = String::from_utf8_lossy(&wrong.stderr).into_owned();
    ensure(!wrong.status.success() && why.contains("expected 10s to 1h"), || why.clone())
}

/// What the driver's first instructions cost here is far above what 50 000 launches may cost one process.
pub(super) fn probes_are_kept_within_their_budget(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let library = library(tools, FAKE, scratch.join("libcuda.so.1"))?;
    let token = token(scratch)?;
    let mut caller = caller(tools, "cuda-caller", &library)?;
    let config = format!("{QUIET}cuda: {{detail: full}}\nincident: {{token_file: {}}}\n", token.display());
    let daemon = Daemon::start(tools, scratch, &config).map_err(not_ok)?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", library.display());
    let all = daemon.wait_for(&probed, |functions| functions > 15.0).map_err(not_ok)?;
    let thinned = |part: &str| format!("plumbline_cuda_thinned{{part=\"{part}\"}}");
    let stays = |part: &str| daemon.wait_for(&thinned(part), |is| is < 0.5).map(drop).map_err(not_ok);
    ["launches", "steps", "rest"].into_iter().try_for_each(stays)?;

    // A few do no harm, many do, and then the launches are not looked at, and all else is.
    let deadline = Instant::now() + Duration::from_secs(60);
    while daemon.metric(&thinned("launches")).map_err(not_ok)? != Some(1.0) {
        ensure(Instant::now() < deadline, || "launches that cost too much are looked at".to_owned())?;
        caller.call("cuLaunchKernel 50000", "0")?;
    }
    ["steps", "rest"].into_iter().try_for_each(stays)?;
    daemon.wait_for(&probed, |functions| functions > 0.0 && functions < all).map_err(not_ok)?;
    let finding = |kind: &'static str| move |record: &Value| record["finding_info"]["types"] == json!([kind]);
    let said = daemon.wait_for_record("what was given up", finding("probes.budget")).map_err(not_ok)?;
    let said = said.to_string();
    ensure(said.contains("launches looked at for 1 s of each minute"), || said.clone())?;
    caller.call("cuGraphLaunch 3", "0")?;
    let graphs = line(&caller, "calls_total", "unknown", ",call=\"graph_launch\"");
    daemon.wait_for(&graphs, |calls| (calls - 3.0).abs() < 0.5).map_err(not_ok)?;
    let spent = caller.line("plumbline_cuda_probe_seconds_total", "").replace(",}", "}");
    daemon.wait_for(&spent, |seconds| seconds > 0.005).map_err(not_ok)?;

    // By command; who has no token says nothing.
    let post = |authorization: &str, body: &str| post(daemon.address, "/api/v1/probes/cuda", authorization, body);
    let wants = |answer: Result<String, String>, status: &str| {
        let said = answer.err().unwrap_or_default();
        ensure(said.contains(status), || format!("{said:?} instead of {status}"))
    };
    wants(post("Bearer wrong", "{\"detail\": \"off\"}"), "401")?;
    wants(post(&format!("Bearer {TOKEN}"), "{\"detail\": \"most\"}"), "400")?;
    let probes = |more: &[&str]| {
        let mut command = Command::new(&tools.plumbline);
        command.args(["probes", "cuda"]).args(more).arg("--config").arg(scratch.join("config.yaml"));
        let output = run(&mut command).map_err(not_ok)?;
        Ok::<_, Ended>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let shown = probes(&[])?;
    ensure(shown.starts_with("cuda: full\nlaunches: for 1 s of each minute"), || shown.clone())?;
    probes(&["off"])?;
    let gone = || daemon.metrics().is_ok_and(|page| !page.contains("plumbline_cuda_probed_functions{"));
    wait_until(gone, "nothing is looked at")?;
    probes(&["full"])?;
    daemon.wait_for(&probed, |functions| (functions - all).abs() < 0.5).map_err(not_ok)?;
    let ordered = daemon.wait_for_record("the order", finding("probes.detail")).map_err(not_ok)?.to_string();
    ensure(ordered.contains("`off` was `full`, by command"), || ordered.clone())?;

    // The kernel takes its time to take probes away; nothing is counted meanwhile.
    let launches = line(&caller, "calls_total", "unknown", ",call=\"launch\"");
    caller.call("cuLaunchKernel 10", "0")?;
    daemon.wait_for(&launches, |calls| (calls - 10.0).abs() < 0.5).map_err(not_ok)?;
    probes(&["sync"])?;
    daemon.wait_for(&probed, |functions| functions < all).map_err(not_ok)?;
    caller.call("cuLaunchKernel 500", "0")?;
    probes(&["full"])?;
    daemon.wait_for(&probed, |functions| (functions - all).abs() < 0.5).map_err(not_ok)?;
    caller.call("cuLaunchKernel 1", "0")?;
    daemon.wait_for(&launches, |calls| calls > 10.5).map_err(not_ok)?;
    let found = daemon.metric(&launches).map_err(not_ok)?;
    ensure(found == Some(11.0), || format!("{found:?} launches, of which 500 were not to be counted"))
}
