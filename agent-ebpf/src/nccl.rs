//! What the kernel programs count of NCCL's calls, how an attachment says which call it is, and who of a communicator came when.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cuda::BUCKETS;

/// What is to be done at a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// A communicator's beginning, with a `ncclUniqueId` that lies on the stack: places are `[out, nranks, rank, id]`.
    InitByValue = 0,
    /// The same with a pointer to the id.
    InitByPointer = 1,
    /// All ranks of one process at once: `[comms, ndev]`.
    InitAll = 2,
    /// A communicator of which neither hash nor rank is known when it begins: `[out]`.
    InitUnknown = 3,
    /// Its end: `[comm]`.
    End = 4,
    /// All members take part: `[comm, count, datatype, stream]`.
    Collective = 5,
    /// One to one: `[comm, count, datatype, stream]`.
    PointToPoint = 6,
    GroupStart = 7,
    GroupEnd = 8,
}

/// Arguments of a function that matter.
pub const PLACES: usize = 4;

/// Where an argument is at a function's entry: a register for arguments, by its number, or a word of the stack behind the return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Register(u8),
    Stack(u8),
    Nowhere,
}

/// Registers that the four bits of a place can tell of.
const REGISTERS: u8 = 8;
const NOWHERE: u8 = 15;

impl Place {
    const fn to_bits(self) -> u8 {
        match self {
            Self::Register(number) => number & (REGISTERS - 1),
            Self::Stack(word) => REGISTERS + word % (NOWHERE - REGISTERS),
            Self::Nowhere => NOWHERE,
        }
    }

    pub const fn from_bits(bits: u8) -> Self {
        match bits & 15 {
            NOWHERE => Self::Nowhere,
            word if word >= REGISTERS => Self::Stack(word - REGISTERS),
            number => Self::Register(number),
        }
    }
}

/// Which function an attachment is of, as 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub function: u8,
    pub action: u8,
    places: u16,
}

impl Cookie {
    pub fn new(function: u8, action: Action, places: [Place; PLACES]) -> Self {
        let places = places.iter().rev().fold(0, |bits, place| bits << 4 | u16::from(place.to_bits()));
        Self { function, action: action as u8, places }
    }

    pub const fn to_bits(self) -> u64 {
        self.function as u64 | (self.action as u64) << 8 | (self.places as u64) << 16
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "bytes and words of it")]
    pub const fn from_bits(bits: u64) -> Self {
        Self { function: bits as u8, action: (bits >> 8) as u8, places: (bits >> 16) as u16 }
    }

    /// The bits of a place; [`Place::from_bits`] reads them.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "four bits")]
    pub const fn place(self, number: u32) -> u8 {
        (self.places >> (4 * number)) as u8 & 15
    }
}

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
    pub ranks: u32,
    pub rank: u32,
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

/// One collective of a communicator.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ArrivalKey {
    pub hash: u64,
    pub sequence: u64,
}

/// Who has come to it, and when.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Arrivals {
    /// CLOCK_MONOTONIC by slot, 0 for who has not come.
    pub stamps_ns: [u64; SLOTS],
    /// Function, data type and count, which have to be the same for all.
    pub signature: u64,
}

/// How far apart the members of a communicator came, over the collectives to which all of this node have come.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Skew {
    /// From the first to the last, as [`crate::cuda::bucket`] sorts.
    pub buckets: [u64; BUCKETS],
    pub sum_ns: u64,
    /// Collectives in which somebody called another one than the first.
    pub mismatched: u64,
    /// By slot: how long after the first.
    pub late_ns: [u64; SLOTS],
    /// By slot: how often the last.
    pub last: [u64; SLOTS],
}

/// Bytes of a `ncclUniqueId` (`NCCL_UNIQUE_ID_BYTES` in nccl.h), as words.
pub const ID_WORDS: usize = 16;

/// `commHash`: NCCL's own hash of a unique id, since 2.23.4 (`getHash` in `src/include/bitops.h`). Older ones have another (DJB2a), by which
/// their communicators are told apart as well, if not by the number that NCCL prints.
#[inline(always)]
pub fn hash(id: &[u64; ID_WORDS]) -> u64 {
    let (mut a, mut b) = (1_u64 ^ 128, 1_u64);
    let mut word = 0;
    while word < ID_WORDS {
        a = a.wrapping_add(b);
        b ^= a;
        a ^= a >> 31;
        a = a.wrapping_mul(0x9de6_2bbc_8cef_3ce3);
        b ^= b >> 32;
        b = b.wrapping_mul(0x485c_d631_1b59_9e79);
        a = a.wrapping_add(id[word]);
        word += 1;
    }
    a ^= a >> 31;
    a = a.wrapping_mul(0xbac3_bd56_2846_de6b);
    a = a.wrapping_add(b);
    a ^= a >> 32;
    a.wrapping_mul(0x995a_187a_14e7_b445)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_an_id_is_nccls_own() {
        let bytes: [u8; 128] = core::array::from_fn(|index| u8::try_from(index).unwrap_or_default());
        let mut id = [0; ID_WORDS];
        for (word, bytes) in id.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        assert_eq!(hash(&id), 0x6afe_1cc1_7717_e1f4);
    }

    #[test]
    fn a_cookie_says_what_it_was_made_of() {
        let places = [Place::Register(5), Place::Stack(0), Place::Stack(6), Place::Nowhere];
        let cookie = Cookie::from_bits(Cookie::new(9, Action::Collective, places).to_bits());
        let read: [Place; PLACES] =
            core::array::from_fn(|at| Place::from_bits(cookie.place(u32::try_from(at).unwrap_or(0))));
        assert_eq!((cookie.function, cookie.action, read), (9, Action::Collective as u8, places));
    }
}
