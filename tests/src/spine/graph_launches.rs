//! Ranks whose collectives are in graphs, which nobody calls: who launches them late is told all the same.

use std::path::Path;

use super::{
    QUIET, caller, library,
    nccl::{PERIOD_NS, TURNS, arrivals_are, everybody, is, run_late},
    not_ok,
};
use crate::{
    caller::{COMM, Caller},
    checks::Ended,
    daemon::{Daemon, Tools},
};

/// The caller looks at the clock before it calls, and may be held up in between.
const PRECISION_NS: f64 = 500_000.0;

pub(super) fn who_launches_late_is_told(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let libnccl = library(tools, "libfake_nccl.so", scratch.join("libnccl.so.2"))?;
    let libcuda = library(tools, "libfake_cuda.so", scratch.join("libcuda.so.1"))?;
    let start = || caller(tools, "nccl-caller", &libnccl);
    let mut ranks = [start()?, start()?, start()?];
    let libcuda = libcuda.display();
    let launch = |times: u32| format!("launch {libcuda} {times} 0 0 0");
    ranks.iter_mut().try_for_each(|caller| caller.call(&launch(0), ""))?;
    let config = format!("{QUIET}cuda: {{budget_percent: 100}}\n");
    let daemon = Daemon::start(tools, scratch, &config).map_err(not_ok)?;
    for library in [libcuda.to_string(), libnccl.display().to_string()] {
        let probed = format!("plumbline_cuda_probed_functions{{library=\"{library}\"}}");
        daemon.wait_for(&probed, |functions| functions > 10.0).map_err(not_ok)?;
    }
    for (rank, caller) in ranks.iter_mut().enumerate() {
        caller.call(&format!("init ncclCommInitRank 3 {rank} 0"), "ok")?;
    }
    let launches = |caller: usize, times: u32, ranks: &mut [Caller]| -> Result<(), Ended> {
        ranks[caller].order(&launch(times))?;
        ranks[caller].answer()?;
        Ok(())
    };

    // Of no communicator yet, and not the same for all: compared with nothing.
    launches(1, 3, &mut ranks)?;
    // Recorded, and called: launches are numbered from here on.
    everybody(&mut ranks, "call ncclAllReduce 1 8 7")?;
    for caller in &mut ranks {
        caller.call(&format!("capture {libcuda} 4660"), "0")?;
        caller.call("call ncclAllReduce 2 8 7", "ok")?;
        caller.call(&format!("captured {libcuda} 4660"), "0")?;
    }
    let expected = run_late(&mut ranks, &format!("launch {libcuda}"), &[1_000_000, 0, 5_000_000])?;
    let sum = |series: &str| format!("plumbline_nccl_graph_launch_{series}{{comm=\"{COMM}\"}}");
    daemon.wait_for(&sum("skew_seconds_count"), is(TURNS as f64)).map_err(not_ok)?;
    let series = ["graph_launch_last_total", "graph_launch_lateness_seconds_total"];
    arrivals_are(&daemon, series, PRECISION_NS, &expected)?;
    daemon.wait_for(&sum("mismatched_total"), is(0.0)).map_err(not_ok)?;

    // Two of three are there for most of the step before the third comes.
    let more = run_late(&mut ranks, &format!("launch {libcuda}"), &[0, PERIOD_NS * 6 / 10, 1_000_000])?;
    let both = expected.iter().zip(more).map(|(one, other)| (one.0 + other.0, one.1 + other.1));
    arrivals_are(&daemon, series, PRECISION_NS, &both.collect::<Vec<_>>())?;
    daemon.wait_for(&sum("mismatched_total"), is(0.0)).map_err(not_ok)?;
    // But when two are late it may be the first that is ahead.
    run_late(&mut ranks, &format!("launch {libcuda}"), &[0, PERIOD_NS * 6 / 10, PERIOD_NS * 6 / 10])?;
    let unsure = daemon.wait_for(&sum("mismatched_total"), |unsure| unsure >= TURNS as f64 - 2.0).map_err(not_ok)?;
    let before = daemon.metric(&sum("skew_seconds_count")).map_err(not_ok)?.unwrap_or_default();

    // One more of one rank, which is a step ahead from now on: nobody is compared by what belongs to different steps.
    launches(0, 1, &mut ranks)?;
    run_late(&mut ranks, &format!("launch {libcuda}"), &[0, 0, 0])?;
    daemon.wait_for(&sum("mismatched_total"), |now| now >= unsure + TURNS as f64 - 2.0).map_err(not_ok)?;
    let compared = daemon.metric(&sum("skew_seconds_count")).map_err(not_ok)?.unwrap_or_default();
    super::ensure(compared <= before + 1.0, || format!("{compared} launches are compared, after {before}"))?;

    // One more of another: two of three are ahead, and the third is not late for that.
    launches(1, 1, &mut ranks)?;
    run_late(&mut ranks, &format!("launch {libcuda}"), &[0, 0, 0])?;
    let all = unsure + 2.0 * TURNS as f64 - 4.0;
    daemon.wait_for(&sum("mismatched_total"), |now| now >= all).map_err(not_ok)?;
    let compared = daemon.metric(&sum("skew_seconds_count")).map_err(not_ok)?.unwrap_or_default();
    super::ensure(compared <= before + 2.0, || format!("{compared} launches are compared, after {before}"))?;

    // Until the next collective, from which numbers are the same again.
    everybody(&mut ranks, "call ncclAllReduce 1 8 7")?;
    run_late(&mut ranks, &format!("launch {libcuda}"), &[0, 0, 0])?;
    daemon.wait_for(&sum("skew_seconds_count"), is(compared + TURNS as f64)).map_err(not_ok)?;

    // Called of another communicator than the one that is in the graphs, by one rank alone: the numbers stay.
    ranks[0].call("init ncclCommInitRank 1 0 9", "ok")?;
    ranks[0].call("call ncclAllReduce 1 8 7", "ok")?;
    run_late(&mut ranks, &format!("launch {libcuda}"), &[0, 0, 0])?;
    daemon.wait_for(&sum("skew_seconds_count"), is(compared + 2.0 * TURNS as f64)).map_err(not_ok)?;
    let calls = daemon.metric(&ranks[0].line("plumbline_cuda_calls_total", "device=\"unknown\",call=\"graph_launch\""));
    let launched = 7.0 * TURNS as f64 + 1.0;
    super::ensure(calls.as_ref().is_ok_and(|calls| *calls == Some(launched)), || {
        format!("{calls:?} of {launched} launches")
    })
}
