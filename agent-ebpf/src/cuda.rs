//! What the kernel programs count of the calls of CUDA's driver, and how an attachment says which call it is.
//!
//! The driver's functions are told apart by the cookie of their attachment (`bpf_get_attach_cookie`, Linux 5.15), so that one program
//! serves all of them and a new call is a row in the agent's table.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What is to be done at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// A launch of a single kernel: counted at its entry only, in the thread's own counts.
    Launch = 0,
    /// Count at its return, with its time and its error.
    Call = 1,
    /// As `Call`; its time is waiting, and goes into a histogram.
    Wait = 2,
    /// As `Call`; the handle that it leaves where the first argument points is of so many bytes as another argument says.
    Allocate = 3,
    /// As `Call`; its first argument is a handle that was allocated.
    Free = 4,
    /// As `Call`; another argument says how many bytes it moves.
    Copy = 5,
    /// As `Call`; the context that it leaves where the first argument points is of the device that another argument names.
    Context = 6,
    /// As `Context`, and the context is the thread's from now on.
    CreateContext = 7,
    /// As `Call`; the thread works in the context of its first argument from now on.
    SetContext = 8,
    /// As `Call`; the thread works on the device that its first argument is.
    SetDevice = 9,
    /// As `Call`; its thread, and the stream that its first argument is, record a graph from now on.
    BeginCapture = 10,
    /// As `Call`; they do not any more.
    EndCapture = 11,
    /// A launch of a graph: as `Launch`, and the members of the thread's communicator are compared by it.
    LaunchGraph = 12,
    /// As `Call`; it leaves the UUID of the device that another argument names where the first argument points.
    Identify = 13,
}

/// Which call an attachment is of, as 64 bits: call, action, the place of the argument that matters, counted from 0, the kind of its
/// handles, and the part of the calls that is looked at together with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub call: u8,
    pub action: u8,
    pub argument: u8,
    /// Handles that may be equal and are not the same have different ones.
    pub kind: u8,
    /// Below [`PARTS`].
    pub part: u8,
}

/// Parts of the calls, each of which is looked at or not.
pub const PARTS: usize = 3;

/// The part that launches of single kernels are of, and the one that those of graphs are.
pub const LAUNCHES: u8 = 0;
pub const STEPS: u8 = 1;

impl Cookie {
    pub const fn new(call: u8, action: Action, argument: u8, kind: u8, part: u8) -> Self {
        Self { call, action: action as u8, argument, kind, part }
    }

    pub const fn to_bits(self) -> u64 {
        let first = self.call as u64 | (self.action as u64) << 8 | (self.argument as u64) << 16;
        first | (self.kind as u64) << 24 | (self.part as u64) << 32
    }

    #[expect(clippy::cast_possible_truncation, reason = "a byte each")]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            call: bits as u8,
            action: (bits >> 8) as u8,
            argument: (bits >> 16) as u8,
            kind: (bits >> 24) as u8,
            part: (bits >> 32) as u8,
        }
    }
}

/// A device that nobody told of: the thread has set no context in our sight.
pub const UNKNOWN_DEVICE: u32 = u32::MAX;

/// Devices that a thread's own counts tell apart are below this one, which stands for all others and for those that are unknown.
pub const OTHER_DEVICE: u32 = 31;

/// Kinds of calls that are counted in a thread's own counts.
pub const KINDS: usize = 2;

/// Each has a program of its own, which need not ask which call it is at.
pub const KIND_LAUNCH: u8 = 0;
pub const KIND_GRAPH_LAUNCH: u8 = 1;

pub const COUNTS: usize = (OTHER_DEVICE as usize + 1) * KINDS;

/// Where in a thread's counts a call is counted.
#[inline(always)]
pub const fn count_of(device: u32, kind: u8) -> usize {
    let device = if device < OTHER_DEVICE { device } else { OTHER_DEVICE };
    device as usize * KINDS + (kind as usize % KINDS)
}

/// A thread that has called something.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Thread {
    /// The kernel's `task_struct`: another one has this thread's number when it is another.
    pub task: u64,
    /// Of the process.
    pub start_boot_ns: u64,
    /// Of its current context.
    pub device: u32,
    /// 1 while it records a graph: what it calls is not done now.
    pub is_capturing: u32,
    pub launches: Launches,
    /// Calls of [`Action::Launch`] and [`Action::LaunchGraph`], at [`count_of`].
    pub counts: [u64; COUNTS],
}

/// Launches of graphs by a thread, numbered from the last collective that it called or recorded: as all members of a communicator call and
/// launch the same in the same order, the same number is the same graph for all, whatever was not looked at before.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Launches {
    /// Of the communicator; 0 where there is none.
    pub hash: u64,
    /// Which of its collectives, those that were recorded among them.
    pub collective: u64,
    pub number: u64,
    /// When the last one was, or the collective: CLOCK_MONOTONIC.
    pub last_ns: u64,
    pub rank: u32,
    /// Members of this node without which nobody is compared.
    pub least: u32,
    /// Since when launches have been looked at without a gap, as `WATCHED` has it; 0 where they were not.
    pub watch: u32,
    /// 1 where the collective was recorded into a graph: that is what graphs replay, whatever is called besides.
    pub is_recorded: u32,
}

/// One call of one process on one device, which is numbered as the process numbers its own (`CUDA_VISIBLE_DEVICES`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CallKey {
    /// With the process's number, names it for good: numbers are used again.
    pub start_boot_ns: u64,
    pub pid: u32,
    pub device: u32,
    pub call: u32,
    /// The result (`CUresult`) for entries of failures, otherwise 0.
    pub result: u32,
}

/// What was counted of a call, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CallStats {
    pub calls: u64,
    /// Allocated, freed or copied, by calls that did not fail.
    pub bytes: u64,
    /// From entry to return; 0 where only entries are counted.
    pub ns: u64,
}

/// Something of a process: an allocation's or a context's handle.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HandleKey {
    pub start_boot_ns: u64,
    pub pid: u32,
    /// [`Cookie::kind`], [`KIND_CONTEXT`] or [`KIND_STREAM`].
    pub kind: u32,
    pub handle: u64,
}

/// `HandleKey::kind` of a context.
pub const KIND_CONTEXT: u32 = u32::MAX;

/// `HandleKey::kind` of a stream.
pub const KIND_STREAM: u32 = u32::MAX - 1;

/// `HandleKey::kind` of a device, whose handle is the process's own number of it.
pub const KIND_DEVICE: u32 = u32::MAX - 2;

/// Devices of one process that are told apart by their UUIDs: those of lower numbers.
pub const MOST_DEVICES: u64 = 64;

/// `CUuuid` of `cuda.h`: sixteen octets, the first in front.
pub const UUID_BYTES: usize = 16;

/// What a handle is of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Handle {
    pub bytes: u64,
    pub device: u32,
    pub reserved: u32,
}

/// Buckets of a histogram of waits.
pub const BUCKETS: usize = 50;

/// The first bucket holds what took less than `2^FIRST_BITS` ns, about a microsecond.
const FIRST_BITS: u32 = 10;

/// Waits of one call of one process on one device, by how long they took.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Waits {
    pub buckets: [u64; BUCKETS],
}

/// Which bucket a time belongs to: two for each power of two, so that a bound is at most half as much again as the one before; the last
/// takes all that is longer.
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    if ns < 1 << FIRST_BITS {
        return 0;
    }
    let power = 63 - ns.leading_zeros();
    let upper_half = (ns >> (power - 1)) & 1;
    let bucket = 1 + ((power - FIRST_BITS) as usize) * 2 + upper_half as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The time below which a bucket's lie, ns; `None` for the last.
pub const fn bound_ns(bucket: usize) -> Option<u64> {
    if bucket + 1 >= BUCKETS {
        return None;
    }
    let half_steps = bucket as u64;
    let power = FIRST_BITS as u64 + half_steps / 2;
    Some(if half_steps.is_multiple_of(2) { 1 << power } else { 3 << (power - 1) })
}

/// Why something is not in the counts: the maps that hold them were full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Lost {
    /// A process, device and call for which there was no room.
    Calls = 0,
    /// A handle for which there was no room, or which was freed and is not known: allocated before our time, or otherwise than by what is
    /// looked at.
    Handles = 1,
    /// A call whose entry was not remembered until its return.
    InFlight = 2,
    /// A communicator, or one's traffic, for which there was no room.
    Communicators = 3,
    /// What was to be told at once, and found its ring full.
    Records = 4,
}

pub const LOST: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_below_its_buckets_bound_and_not_below_the_one_before() {
        for ns in (0..60).flat_map(|power| [1_u64 << power, (1 << power) - 1, 3 << power, 5 << power]) {
            let bucket = bucket(ns);
            assert!(bound_ns(bucket).is_none_or(|bound| ns < bound), "{ns}");
            assert!(bucket == 0 || bound_ns(bucket - 1).is_some_and(|bound| bound <= ns), "{ns}");
        }
        assert_eq!(
            (bound_ns(0), bound_ns(1), bound_ns(2), bound_ns(BUCKETS - 1)),
            (Some(1024), Some(1536), Some(2048), None)
        );
    }

    #[test]
    fn a_count_has_a_place_of_its_own_for_each_device_and_those_beyond_are_unknown() {
        let places =
            (0..OTHER_DEVICE).chain([UNKNOWN_DEVICE]).flat_map(|device| [0, 1].map(|kind| count_of(device, kind)));
        assert!(places.eq(0..COUNTS));
        assert_eq!(count_of(31, 1), count_of(UNKNOWN_DEVICE, 1));
        assert_eq!(count_of(u32::MAX - 1, 0), count_of(UNKNOWN_DEVICE, 0));
    }

    #[test]
    fn a_cookie_says_what_it_was_made_of() {
        let cookie = Cookie::new(7, Action::SetContext, 5, 1, 2);
        assert_eq!(Cookie::from_bits(cookie.to_bits()), cookie);
    }
}
