//! What the kernel programs count of NCCL's calls, and who of a communicator came when. `cookie` is how an attachment says which function it
//! is of, `hash` how NCCL names communicators, `split` who becomes which rank of what was split off.

mod cookie;
pub mod hash;
pub mod split;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::cookie::{Action, Cookie, PLACES, Place};
use self::split::SplitKey;
use crate::cuda::BUCKETS;

/// A rank or a number of ranks that nobody told of.
pub const UNKNOWN: u32 = u32::MAX;

/// A communicator as its process names it: by the address of its handle.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CommKey {
    pub start_boot_ns: u64,
    pub comm: u64,
    pub pid: u32,
    pub reserved: u32,
}

/// One rank's part in a communicator.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Comm {
    /// NCCL's own (`commHash`), which all ranks share; 0 where it is not known.
    pub hash: u64,
    /// Collectives so far, those that were captured left out.
    pub sequence: u64,
    /// All of them.
    pub collectives: u64,
    pub ranks: u32,
    pub rank: u32,
    /// How often it was split (NCCL's `childCount`).
    pub children: u32,
    /// What NCCL last said went wrong (`ncclResult_t`); 0 for nothing.
    pub error: u32,
    /// Which results it has said so far, as bits.
    pub told_errors: u32,
    pub reserved: u32,
    /// Where its rank is to be learnt while it is unknown; all zeros if nowhere.
    pub split: SplitKey,
    /// In the communicator that was split.
    pub parent_rank: u32,
    /// How often its rank was looked for.
    pub tries: u32,
}

impl Comm {
    /// Of which nothing is known.
    pub const UNKNOWN: Self = Self {
        hash: 0,
        sequence: 0,
        collectives: 0,
        ranks: UNKNOWN,
        rank: UNKNOWN,
        children: 0,
        error: 0,
        told_errors: 0,
        reserved: 0,
        split: SplitKey { parent: 0, child: 0 },
        parent_rank: 0,
        tries: 0,
    };
}

/// One function of one rank.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TrafficKey {
    pub start_boot_ns: u64,
    pub hash: u64,
    pub pid: u32,
    pub rank: u32,
    pub function: u32,
    /// 1 while a graph is recorded: nothing is sent then.
    pub is_captured: u32,
}

/// What was counted of it, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Traffic {
    pub calls: u64,
    /// Elements times their size, as the caller counts them.
    pub bytes: u64,
}

/// Members of a communicator on one node are told apart by their rank's lowest bits: enough for those of a node that follow each other.
pub const SLOTS: usize = 32;

/// At what members of a communicator meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Meeting {
    Collective = 0,
    GraphLaunch = 1,
}

/// One collective of a communicator, or one launch of a graph.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ArrivalKey {
    pub hash: u64,
    pub sequence: u64,
    /// Counted from 1 after the collective of this number; 0 for a collective, and for the end of a row of launches.
    pub launch: u64,
}

/// What members of a communicator are compared by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SkewKey {
    pub hash: u64,
    /// A [`Meeting`].
    pub of: u64,
}

/// Who has come to it, and when.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Arrivals {
    /// CLOCK_MONOTONIC by slot, 0 for who has not come.
    pub stamps_ns: [u64; SLOTS],
    /// Function, data type and count, which have to be the same for all; of a row of launches how many they were.
    pub signature: u64,
    /// Of launches: the shortest time that one had taken since its one before. Who comes much later may have come for another.
    pub interval_ns: u64,
}

/// How far apart the members of a communicator came, over what all of this node have come to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Skew {
    /// From the first to the last, as [`crate::cuda::bucket`] sorts.
    pub buckets: [u64; BUCKETS],
    pub sum_ns: u64,
    /// Collectives in which somebody called another one than the first; launches of which it cannot be told whether they are the same.
    pub mismatched: u64,
    /// By slot: how long after the first.
    pub late_ns: [u64; SLOTS],
    /// By slot: how often the last.
    pub last: [u64; SLOTS],
}

/// Bytes of one element of a `ncclDataType_t`; 0 for one that is not known.
#[inline(always)]
pub const fn element_bytes(datatype: u32) -> u64 {
    match datatype {
        0 | 1 | 10 | 11 => 1,
        6 | 9 => 2,
        2 | 3 | 7 => 4,
        4 | 5 | 8 => 8,
        _ => 0,
    }
}
