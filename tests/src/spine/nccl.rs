//! Ranks of a communicator, of a library with NCCL's interface and nothing behind it: which rank is who, what goes through, who came last.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::{QUIET, caller, ensure, library, not_ok, skipped, wait_until};
use crate::{
    caller::{COMM, Caller},
    checks::Ended,
    daemon::{Daemon, Tools, run},
};

pub(super) const TURNS: usize = 20;
pub(super) const PERIOD_NS: u64 = 40_000_000;

/// All that move something, `ncclBcast` for the one that it calls.
const FUNCTIONS: [(&str, &str); 10] = [
    ("ncclAllReduce", "all_reduce"),
    ("ncclReduceScatter", "reduce_scatter"),
    ("ncclAllGather", "all_gather"),
    ("ncclAlltoAll", "all_to_all"),
    ("ncclBcast", "broadcast"),
    ("ncclGather", "gather"),
    ("ncclScatter", "scatter"),
    ("ncclReduce", "reduce"),
    ("ncclSend", "send"),
    ("ncclRecv", "recv"),
];

/// What a mean arrival may be off.
const PRECISION_NS: f64 = 50_000.0;

pub(super) fn who_came_last_is_told(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let library = library(tools, "libfake_nccl.so", scratch.join("libnccl.so.2"))?;
    let start = || caller(tools, "nccl-caller", &library);
    let mut early = start()?;
    early.call("init ncclCommInitRank 2 0 9", "ok")?;
    let mut ranks = [start()?, start()?, start()?];
    let daemon =
        Daemon::start(tools, scratch, "gpu: {enabled: false}\nengines: {discover: false}\n").map_err(not_ok)?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", library.display());
    daemon.wait_for(&probed, |functions| functions > 15.0).map_err(not_ok)?;

    // By value on the stack, by value with a configuration behind it, and by a pointer: one id, one communicator.
    let inits = ["ncclCommInitRank", "ncclCommInitRankConfig", "ncclCommInitRankScalable"];
    for (rank, (caller, init)) in ranks.iter_mut().zip(inits).enumerate() {
        caller.call(&format!("init {init} 3 {rank} 0"), "ok")?;
    }
    for (rank, caller) in ranks.iter().enumerate() {
        let info = format!("comm=\"{COMM}\",rank=\"{rank}\",ranks=\"3\"");
        daemon.wait_for(&caller.line("plumbline_nccl_rank_info", &info), is(1.0)).map_err(not_ok)?;
    }

    let expected = run_late(&mut ranks, "run", &[0, 5_000_000, 1_000_000])?;
    arrivals_are(&daemon, ["last_arrivals_total", "lateness_seconds_total"], PRECISION_NS, &expected)?;
    let sum = |series: &str| format!("plumbline_nccl_{series}{{comm=\"{COMM}\"}}");
    daemon.wait_for(&sum("arrival_skew_seconds_count"), is(TURNS as f64)).map_err(not_ok)?;

    // The communicator is on the stack here, behind seven other arguments.
    everybody(&mut ranks, "call ncclReduce 2 10 8")?;
    // Begins when the group ends, a millisecond later.
    everybody(&mut ranks, "group ncclAllGather 5 1000 7")?;
    ranks[0].call("call ncclSend 3 7 0", "ok")?;
    for (function, more, expected) in [
        ("bytes_total", "function=\"all_reduce\",captured=\"false\"", TURNS as f64 * 1024.0 * 2.0),
        ("bytes_total", "function=\"reduce\",captured=\"false\"", 160.0),
        ("bytes_total", "function=\"all_gather\",captured=\"false\"", 20_000.0),
        ("calls_total", "function=\"send\",captured=\"false\"", 3.0),
    ] {
        let line = ranks[0].line(&format!("plumbline_nccl_{function}"), &format!("comm=\"{COMM}\",rank=\"0\",{more}"));
        daemon.wait_for(&line, is(expected)).map_err(not_ok)?;
    }
    daemon.wait_for(&sum("arrival_skew_seconds_count"), is(TURNS as f64 + 7.0)).map_err(not_ok)?;

    // Who does not come to what others have come to is waited for.
    let awaited = |rank: u32| format!("plumbline_nccl_awaited_seconds{{comm=\"{COMM}\",rank=\"{rank}\"}}");
    ranks[0].call("call ncclAllReduce 1 8 0", "ok")?;
    ranks[2].call("call ncclAllReduce 1 8 0", "ok")?;
    daemon.wait_for(&awaited(1), |seconds| seconds > 3.0).map_err(not_ok)?;
    ensure(daemon.metric(&awaited(0)).map_err(not_ok)? == Some(0.0), || "who has come is waited for".to_owned())?;
    ranks[1].call("call ncclAllReduce 1 8 0", "ok")?;
    daemon.wait_for(&awaited(1), is(0.0)).map_err(not_ok)?;

    // A rank that calls something else than the others is not compared with them.
    ranks[0].call("call ncclAllGather 1 1 0", "ok")?;
    ranks[1].call("call ncclAllReduce 1 1 0", "ok")?;
    daemon.wait_for(&sum("mismatched_total"), is(1.0)).map_err(not_ok)?;

    // Whose communicator began before our time is counted, and is nobody's rank.
    early.call("call ncclAllReduce 4 8 0", "ok")?;
    let unknown = "comm=\"unknown\",rank=\"unknown\",function=\"all_reduce\",captured=\"false\"";
    daemon.wait_for(&early.line("plumbline_nccl_calls_total", unknown), is(4.0)).map_err(not_ok)?;

    // What goes into a stream that records a graph is not done now, whichever thread began the recording, and wherever the stream is among
    // the arguments.
    let libcuda = super::library(tools, "libfake_cuda.so", scratch.join("libcuda.so.1"))?;
    let _holder = caller(tools, "cuda-caller", &libcuda)?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", libcuda.display());
    daemon.wait_for(&probed, |functions| functions > 10.0).map_err(not_ok)?;
    ranks[0].call(&format!("capture {} 4660", libcuda.display()), "0")?;
    for (count, (function, _)) in (3..).zip(FUNCTIONS) {
        ranks[0].call(&format!("call {function} 2 {count} 7"), "ok")?;
    }
    ranks[0].call(&format!("captured {} 4660", libcuda.display()), "0")?;
    ranks[0].call("call ncclBcast 3 1 0", "ok")?;
    let of_rank = |series: &str, function: &str, captured: bool| {
        let labels = format!("comm=\"{COMM}\",rank=\"0\",function=\"{function}\",captured=\"{captured}\"");
        ranks[0].line(&format!("plumbline_nccl_{series}_total"), &labels)
    };
    for (count, (_, name)) in (3_u32..).zip(FUNCTIONS) {
        daemon.wait_for(&of_rank("calls", name, true), is(2.0)).map_err(not_ok)?;
        daemon.wait_for(&of_rank("bytes", name, true), is(f64::from(2 * 4 * count))).map_err(not_ok)?;
    }
    daemon.wait_for(&of_rank("calls", "broadcast", false), is(3.0)).map_err(not_ok)?;

    // A recording that was invalidated ends all the same.
    ranks[0].call(&format!("capture {} 901", libcuda.display()), "0")?;
    ranks[0].call(&format!("captured {} 901", libcuda.display()), "901")?;
    ranks[0].call("call ncclSend 4 1 0", "ok")?;
    let sent = format!("comm=\"{COMM}\",rank=\"0\",function=\"send\",captured=\"false\"");
    daemon.wait_for(&ranks[0].line("plumbline_nccl_calls_total", &sent), is(7.0)).map_err(not_ok)?;

    // All ranks in one process, whose collectives are in one group.
    early.call("init ncclCommInitAll 2 1 0", "ok")?;
    let comms_of_early = |page: &str| -> Vec<String> {
        let start = early.line("plumbline_nccl_rank_info", "");
        let start = start.trim_end_matches('}');
        let lines = page.lines().filter(|line| line.starts_with(start) && line.contains("ranks=\"2\""));
        lines.filter_map(|line| Some(line.split("comm=\"").nth(1)?.split('"').next()?.to_owned())).collect()
    };
    let both = || daemon.metrics().is_ok_and(|page| comms_of_early(&page).len() == 2);
    wait_until(both, "two ranks of one process")?;
    let comms = comms_of_early(&daemon.metrics().map_err(not_ok)?);
    ensure(comms[0] == comms[1], || format!("{comms:?} are one communicator"))?;
    for _ in 0..3 {
        early.call("among ncclAllReduce", "ok")?;
    }
    let compared = format!("plumbline_nccl_arrival_skew_seconds_count{{comm=\"{}\"}}", comms[0]);
    daemon.wait_for(&compared, is(3.0)).map_err(not_ok)?;
    Ok(())
}

/// What comes of the communicator of the bytes 0 to 127, by another writing of NCCL's functions: of which child, and which colour.
const FIRST_OF_0: &str = "0x79030d073b3c579f";
const FIRST_OF_1: &str = "0x44d5ab770e2d4c78";
const SECOND_OF_0: &str = "0xcee9955a1c80c08f";
const SHRUNKEN: &str = "0x3ab8d78e8fb6dbda";

pub(super) fn what_is_split_off_is_known(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let library = library(tools, "libfake_nccl.so", scratch.join("libnccl.so.2"))?;
    let start = || caller(tools, "nccl-caller", &library);
    let mut early = start()?;
    early.call("init ncclCommInitRank 5 2 9", "ok")?;
    let mut ranks = [start()?, start()?, start()?, start()?];
    let daemon = Daemon::start(tools, scratch, QUIET).map_err(not_ok)?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", library.display());
    daemon.wait_for(&probed, |functions| functions > 15.0).map_err(not_ok)?;
    let is_rank = |caller: &Caller, comm: &str, rank: &str, of: &str| {
        let info = format!("comm=\"{comm}\",rank=\"{rank}\",ranks=\"{of}\"");
        daemon.wait_for(&caller.line("plumbline_nccl_rank_info", &info), is(1.0)).map_err(not_ok)
    };
    let compared = |comm: &str, count: f64| {
        let count_of = format!("plumbline_nccl_arrival_skew_seconds_count{{comm=\"{comm}\"}}");
        daemon.wait_for(&count_of, is(count)).map_err(not_ok)
    };
    let before_ns = boot_ns();
    for (rank, caller) in ranks.iter_mut().enumerate() {
        caller.call(&format!("init ncclCommInitRank 4 {rank} 0"), "ok")?;
    }
    let after_ns = boot_ns();

    // By colour, and in it by key: the even ones are turned around, of the odd ones one wants to be in none.
    for (caller, wish) in ranks.iter_mut().zip(["0 2", "1 0", "0 -2", "-1 0"]) {
        caller.call(&format!("split {wish}"), "ok")?;
    }
    // Unlike NCCL, the library has let the first go on before the last had come: a call of theirs learns who they are.
    for order in ["call ncclAllReduce 1 8 7", "call ncclAllReduce 3 8 7"] {
        everybody(&mut ranks[..3], order)?;
    }
    is_rank(&ranks[0], FIRST_OF_0, "1", "2")?;
    is_rank(&ranks[1], FIRST_OF_1, "0", "1")?;
    is_rank(&ranks[2], FIRST_OF_0, "0", "2")?;
    compared(FIRST_OF_0, 3.0)?;

    // In a group: the handle is there when it has ended.
    everybody(&mut ranks, "back")?;
    everybody(&mut ranks, "group-split 0 0")?;
    everybody(&mut ranks, "call ncclAllReduce 1 8 7")?;
    everybody(&mut ranks, "call ncclAllReduce 2 8 7")?;
    for (rank, caller) in ranks.iter().enumerate() {
        is_rank(caller, SECOND_OF_0, &rank.to_string(), "4")?;
    }
    compared(SECOND_OF_0, 2.0)?;

    // Without one of them; its neighbours move up.
    everybody(&mut ranks, "back")?;
    for caller in [0, 2, 3] {
        ranks[caller].call("shrink 1", "ok")?;
    }
    for (caller, rank) in [(0, "0"), (2, "1"), (3, "2")] {
        is_rank(&ranks[caller], SHRUNKEN, rank, "3")?;
    }

    // Who began before our time is known as far as NCCL says so in our sight.
    early.call("ask", "2 5")?;
    is_rank(&early, "unknown", "2", "5")?;

    // What NCCL says of a communicator when it is asked.
    let error = format!("comm=\"{SHRUNKEN}\",rank=\"1\",result=\"remote_error\"");
    let error = ranks[2].line("plumbline_nccl_async_error", &error);
    ranks[2].call("fail 7", "7")?;
    ranks[2].call("fail 6", "6")?;
    daemon.wait_for(&error, is(1.0)).map_err(not_ok)?;
    let finding = |record: &Value| record["finding_info"]["types"] == json!(["nccl.async_error"]);
    daemon.wait_for_record("what NCCL says", finding).map_err(not_ok)?;
    ranks[2].call("fail 0", "0")?;
    // Who became a member, and of what, has its moment.
    let text = format!("it is rank 0 of 4 in NCCL's communicator {COMM}");
    let begins = |record: &Value| record["message"].as_str().is_some_and(|message| message.contains(&text));
    let begun = daemon.wait_for_record("a communicator that begins", begins).map_err(not_ok)?;
    let seen_ns = begun["unmapped"]["plumbline"]["boot_ns"].as_u64().unwrap_or_default();
    ensure((before_ns..after_ns).contains(&seen_ns), || {
        format!("{seen_ns} is not between {before_ns} and {after_ns}")
    })?;
    let is_gone = || daemon.metric(&error).is_ok_and(|found| found.is_none());
    wait_until(is_gone, "an error that is over")?;

    // NCCL asks for errors once more while it ends a communicator, of which nothing is left all the same.
    early.call("destroy", "ok")?;
    let text = "it ended NCCL's communicator unknown, in which it was rank 2 of 5, by ncclCommDestroy";
    let ends = |record: &Value| record["message"].as_str().is_some_and(|message| message.contains(text));
    daemon.wait_for_record("a communicator that ends", ends).map_err(not_ok)?;
    let of_early = early.line("plumbline_nccl_rank_info", "");
    let of_early = of_early.trim_end_matches('}').to_owned();
    wait_until(|| daemon.metrics().is_ok_and(|page| !page.contains(&of_early)), "a communicator that has ended")
}

/// NVIDIA's own libraries, which say that there is no GPU, and are counted all the same: so many calls, so many counted.
pub(super) fn real_libraries_are_counted_exactly(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(nvidia) = &tools.nvidia else { return Err(skipped("no libraries of NVIDIA (PLUMBLINE_NVIDIA)")) };
    let (libnccl, libcudart) = (nvidia.join("libnccl.so.2"), nvidia.join("libcudart.so.12"));
    let mut nccl = caller(tools, "nccl-caller", &libnccl)?;
    let mut cudart = caller(tools, "cuda-caller", &libcudart)?;
    let daemon = Daemon::start(tools, scratch, &format!("{QUIET}cuda: {{budget_percent: 100}}\n")).map_err(not_ok)?;
    for (library, functions) in [(&libnccl, 24.0), (&libcudart, 2.0)] {
        let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", library.display());
        daemon.wait_for(&probed, is(functions)).map_err(not_ok)?;
    }
    for order in
        ["call ncclAllReduce 1000 8 7", "call ncclReduce 7 8 7", "call ncclSend 11 8 7", "group ncclAllGather 3 8 7"]
    {
        nccl.call(order, "ok")?;
    }
    cudart.call("cudaSetDevice 500", "35")?;
    cudart.call("cudaDeviceReset 3", "35")?;
    for (function, calls) in [("all_reduce", 1000.0), ("reduce", 7.0), ("send", 11.0), ("all_gather", 3.0)] {
        let labels = format!("comm=\"unknown\",rank=\"unknown\",function=\"{function}\",captured=\"false\"");
        daemon.wait_for(&nccl.line("plumbline_nccl_calls_total", &labels), is(calls)).map_err(not_ok)?;
    }
    for (call, calls) in [("device_set", 500.0), ("device_reset", 3.0)] {
        let labels = format!("device=\"unknown\",call=\"{call}\"");
        daemon.wait_for(&cudart.line("plumbline_cuda_calls_total", &labels), is(calls)).map_err(not_ok)?;
        let labels = format!("{labels},result=\"insufficient_driver\"");
        daemon.wait_for(&cudart.line("plumbline_cuda_failures_total", &labels), is(calls)).map_err(not_ok)?;
    }
    Ok(())
}

/// As a container runtime keeps what NCCL writes; nobody calls anything.
pub(super) fn warnings_in_a_log_are_told(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let pods = scratch.join("pods/llm_vllm-0_1234/engine");
    fs::create_dir_all(&pods).map_err(not_ok)?;
    let config = format!("{QUIET}cuda: {{nccl_logs: [{}/pods/*/*/*.log]}}\n", scratch.display());
    let daemon = Daemon::start(tools, scratch, &config).map_err(not_ok)?;
    daemon.wait_for("plumbline_nccl_log_files", is(0.0)).map_err(not_ok)?;
    let warning =
        "[2026-11-27 07:00:01] vllm-0:77:99 [1] misc/socket.cc:552 (recv) NCCL WARN Connection closed by peer";
    let line = format!("2026-11-27T07:00:01.5Z stdout F {warning}\n");
    fs::write(pods.join("0.log"), line.repeat(3)).map_err(not_ok)?;
    let counted = "plumbline_nccl_warnings_total{place=\"misc/socket.cc:552\"}";
    daemon.wait_for(counted, is(3.0)).map_err(not_ok)?;
    let finding = |record: &Value| record["finding_info"]["types"] == json!(["nccl.warning"]);
    let said = daemon.wait_for_record("NCCL's warning", finding).map_err(not_ok)?.to_string();
    let text = "NCCL in process 77 of vllm-0, on its device 1: Connection closed by peer (misc/socket.cc:552)";
    ensure(said.contains(text), || said.clone())
}

/// Two containers of one image have one file, under a device for each of their mounts.
pub(super) fn a_layer_of_two_containers_is_counted_once(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let place = scratch.join("mounts");
    fs::create_dir_all(&place).map_err(not_ok)?;
    let mut mounts = Mounts::default();
    mounts.mount(&["-t", "tmpfs", "none"], &place)?;
    let layer = place.join("layer");
    fs::create_dir(&layer).map_err(not_ok)?;
    library(tools, "libfake_nccl.so", layer.join("libnccl.so.2"))?;
    let mut callers = Vec::new();
    for name in ["one", "other"] {
        let [upper, work, merged] = ["upper", "work", "merged"].map(|part| place.join(format!("{name}-{part}")));
        [&upper, &work, &merged].into_iter().try_for_each(fs::create_dir).map_err(not_ok)?;
        let options = format!("lowerdir={},upperdir={},workdir={}", layer.display(), upper.display(), work.display());
        mounts.mount(&["-t", "overlay", "overlay", "-o", &options], &merged)?;
        callers.push(caller(tools, "nccl-caller", &merged.join("libnccl.so.2"))?);
    }
    let daemon = Daemon::start(tools, scratch, QUIET).map_err(not_ok)?;
    let has_probes = || daemon.metrics().is_ok_and(|page| page.contains("plumbline_cuda_probed_functions{"));
    wait_until(has_probes, "a library")?;
    for (caller, calls) in callers.iter_mut().zip([100.0, 10.0]) {
        caller.call(&format!("call ncclAllReduce {calls} 8 7"), "ok")?;
        let labels = "comm=\"unknown\",rank=\"unknown\",function=\"all_reduce\",captured=\"false\"";
        daemon.wait_for(&caller.line("plumbline_nccl_calls_total", labels), |found| found >= calls).map_err(not_ok)?;
        let found = daemon.metric(&caller.line("plumbline_nccl_calls_total", labels)).map_err(not_ok)?;
        ensure(found == Some(calls), || format!("{found:?} of {calls} calls"))?;
    }
    drop(callers);
    Ok(())
}

/// They are unmounted with this, the last first.
#[derive(Default)]
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn mount(&mut self, what: &[&str], place: &Path) -> Result<(), Ended> {
        let output = run(Command::new("mount").args(what).arg(place)).map_err(not_ok)?;
        if !output.status.success() {
            return Err(skipped(&format!("nothing can be mounted here: {}", String::from_utf8_lossy(&output.stderr))));
        }
        self.0.push(place.to_owned());
        Ok(())
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for place in self.0.iter().rev() {
            let _ = run(Command::new("umount").arg("--lazy").arg(place));
        }
    }
}

/// An executable that was linked with NCCL, and has no file of NCCL's mapped.
pub(super) fn nccl_inside_of_an_executable_is_counted(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let libcuda = library(tools, "libfake_cuda.so", scratch.join("libcuda.so.1"))?;
    let mut caller = caller(tools, "nccl-inside", &libcuda)?;
    let daemon = Daemon::start(tools, scratch, QUIET).map_err(not_ok)?;
    let executable = tools.beside("nccl-inside").ok_or_else(|| skipped("nccl-inside is not built"))?;
    let probed = format!("plumbline_cuda_probed_functions{{library=\"{}\"}}", executable.display());
    daemon.wait_for(&probed, |functions| functions > 0.5).map_err(not_ok)?;
    caller.call("123", "ok")?;
    let labels = "comm=\"unknown\",rank=\"unknown\",function=\"all_reduce\",captured=\"false\"";
    daemon.wait_for(&caller.line("plumbline_nccl_calls_total", labels), is(123.0)).map_err(not_ok)?;
    Ok(())
}

/// All ranks call together, each so late; how often each came last, and how late in all, by the library's own clock.
pub(super) fn run_late(ranks: &mut [Caller], order: &str, late_ns: &[u64]) -> Result<Vec<(f64, f64)>, Ended> {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0) + 1;
    for (caller, late_ns) in ranks.iter_mut().zip(late_ns) {
        caller.order(&format!("{order} {TURNS} {seconds}000000000 {PERIOD_NS} {late_ns}"))?;
    }
    let mut times = Vec::new();
    for caller in ranks.iter_mut() {
        let answer = caller.answer()?;
        let of_rank: Vec<u64> = answer.split(' ').filter_map(|time| time.parse().ok()).collect();
        ensure(of_rank.len() == TURNS, || format!("{answer:?} is not the times of {TURNS} calls"))?;
        times.push(of_rank);
    }
    let mut found = vec![(0.0, 0.0); times.len()];
    for turn in 0..TURNS {
        let arrivals: Vec<u64> = times.iter().map(|times| times[turn]).collect();
        let (first, last) = (arrivals.iter().min().copied(), arrivals.iter().max().copied());
        for (found, arrival) in found.iter_mut().zip(&arrivals) {
            found.0 += f64::from(u8::from(Some(*arrival) == last));
            #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
            let late_ns = (*arrival - first.unwrap_or_default()) as f64;
            found.1 += late_ns / 1e9;
        }
    }
    Ok(found)
}

/// `series` say how often a rank was the last, and how late it was, each time to so many nanoseconds.
pub(super) fn arrivals_are(
    daemon: &Daemon,
    series: [&str; 2],
    precision_ns: f64,
    expected: &[(f64, f64)],
) -> Result<(), Ended> {
    for (rank, (last, late_seconds)) in expected.iter().enumerate() {
        let line = |series: &str| format!("plumbline_nccl_{series}{{comm=\"{COMM}\",rank=\"{rank}\"}}");
        daemon.wait_for(&line(series[0]), is(*last)).map_err(not_ok)?;
        let found = daemon.metric(&line(series[1])).map_err(not_ok)?.unwrap_or_default();
        let off_ns = (found - late_seconds).abs() * 1e9 / TURNS as f64;
        ensure(off_ns <= precision_ns, || {
            format!("rank {rank} was late by {found} s and not {late_seconds} s: {off_ns:.0} ns each")
        })?;
    }
    Ok(())
}

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

pub(super) fn everybody(ranks: &mut [Caller], order: &str) -> Result<(), Ended> {
    Ok(ranks.iter_mut().try_for_each(|caller| caller.call(order, "ok"))?)
}

pub(super) fn is(expected: f64) -> impl Fn(f64) -> bool {
    move |found| (found - expected).abs() < 1e-6
}
