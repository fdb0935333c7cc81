//! Which launch of a graph is the same for all members of a communicator.
//!
//! What a graph replays of NCCL is called nowhere. But members launch their graphs when they come to them, so that who launches late is late:
//! launches are numbered by each thread from the last collective that it called or recorded, which is the same for all members, and those of
//! the same number are compared.

use aya_ebpf::{EbpfContext as _, macros::uprobe, programs::ProbeContext};
use plumbline_ebpf::{
    cuda::{Cookie, Launches, STEPS},
    nccl::{ArrivalKey, Comm, Meeting},
};

use super::{
    super::{
        call::cookie,
        cuda::{is_captured, watch},
        thread::{Current, current},
    },
    arrivals::{Arrival, arrive},
};
use crate::kernel::zero;

/// The thread calls or records a collective, from which its launches are numbered now.
#[inline(always)]
pub fn follow(current: Current, comm: &Comm, least: u32, is_recorded: bool) {
    let before = current.launches();
    let is_same = before.hash == comm.hash && before.rank == comm.rank;
    if before.is_recorded != 0 && !is_recorded && !is_same {
        return;
    }
    let watch = watch(STEPS);
    if before.number > 0 && before.watch == watch {
        core::hint::black_box(come(&at(&before, 0, before.number)));
    }
    current.set_launches(Launches {
        hash: comm.hash,
        collective: comm.collectives,
        number: 0,
        rank: comm.rank,
        least,
        watch,
        is_recorded: (is_recorded || before.is_recorded != 0).into(),
    });
}

#[uprobe]
pub fn cuda_launch_graph(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let watch = watch(cookie.part);
    if watch == 0 {
        return 0;
    }
    let stream: u64 = ctx.arg(1).unwrap_or(0);
    let Some(current) = current() else { return 0 };
    current.count(&cookie);
    let mut launches = current.launches();
    if launches.hash == 0 || launches.watch != watch || is_captured(current, stream) {
        return 0;
    }
    launches.number += 1;
    current.set_launches(launches);
    core::hint::black_box(come(&at(&launches, launches.number, 0)));
    0
}

#[inline(always)]
fn at(launches: &Launches, launch: u64, signature: u64) -> Arrival {
    let key = ArrivalKey { hash: launches.hash, sequence: launches.collective, launch };
    Arrival { key, signature: signature << 1, rank: launches.rank, least: launches.least }
}

/// It returns a number, as kernels refuse what a function without a result leaves.
#[inline(never)]
fn come(arrival: &Arrival) -> u64 {
    arrive(arrival, Meeting::GraphLaunch);
    zero()
}
