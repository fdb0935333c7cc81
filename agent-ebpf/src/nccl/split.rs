//! Which rank the members of a communicator have in one that they split off it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ranks of a communicator that is split; of a larger one it is not known who becomes who.
pub const MOST_RANKS: usize = 32;

/// One split of a communicator.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SplitKey {
    pub parent: u64,
    /// Which of its children, counted from 1.
    pub child: u64,
}

/// What the ranks of the parent asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Split {
    pub wishes: [Wish; MOST_RANKS],
    /// Of the parent.
    pub ranks: u64,
}

/// What one rank asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Wish {
    /// 1 when it has asked.
    pub has_come: u32,
    pub color: u32,
    pub key: i32,
    pub reserved: u32,
}

/// A rank's place in what it was split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub rank: u32,
    pub ranks: u32,
}

/// Of those with one colour by key, and among equals by their rank in the parent (`commGetSplitInfo` in NCCL's `src/init.cc`). `None` while not
/// all have come, or where there are more than [`MOST_RANKS`].
///
/// Without a branch in the loop: the kernel's verifier would follow every combination of who has asked for what.
#[inline(always)]
pub fn seat(wish: impl Fn(usize) -> Wish, parent_ranks: u64, parent_rank: u32) -> Option<Seat> {
    let me = parent_rank as usize & (MOST_RANKS - 1);
    let mine = wish(me);
    let (mut come, mut ranks, mut rank) = (0_u32, 0_u32, 0_u32);
    let mut at = 0;
    while at < MOST_RANKS {
        let other = wish(at);
        let is_peer = other.has_come & is_equal(other.color, mine.color);
        let is_before = is_less(other.key.into(), mine.key.into())
            | is_equal(other.key.cast_unsigned(), mine.key.cast_unsigned()) & is_less(at as i64, me as i64);
        come += other.has_come;
        ranks += is_peer;
        rank += is_peer & is_before;
        at += 1;
    }
    (u64::from(come) == parent_ranks).then_some(Seat { rank, ranks })
}

/// 1 or 0.
#[inline(always)]
fn is_equal(one: u32, other: u32) -> u32 {
    let difference = u64::from(one ^ other);
    // The compiler would make a branch of it if it saw what it is.
    core::hint::black_box((difference.wrapping_sub(1) >> 63) as u32)
}

/// 1 or 0, of what has 33 bits.
#[inline(always)]
fn is_less(one: i64, other: i64) -> u32 {
    core::hint::black_box(((one - other).cast_unsigned() >> 63) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colour and key of each rank, and the seat of each.
    #[track_caller]
    fn check(wishes: &[(u32, i32)], expect: &[(u32, u32)]) {
        let all = of(wishes);
        let ranks = u32::try_from(wishes.len()).unwrap_or(0);
        let found: [Option<Seat>; MOST_RANKS] =
            core::array::from_fn(|rank| seat(|at| all[at], ranks.into(), u32::try_from(rank).unwrap_or(0)));
        for (rank, (expected, found)) in expect.iter().zip(found).enumerate() {
            assert_eq!(found, Some(Seat { rank: expected.0, ranks: expected.1 }), "{rank}");
        }
        assert_eq!(seat(|at| all[at], u64::from(ranks) + 1, 0), None);
    }

    fn of(wishes: &[(u32, i32)]) -> [Wish; MOST_RANKS] {
        core::array::from_fn(|at| {
            wishes.get(at).map_or(Wish::default(), |(color, key)| Wish {
                has_come: 1,
                color: *color,
                key: *key,
                reserved: 0,
            })
        })
    }

    #[test]
    fn members_of_a_colour_are_seated_by_key_and_then_by_their_old_rank() {
        check(&[(0, 0)], &[(0, 1)]);
        check(&[(0, 0), (1, 0), (0, 0), (1, 0)], &[(0, 2), (0, 2), (1, 2), (1, 2)]);
        check(&[(0, 9), (0, 3), (0, -1), (0, 3)], &[(3, 4), (1, 4), (0, 4), (2, 4)]);
        check(&[(7, i32::MAX), (7, i32::MIN), (8, 0)], &[(1, 2), (0, 2), (0, 1)]);
        // Who wants to be in none (NCCL_SPLIT_NOCOLOR) is of a colour of its own here.
        check(&[(u32::MAX, 0), (0, 0), (0, 0)], &[(0, 1), (0, 2), (1, 2)]);
        let all: [(u32, u32); MOST_RANKS] = core::array::from_fn(|at| (u32::try_from(at).unwrap_or(0), 32));
        check(&[(5, 0); MOST_RANKS], &all);
    }
}
