//! Collectives, transfers and groups of them.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use aya_ebpf::{
    EbpfContext as _,
    macros::{map, uprobe},
    maps::{Array, LruHashMap, PerCpuHashMap},
    programs::ProbeContext,
};
use plumbline_ebpf::{
    cuda::Lost,
    nccl::{Action, ArrivalKey, Comm, Cookie, Meeting, Traffic, TrafficKey, UNKNOWN, element_bytes},
};

use super::{
    super::{
        BPF_F_NO_PREALLOC, BPF_NOEXIST,
        call::cookie,
        cuda::{add, is_captured, lost},
        thread::{Current, current},
    },
    Arguments,
    arrivals::{Arrival, arrive},
    comms::find,
    launches::follow,
};
use crate::kernel::zero;

/// Communicators of one group whose arrivals are compared: one process with eight GPUs has as many. Those beyond are not.
const GROUPED: usize = 8;

#[map]
static TRAFFIC: PerCpuHashMap<TrafficKey, Traffic> = PerCpuHashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Threads within `ncclGroupStart` and `ncclGroupEnd`.
#[map]
static GROUPS: LruHashMap<u64, Group> = LruHashMap::with_max_entries(4096, 0);

/// One entry of zeros, never written: what a new group is made of.
#[map]
static NO_GROUP: Array<Group> = Array::with_max_entries(1, 0);

/// What is called in a group begins at its end.
#[derive(Clone, Copy)]
#[repr(C)]
struct Group {
    depth: u64,
    /// The last collective of each communicator.
    last: [Arrival; GROUPED],
}

#[uprobe]
pub fn nccl_call(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let arguments = Arguments::of(&ctx);
    let argument = |place| arguments.at(cookie.place(place));
    let (handle, count, datatype) = (argument(0), argument(1), argument(2) as u32);
    let Some(current) = current() else { return 0 };
    let known = find(current, handle);
    let is_captured = is_captured(current, argument(3));
    let mut comm = Comm::UNKNOWN;
    if let Some(known) = known {
        // SAFETY: a map value. A communicator is its process's, which may not use it from two threads at a time (NCCL, "Thread Safety").
        unsafe {
            comm = *known;
            if cookie.action == Action::Collective as u8 {
                (*known).collectives = comm.collectives.wrapping_add(1);
                if !is_captured {
                    (*known).sequence = comm.sequence.wrapping_add(1);
                }
            }
        }
    }
    let traffic_key = TrafficKey {
        start_boot_ns: current.start_boot_ns(),
        hash: comm.hash,
        pid: current.pid(),
        rank: comm.rank,
        function: cookie.function.into(),
        is_captured: is_captured.into(),
    };
    called(&traffic_key, count.wrapping_mul(element_bytes(datatype)));
    if cookie.action != Action::Collective as u8 || comm.hash == 0 || comm.rank == UNKNOWN {
        return 0;
    }
    follow(current, &comm, least(&comm), is_captured);
    if is_captured {
        return 0;
    }
    let signature = count ^ u64::from(datatype) << 48 ^ u64::from(cookie.function) << 56;
    let key = ArrivalKey { hash: comm.hash, sequence: comm.sequence, launch: 0 };
    let call = Arrival { key, signature, interval_ns: 0, rank: comm.rank, least: least(&comm) };
    match GROUPS.get_ptr_mut(&current.pid_tgid) {
        // SAFETY: a map value of this thread's own.
        Some(group) if unsafe { (*group).depth } > 0 => put(group, call),
        _ => {
            core::hint::black_box(come(&call));
        }
    }
    0
}

/// All ranks of a split that has a rank are on this node, though some may be known by their first call only.
#[inline(always)]
fn least(comm: &Comm) -> u32 {
    if comm.split.child != 0 { comm.ranks } else { 2 }
}

#[inline(always)]
fn put(group: *mut Group, call: Arrival) {
    for at in 0..GROUPED {
        // SAFETY: a map value of this thread's own, and a place within.
        unsafe {
            let place = (&raw mut (*group).last).cast::<Arrival>().add(at);
            let is_it = (*place).key.hash == call.key.hash && (*place).rank == call.rank;
            if is_it || (*place).key.hash == 0 {
                *place = call;
                return;
            }
        }
    }
}

/// Counts a call, and what it moves.
#[inline(always)]
fn called(key: &TrafficKey, bytes: u64) {
    if TRAFFIC.get_ptr(key).is_none() {
        let _ = TRAFFIC.insert(key, &Traffic { calls: 0, bytes: 0 }, BPF_NOEXIST);
    }
    match TRAFFIC.get_ptr_mut(key) {
        // SAFETY: a map value, added to atomically.
        Some(traffic) => unsafe {
            add(&raw mut (*traffic).calls, 1);
            add(&raw mut (*traffic).bytes, bytes);
        },
        None => lost(Lost::Communicators),
    }
}

/// Counts a call that moves nothing, for what it costs.
#[inline(always)]
pub fn called_only(current: Current, function: u8) {
    let key = TrafficKey {
        start_boot_ns: current.start_boot_ns(),
        hash: 0,
        pid: current.pid(),
        rank: UNKNOWN,
        function: function.into(),
        is_captured: 0,
    };
    called(&key, 0);
}

#[uprobe]
pub fn nccl_group(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let Some(current) = current() else { return 0 };
    let pid_tgid = current.pid_tgid;
    called_only(current, cookie.function);
    if cookie.action == Action::GroupStart as u8 {
        if GROUPS.get_ptr(&pid_tgid).is_none() {
            let Some(nothing) = NO_GROUP.get(0) else { return 0 };
            let _ = GROUPS.insert(&pid_tgid, nothing, 0);
        }
        if let Some(group) = GROUPS.get_ptr_mut(&pid_tgid) {
            // SAFETY: a map value of this thread's own.
            unsafe { (*group).depth += 1 };
        }
        return 0;
    }
    let Some(group) = GROUPS.get_ptr_mut(&pid_tgid) else { return 0 };
    // SAFETY: a map value of this thread's own.
    unsafe {
        (*group).depth = (*group).depth.saturating_sub(1);
        if (*group).depth > 0 {
            return 0;
        }
        for at in 0..GROUPED {
            let call = (&raw const (*group).last).cast::<Arrival>().add(at).read_volatile();
            if call.key.hash == 0 {
                break;
            }
            core::hint::black_box(come(&call));
        }
    }
    let _ = GROUPS.remove(&pid_tgid);
    0
}

/// Once in the program, however many of a group there are. It returns a number, as kernels refuse what a function without a result leaves.
#[inline(never)]
fn come(call: &Arrival) -> u64 {
    arrive(call, Meeting::Collective);
    zero()
}
