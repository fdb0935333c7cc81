//! Calls of NCCL: who belongs to which communicator, what goes through it, and who of its members came last.
//!
//! All processes of a node share a clock, so that the arrivals of its members at one collective can be compared here, where they happen.
//! A member's collectives are numbered as it calls them: the same number is the same collective for all, as NCCL demands of its callers.
#![expect(
    unsafe_code,
    reason = "kernel edge: map values are raw pointers, and memory of the caller is read by a helper"
)]

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
    macros::{map, uprobe, uretprobe},
    maps::{Array, HashMap, LruHashMap, PerCpuHashMap},
    programs::{ProbeContext, RetProbeContext},
};
use plumbline_ebpf::{
    cuda::{BUCKETS, Lost, bucket},
    nccl::{
        Action, ArrivalKey, Arrivals, Comm, CommKey, Cookie, ID_WORDS, Place, SLOTS, Skew, Traffic, TrafficKey,
        UNKNOWN, element_bytes, hash,
    },
};

use super::{
    BPF_F_NO_PREALLOC, BPF_NOEXIST,
    call::{cookie, registers, stack, stack_address},
    cuda::{add, is_captured, lost},
    thread::{Current, current},
};
use crate::kernel::user_word;

/// Ranks of one process that [`Action::InitAll`] begins: a node has no more GPUs.
const MOST_OF_ALL: u32 = 16;

/// Communicators of the node's processes; the agent takes out those of processes that have ended.
#[map]
static COMMS: HashMap<CommKey, Comm> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// How many members each has on this node. The agent sets it right when members end unseen.
#[map]
static MEMBERS: HashMap<u64, u64> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

#[map]
static TRAFFIC: PerCpuHashMap<TrafficKey, Traffic> = PerCpuHashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Collectives to which not all have come yet. What nobody ends gives way.
#[map]
static ARRIVALS: LruHashMap<ArrivalKey, Arrivals> = LruHashMap::with_max_entries(2048, 0);

/// Those that were booked, so that they are once.
#[map]
static BOOKED: LruHashMap<ArrivalKey, u8> = LruHashMap::with_max_entries(2048, 0);

#[map]
static SKEWS: HashMap<u64, Skew> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// One entry of zeros each, never written: what a new entry is made of.
#[map]
static NOBODY: Array<Arrivals> = Array::with_max_entries(1, 0);
#[map]
static NO_SKEW: Array<Skew> = Array::with_max_entries(1, 0);

/// Communicators that begin, by thread.
#[map]
static INITS: LruHashMap<u64, Init> = LruHashMap::with_max_entries(4096, 0);

/// Threads within `ncclGroupStart` and `ncclGroupEnd`.
#[map]
static GROUPS: LruHashMap<u64, Group> = LruHashMap::with_max_entries(4096, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct Init {
    out: u64,
    hash: u64,
    ranks: u32,
    rank: u32,
    action: u64,
}

/// What is called in a group begins at its end.
#[derive(Clone, Copy)]
#[repr(C)]
struct Group {
    depth: u64,
    /// The last collective; its hash is 0 where there is none.
    hash: u64,
    sequence: u64,
    signature: u64,
    rank: u64,
}

#[uprobe]
pub fn nccl_init_enter(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let all = registers(&ctx);
    let argument = |place| at(&ctx, &all, cookie.place(place));
    let mut init = Init { out: argument(0), hash: 0, ranks: UNKNOWN, rank: UNKNOWN, action: u64::from(cookie.action) };
    if cookie.action == Action::InitAll as u8 {
        init.ranks = argument(1) as u32;
    } else if cookie.action != Action::InitUnknown as u8 {
        init.ranks = argument(1) as u32;
        init.rank = argument(2) as u32;
        let id = if cookie.action == Action::InitByValue as u8 {
            stack_address(&ctx, cookie.place(3) & 7)
        } else {
            argument(3)
        };
        let mut words = [0_u64; ID_WORDS];
        // SAFETY: the helper checks the address and writes to the words at most.
        let failed = unsafe {
            bpf_probe_read_user(words.as_mut_ptr().cast(), size_of_val(&words) as u32, id as *const core::ffi::c_void)
        };
        if failed == 0 {
            init.hash = hash(&words);
        }
    }
    if let Some(Current { pid_tgid, .. }) = current() {
        let _ = INITS.insert(&pid_tgid, &init, 0);
    }
    0
}

#[uretprobe]
pub fn nccl_init_return(ctx: RetProbeContext) -> u32 {
    const IN_PROGRESS: u32 = 7;
    let Some(current) = current() else { return 0 };
    let Some(init) = INITS.get_ptr(&current.pid_tgid) else { return 0 };
    // SAFETY: a map value, read before it is removed.
    let init = unsafe { *init };
    let _ = INITS.remove(&current.pid_tgid);
    let result: u32 = ctx.ret();
    if result != 0 && result != IN_PROGRESS {
        return 0;
    }
    if init.action == Action::InitAll as u64 {
        // They are known to each other alone: the first handle's address and the process's start stand for the hash.
        let hash = (user_word(init.out) ^ current.start_boot_ns()) | 1;
        for rank in 0..MOST_OF_ALL {
            if rank >= init.ranks {
                break;
            }
            let comm = user_word(init.out.wrapping_add(8 * u64::from(rank)));
            begin(current, comm, Comm { hash, sequence: 0, ranks: init.ranks, rank });
        }
        return 0;
    }
    let comm = Comm { hash: init.hash, sequence: 0, ranks: init.ranks, rank: init.rank };
    begin(current, user_word(init.out), comm);
    0
}

#[inline(always)]
fn begin(current: Current, handle: u64, comm: Comm) {
    // What lies is not believed: a rank is one of the ranks.
    let is_sound = comm.rank == UNKNOWN || comm.rank < comm.ranks;
    let comm = if is_sound { comm } else { Comm { ranks: UNKNOWN, rank: UNKNOWN, ..comm } };
    if handle == 0 {
        return;
    }
    if COMMS.insert(&key(current, handle), &comm, 0).is_err() {
        lost(Lost::Communicators);
        return;
    }
    if comm.hash != 0 && comm.rank != UNKNOWN {
        if MEMBERS.get_ptr(&comm.hash).is_none() {
            let _ = MEMBERS.insert(&comm.hash, &0, BPF_NOEXIST);
        }
        match MEMBERS.get_ptr_mut(&comm.hash) {
            // SAFETY: a map value, added to atomically.
            Some(count) => unsafe { add(count, 1) },
            None => lost(Lost::Communicators),
        }
    }
}

#[uprobe]
pub fn nccl_end(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let handle = at(&ctx, &registers(&ctx), cookie.place(0));
    let Some(current) = current() else { return 0 };
    let key = key(current, handle);
    let Some(comm) = COMMS.get_ptr(&key) else { return 0 };
    // SAFETY: a map value, read before it is removed.
    let comm = unsafe { *comm };
    // Destroyed once, whoever says it how often.
    if COMMS.remove(&key).is_ok()
        && comm.rank != UNKNOWN
        && let Some(count) = MEMBERS.get_ptr_mut(&comm.hash)
    {
        // SAFETY: a map value, added to atomically.
        unsafe { add(count, u64::MAX) };
    }
    0
}

#[uprobe]
pub fn nccl_call(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let all = registers(&ctx);
    let argument = |place| at(&ctx, &all, cookie.place(place));
    let (handle, count, datatype) = (argument(0), argument(1), argument(2) as u32);
    let Some(current) = current() else { return 0 };
    let key = key(current, handle);
    let known = COMMS.get_ptr_mut(&key);
    let is_captured = is_captured(current, argument(3));
    let mut comm = Comm { hash: 0, sequence: 0, ranks: UNKNOWN, rank: UNKNOWN };
    if let Some(known) = known {
        // SAFETY: a map value. A communicator is its process's, which may not use it from two threads at a time (NCCL, "Thread Safety").
        unsafe {
            comm = *known;
            if cookie.action == Action::Collective as u8 && !is_captured {
                (*known).sequence = comm.sequence.wrapping_add(1);
            }
        }
    }
    let traffic_key = TrafficKey {
        start_boot_ns: key.start_boot_ns,
        hash: comm.hash,
        pid: key.pid,
        rank: comm.rank,
        function: cookie.function.into(),
        is_captured: is_captured.into(),
    };
    called(&traffic_key, count.wrapping_mul(element_bytes(datatype)));
    if cookie.action != Action::Collective as u8 || is_captured || comm.hash == 0 || comm.rank == UNKNOWN {
        return 0;
    }
    let signature = count ^ u64::from(datatype) << 48 ^ u64::from(cookie.function) << 56;
    match GROUPS.get_ptr_mut(&current.pid_tgid) {
        // SAFETY: a map value of this thread's own.
        Some(group) if unsafe { (*group).depth } > 0 => unsafe {
            (*group).hash = comm.hash;
            (*group).sequence = comm.sequence;
            (*group).signature = signature;
            (*group).rank = comm.rank.into();
        },
        _ => arrive(comm.hash, comm.sequence, comm.rank, signature),
    }
    0
}

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

#[uprobe]
pub fn nccl_group(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let Some(current) = current() else { return 0 };
    let pid_tgid = current.pid_tgid;
    // Of no communicator; counted for what it costs.
    let traffic_key = TrafficKey {
        start_boot_ns: current.start_boot_ns(),
        hash: 0,
        pid: current.pid(),
        rank: UNKNOWN,
        function: cookie.function.into(),
        is_captured: 0,
    };
    called(&traffic_key, 0);
    if cookie.action == Action::GroupStart as u8 {
        if let Some(group) = GROUPS.get_ptr_mut(&pid_tgid) {
            // SAFETY: a map value of this thread's own.
            unsafe { (*group).depth += 1 };
        } else {
            let _ = GROUPS.insert(&pid_tgid, &Group { depth: 1, hash: 0, sequence: 0, signature: 0, rank: 0 }, 0);
        }
        return 0;
    }
    let Some(group) = GROUPS.get_ptr_mut(&pid_tgid) else { return 0 };
    // SAFETY: a map value of this thread's own; read before it is removed.
    let group = unsafe {
        (*group).depth = (*group).depth.saturating_sub(1);
        *group
    };
    if group.depth == 0 {
        let _ = GROUPS.remove(&pid_tgid);
        if group.hash != 0 {
            arrive(group.hash, group.sequence, group.rank as u32, group.signature);
        }
    }
    0
}

/// A member has come to a collective. Who sees that all have come books how far apart they were.
#[inline(always)]
fn arrive(hash: u64, sequence: u64, rank: u32, signature: u64) {
    let members = MEMBERS.get_ptr(&hash);
    // SAFETY: a map value.
    let members = members.map_or(0, |members| unsafe { *members });
    if !(2..=SLOTS as u64).contains(&members) {
        return;
    }
    let key = ArrivalKey { hash, sequence };
    if ARRIVALS.get_ptr(&key).is_none() {
        let Some(nobody) = NOBODY.get(0) else { return };
        let _ = ARRIVALS.insert(&key, nobody, BPF_NOEXIST);
    }
    let Some(arrivals) = ARRIVALS.get_ptr_mut(&key) else { return };
    // SAFETY: a map value; the masked slot lies within.
    unsafe {
        let stamp = (&raw mut (*arrivals).stamps_ns).cast::<u64>().add(rank as usize & (SLOTS - 1));
        stamp.write_volatile(bpf_ktime_get_ns());
        if (*arrivals).signature == 0 {
            (*arrivals).signature = signature | 1;
        } else if (*arrivals).signature != signature | 1 {
            mismatch(hash);
            let _ = ARRIVALS.remove(&key);
            return;
        }
        // Without a branch: the verifier would follow every combination of who has come.
        let (mut came, mut first_ns, mut last_ns) = (0_u64, LATER_NS, 0_u64);
        for slot in 0..SLOTS {
            let ns = (&raw const (*arrivals).stamps_ns).cast::<u64>().add(slot).read_volatile();
            let has_come = (ns | ns.wrapping_neg()) >> 63;
            came += has_come;
            first_ns = less(first_ns, ns.wrapping_add(LATER_NS & has_come.wrapping_sub(1)));
            last_ns = last_ns.wrapping_add(ns).wrapping_sub(less(last_ns, ns));
        }
        // Two may see at once that all have come; one of them books it.
        if came < members || BOOKED.insert(&key, &1, BPF_NOEXIST).is_err() {
            return;
        }
        let Some(skew) = skew(hash) else { return };
        let late = (&raw mut (*skew).late_ns).cast::<u64>();
        for slot in 0..SLOTS {
            let ns = (&raw const (*arrivals).stamps_ns).cast::<u64>().add(slot).read_volatile();
            if ns > first_ns {
                add(late.add(slot), ns - first_ns);
            }
            if ns == last_ns {
                add((&raw mut (*skew).last).cast::<u64>().add(slot), 1);
            }
        }
        let _ = ARRIVALS.remove(&key);
        let between_ns = last_ns.wrapping_sub(first_ns);
        add((&raw mut (*skew).buckets).cast::<u64>().add(bucket(between_ns).min(BUCKETS - 1)), 1);
        add(&raw mut (*skew).sum_ns, between_ns);
    }
}

/// Later than any clock of a kernel, and less than half of what a word holds.
const LATER_NS: u64 = 1 << 62;

/// The smaller of two below 2^63.
#[inline(always)]
fn less(one: u64, other: u64) -> u64 {
    let difference = one.wrapping_sub(other);
    // The compiler would make a branch of it if it saw what it is.
    let mask = core::hint::black_box((difference.cast_signed() >> 63).cast_unsigned());
    other.wrapping_add(difference & mask)
}

#[inline(always)]
fn mismatch(hash: u64) {
    if let Some(skew) = skew(hash) {
        // SAFETY: a map value, added to atomically.
        unsafe { add(&raw mut (*skew).mismatched, 1) };
    }
}

#[inline(always)]
fn skew(hash: u64) -> Option<*mut Skew> {
    if SKEWS.get_ptr(&hash).is_none() {
        let _ = SKEWS.insert(&hash, NO_SKEW.get(0)?, BPF_NOEXIST);
    }
    SKEWS.get_ptr_mut(&hash)
}

#[inline(always)]
fn key(current: Current, comm: u64) -> CommKey {
    CommKey { start_boot_ns: current.start_boot_ns(), comm, pid: current.pid(), reserved: 0 }
}

/// The argument at a place.
#[inline(always)]
fn at(ctx: &ProbeContext, registers: &[u64; 8], place: u8) -> u64 {
    match Place::from_bits(place) {
        // The compiler knows that it is below eight, and would not say so to the verifier.
        Place::Register(number) => registers[usize::from(core::hint::black_box(number) & 7)],
        Place::Stack(word) => stack(ctx, word),
        Place::Nowhere => 0,
    }
}
