//! Communicators of the members of another.
//!
//! Their hash follows of their parent's. Who becomes which rank of a split is said by nobody: it follows of what all ranks of the parent
//! asked for, which is known where all of them are on this node. All have asked before NCCL gives any of them its handle.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use aya_ebpf::{
    EbpfContext as _,
    macros::{map, uprobe},
    maps::{Array, LruHashMap},
    programs::ProbeContext,
};
use plumbline_ebpf::nccl::{
    Action, Comm, Cookie, UNKNOWN,
    hash::of_child,
    split::{MOST_RANKS, Seat, Split, SplitKey, Wish, seat},
};

use super::{
    super::{BPF_NOEXIST, call::cookie, thread::current},
    Arguments,
    calls::called_only,
    comms::{Init, admit, begins, begins_none, find},
    user_u32,
};
/// Ranks that [`Action::Shrink`] leaves out, as far as they are read.
const MOST_EXCLUDED: u32 = 64;

/// Uses of a communicator in which its rank is looked for: where not all ranks of the parent are of this node, it will not be found.
const MOST_TRIES: u32 = 256;

/// What was asked for. What is over gives way.
#[map]
static SPLITS: LruHashMap<SplitKey, Split> = LruHashMap::with_max_entries(512, 0);

/// One entry of zeros, never written: what a new split is made of.
#[map]
static NO_SPLIT: Array<Split> = Array::with_max_entries(1, 0);

#[uprobe]
pub fn nccl_split_enter(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let arguments = Arguments::of(&ctx);
    let argument = |place| arguments.at(cookie.place(place));
    let (out, handle, third, fourth) = (argument(0), argument(1), argument(2), argument(3));
    let Some(current) = current() else { return 0 };
    called_only(current, cookie.function);
    let mut comm = Comm::UNKNOWN;
    let parent = find(current, handle);
    if cookie.action == Action::Grow as u8 {
        // Its hash follows of numbers that are NCCL's own.
        comm.ranks = third as u32;
        comm.rank = fourth as u32;
    }
    if let Some(parent) = parent {
        // SAFETY: a map value; its process may not use it from two threads at a time.
        let of_parent = unsafe {
            if cookie.action != Action::Shrink as u8 {
                (*parent).children = (*parent).children.wrapping_add(1);
            }
            *parent
        };
        match cookie.action {
            SPLIT => split(&of_parent, third as u32, fourth as u32, &mut comm),
            SHRINK => shrink(&of_parent, third, fourth as u32, &mut comm),
            _ => comm.rank = of_parent.rank,
        }
    }
    // NCCL_SPLIT_NOCOLOR: of what comes of it, the caller is no member.
    if cookie.action == SPLIT && (third as u32).cast_signed() < 0 {
        begins_none(current);
        return 0;
    }
    begins(current, &Init { out, parent: handle, action: cookie.action.into(), comm });
    0
}

const SPLIT: u8 = Action::Split as u8;
const SHRINK: u8 = Action::Shrink as u8;

#[inline(always)]
fn split(parent: &Comm, color: u32, key: u32, comm: &mut Comm) {
    if parent.hash == 0 {
        return;
    }
    comm.hash = of_child(parent.hash, parent.children, color);
    if parent.rank == UNKNOWN || parent.ranks > MOST_RANKS as u32 {
        return;
    }
    let split = SplitKey { parent: parent.hash, child: parent.children.into() };
    if SPLITS.get_ptr(&split).is_none() {
        let Some(nothing) = NO_SPLIT.get(0) else { return };
        let _ = SPLITS.insert(&split, nothing, BPF_NOEXIST);
    }
    let Some(asked) = SPLITS.get_ptr_mut(&split) else { return };
    let wish = Wish { has_come: 1, color, key: key.cast_signed(), reserved: 0 };
    // SAFETY: a map value; the masked place lies within.
    unsafe {
        (*asked).ranks = parent.ranks.into();
        let place = core::hint::black_box(parent.rank as usize) & (MOST_RANKS - 1);
        (&raw mut (*asked).wishes).cast::<Wish>().add(place).write_volatile(wish);
    }
    comm.split = split;
    comm.parent_rank = parent.rank;
}

/// Those who stay keep their order (`getParentRanks` in NCCL's `src/init.cc`).
#[inline(always)]
fn shrink(parent: &Comm, excluded: u64, count: u32, comm: &mut Comm) {
    if parent.hash != 0 {
        comm.hash = of_child(parent.hash, 0, 0);
    }
    if parent.rank == UNKNOWN || parent.ranks == UNKNOWN || count > MOST_EXCLUDED || count >= parent.ranks {
        return;
    }
    let mut before = 0_u32;
    for at in 0..MOST_EXCLUDED {
        if at >= count {
            break;
        }
        let Some(rank) = user_u32(excluded.wrapping_add(4 * u64::from(at))) else { return };
        // Without a branch, which the verifier would follow each time.
        before += (u64::from(rank).wrapping_sub(parent.rank.into()) >> 63) as u32;
    }
    comm.ranks = parent.ranks.wrapping_sub(count);
    comm.rank = parent.rank.wrapping_sub(before);
}

/// Learns the rank of what was split off, as soon as all have said what they want. Whether it did is a number, as kernels refuse what a
/// function without a result leaves.
#[inline(never)]
pub fn learn(comm: *mut Comm) -> u64 {
    // SAFETY: a map value.
    let (split, parent_rank, hash) = unsafe {
        (*comm).tries += 1;
        if (*comm).tries > MOST_TRIES {
            (*comm).split.child = 0;
        }
        ((*comm).split, (*comm).parent_rank, (*comm).hash)
    };
    let Some(asked) = SPLITS.get_ptr(&split) else { return 0 };
    // SAFETY: a map value; the masked place lies within.
    let found = unsafe {
        let wish = |at: usize| {
            let place = core::hint::black_box(at) & (MOST_RANKS - 1);
            (&raw const (*asked).wishes).cast::<Wish>().add(place).read_volatile()
        };
        seat(wish, (*asked).ranks, parent_rank)
    };
    if let Some(Seat { rank, ranks }) = found {
        // SAFETY: a map value; its process may not use it from two threads at a time.
        unsafe {
            (*comm).rank = rank;
            (*comm).ranks = ranks;
        }
        admit(hash);
    }
    found.is_some().into()
}
