//! Who came when to a collective, or to a launch of a graph.
//!
//! All processes of a node share a clock, so that the arrivals of its members at one collective can be compared here, where they happen.
//! A member's collectives are numbered as it calls them: the same number is the same collective for all, as NCCL demands of its callers.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use plumbline_ebpf::{
    cuda::{BUCKETS, bucket},
    nccl::{ArrivalKey, Arrivals, Meeting, SLOTS, Skew, SkewKey},
};

use super::super::{BPF_F_NO_PREALLOC, BPF_NOEXIST, cuda::add};

/// How many members each has on this node. The agent sets it right when members end unseen.
#[map]
pub static MEMBERS: HashMap<u64, u64> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Collectives to which not all have come yet. What nobody ends gives way.
#[map]
static ARRIVALS: LruHashMap<ArrivalKey, Arrivals> = LruHashMap::with_max_entries(2048, 0);

/// Launches of graphs to which not all have come yet: of their own, as there may be many in which nobody else ever takes part.
#[map]
static LAUNCHES: LruHashMap<ArrivalKey, Arrivals> = LruHashMap::with_max_entries(1024, 0);

/// Those that were booked, so that they are once.
#[map]
static BOOKED: LruHashMap<BookedKey, u8> = LruHashMap::with_max_entries(4096, 0);

#[map]
static SKEWS: HashMap<SkewKey, Skew> = HashMap::with_max_entries(2048, BPF_F_NO_PREALLOC);

/// One entry of zeros each, never written: what a new entry is made of.
#[map]
static NOBODY: Array<Arrivals> = Array::with_max_entries(1, 0);
#[map]
static NO_SKEW: Array<Skew> = Array::with_max_entries(1, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct BookedKey {
    arrival: ArrivalKey,
    of: u64,
}

/// A member has come.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Arrival {
    /// With the hash 0 there is none.
    pub key: ArrivalKey,
    pub signature: u64,
    /// Since its one before, of a launch.
    pub interval_ns: u64,
    pub rank: u32,
    /// Members of this node without which nobody is compared.
    pub least: u32,
}

/// Of a communicator, on this node.
#[inline(always)]
pub fn members(hash: u64) -> u64 {
    // SAFETY: a map value.
    MEMBERS.get_ptr(&hash).map_or(0, |members| unsafe { *members })
}

/// Who sees that all have come books how far apart they were.
#[inline(always)]
pub fn arrive(arrival: &Arrival, at: Meeting) {
    let Arrival { key, signature, interval_ns, rank, least } = *arrival;
    let of = SkewKey { hash: key.hash, of: at as u64 };
    let hash = key.hash;
    let members = members(hash);
    if members < 2 || members < least.into() || members > SLOTS as u64 {
        return;
    }
    let awaited = match at {
        Meeting::Collective => &ARRIVALS,
        Meeting::GraphLaunch => &LAUNCHES,
    };
    if awaited.get_ptr(&key).is_none() {
        let Some(nobody) = NOBODY.get(0) else { return };
        let _ = awaited.insert(&key, nobody, BPF_NOEXIST);
    }
    let Some(arrivals) = awaited.get_ptr_mut(&key) else { return };
    // SAFETY: a map value; the masked slot lies within.
    unsafe {
        let stamp = (&raw mut (*arrivals).stamps_ns).cast::<u64>().add(rank as usize & (SLOTS - 1));
        stamp.write_volatile(bpf_ktime_get_ns());
        if (*arrivals).signature == 0 {
            (*arrivals).signature = signature | 1;
            (*arrivals).interval_ns = interval_ns;
        } else if (*arrivals).signature != signature | 1 {
            mismatch(&of);
            let _ = awaited.remove(&key);
            return;
        }
        (*arrivals).interval_ns = less((*arrivals).interval_ns, interval_ns);
        // Without a branch: the verifier would follow every combination of who has come.
        let (mut came, mut first_ns, mut last_ns) = (0_u64, LATER_NS, 0_u64);
        for slot in 0..SLOTS {
            let ns = (&raw const (*arrivals).stamps_ns).cast::<u64>().add(slot).read_volatile();
            let has_come = core::hint::black_box(ns | ns.wrapping_neg()) >> 63;
            came += has_come;
            first_ns = less(first_ns, ns.wrapping_add(LATER_NS & has_come.wrapping_sub(1)));
            last_ns = last_ns.wrapping_add(ns).wrapping_sub(less(last_ns, ns));
        }
        // Two may see at once that all have come; one of them books it.
        let booked = BookedKey { arrival: key, of: of.of };
        if came < members || BOOKED.insert(&booked, &1, BPF_NOEXIST).is_err() {
            return;
        }
        if at == Meeting::GraphLaunch {
            let is_row_end = key.launch == 0;
            if is_row_end || !are_of_one_step(arrivals, first_ns, last_ns, members) {
                let _ = awaited.remove(&key);
                if !is_row_end {
                    mismatch(&of);
                }
                return;
            }
        }
        let Some(skew) = skew(&of) else { return };
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
        let _ = awaited.remove(&key);
        let between_ns = last_ns.wrapping_sub(first_ns);
        add((&raw mut (*skew).buckets).cast::<u64>().add(bucket(between_ns).min(BUCKETS - 1)), 1);
        add(&raw mut (*skew).sum_ns, between_ns);
    }
}

/// Who launched one more than the others, once, is one step ahead for good: it comes alone, and the others a step later. Who is held up at each
/// step comes alone too, but last, when most have been there for long; and before the next step, which cannot begin without it.
///
/// SAFETY: a map value.
#[inline(always)]
unsafe fn are_of_one_step(arrivals: *const Arrivals, first_ns: u64, last_ns: u64, members: u64) -> bool {
    // SAFETY: by the caller's promise; each slot lies within.
    unsafe {
        let (apart_ns, step_ns) = (last_ns.wrapping_sub(first_ns), (*arrivals).interval_ns);
        // Without a branch, as above. Who has not come is not there for long.
        let mut soon = 0_u64;
        for slot in 0..SLOTS {
            let ns = (&raw const (*arrivals).stamps_ns).cast::<u64>().add(slot).read_volatile();
            let after_ns = ns.wrapping_sub(first_ns) & (LATER_NS - 1);
            soon += core::hint::black_box(after_ns.wrapping_sub(step_ns / 4)) >> 63;
        }
        let are_most_there = core::hint::black_box(members.wrapping_sub(soon * 2)) >> 63;
        let limit_ns = step_ns / 2 + step_ns / 4 * are_most_there;
        apart_ns < limit_ns
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
fn mismatch(of: &SkewKey) {
    if let Some(skew) = skew(of) {
        // SAFETY: a map value, added to atomically.
        unsafe { add(&raw mut (*skew).mismatched, 1) };
    }
}

#[inline(always)]
fn skew(of: &SkewKey) -> Option<*mut Skew> {
    if SKEWS.get_ptr(of).is_none() {
        let _ = SKEWS.insert(of, NO_SKEW.get(0)?, BPF_NOEXIST);
    }
    SKEWS.get_ptr_mut(of)
}
