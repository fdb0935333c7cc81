//! Which launch of a graph is the same for all members of a communicator.
//!
//! What a graph replays of NCCL is called nowhere. But members launch their graphs when they come to them, so that who launches late is late:
//! launches are numbered by each thread from the last collective that it called or recorded, which is the same for all members, and those of
//! the same number are compared: as long as they are closer together than launches that follow each other.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers, and a helper without preconditions")]

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::uprobe, programs::ProbeContext};
use plumbline_ebpf::{
    cuda::{KIND_GRAPH_LAUNCH, Launches, STEPS},
    nccl::{ArrivalKey, Comm, Meeting},
};

use super::{
    super::{
        cuda::{is_captured, watch},
        thread::{Current, current},
    },
    arrivals::{Arrival, arrive, members},
};
use crate::kernel::zero;

/// The thread calls or records a collective, from which its launches are numbered now.
#[inline(always)]
pub fn follow(current: Current, comm: &Comm, least: u32, is_recorded: bool) {
    let launches = current.launches();
    // SAFETY: a map value of this thread's own.
    unsafe {
        let is_same = (*launches).hash == comm.hash && (*launches).rank == comm.rank;
        let is_bound = (*launches).is_recorded != 0;
        if is_bound && !is_recorded && !is_same && members((*launches).hash) > 0 {
            return;
        }
        let watch = watch(STEPS);
        if (*launches).number > 0 && (*launches).watch == watch {
            core::hint::black_box(come(&at(launches, 0, (*launches).number, 0)));
        }
        (*launches).is_recorded = (is_recorded || is_bound && is_same).into();
        (*launches).hash = comm.hash;
        (*launches).collective = comm.collectives;
        (*launches).number = 0;
        (*launches).last_ns = bpf_ktime_get_ns();
        (*launches).rank = comm.rank;
        (*launches).least = least;
        (*launches).watch = watch;
    }
}

#[uprobe]
pub fn cuda_launch_graph(ctx: ProbeContext) -> u32 {
    let watch = watch(STEPS);
    if watch == 0 {
        return 0;
    }
    let stream: u64 = ctx.arg(1).unwrap_or(0);
    let Some(current) = current() else { return 0 };
    current.count(KIND_GRAPH_LAUNCH);
    let launches = current.launches();
    // SAFETY: a map value of this thread's own.
    unsafe {
        if (*launches).hash == 0 || (*launches).watch != watch || is_captured(current, stream) {
            return 0;
        }
        let now_ns = bpf_ktime_get_ns();
        let interval_ns = now_ns.wrapping_sub((*launches).last_ns);
        (*launches).number += 1;
        (*launches).last_ns = now_ns;
        core::hint::black_box(come(&at(launches, (*launches).number, 0, interval_ns)));
    }
    0
}

/// SAFETY: `launches` is a map value.
#[inline(always)]
unsafe fn at(launches: *const Launches, launch: u64, signature: u64, interval_ns: u64) -> Arrival {
    // SAFETY: by the caller's promise.
    unsafe {
        let key = ArrivalKey { hash: (*launches).hash, sequence: (*launches).collective, launch };
        Arrival { key, signature: signature << 1, interval_ns, rank: (*launches).rank, least: (*launches).least }
    }
}

/// It returns a number, as kernels refuse what a function without a result leaves.
#[inline(never)]
fn come(arrival: &Arrival) -> u64 {
    arrive(arrival, Meeting::GraphLaunch);
    zero()
}
