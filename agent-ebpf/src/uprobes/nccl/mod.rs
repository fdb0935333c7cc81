//! Calls of NCCL: who belongs to which communicator, what goes through it, and who of its members came last.
//!
//! | file | its one job |
//! |---|---|
//! | `comms` | communicators begin, tell of themselves, and end |
//! | `split` | communicators of the members of another |
//! | `calls` | collectives, transfers and groups of them |
//! | `arrivals` | who came when to a collective, or to a launch of a graph |
//! | `launches` | which launch of a graph is the same for all members |

#![expect(unsafe_code, reason = "kernel edge: memory of the caller is read by a helper")]

use aya_ebpf::{helpers::generated::bpf_probe_read_user, programs::ProbeContext};
use plumbline_ebpf::nccl::{CommKey, Place};

use super::{
    call::{registers, stack},
    thread::Current,
};

mod arrivals;
mod calls;
mod comms;
mod launches;
mod split;

/// Four bytes of the caller's memory.
#[inline(always)]
fn user_u32(address: u64) -> Option<u32> {
    let mut word = 0_u32;
    // SAFETY: the helper checks the address and writes four bytes.
    let failed = unsafe { bpf_probe_read_user((&raw mut word).cast(), 4, address as *const core::ffi::c_void) };
    (failed == 0).then_some(word)
}

#[inline(always)]
fn key(current: Current, comm: u64) -> CommKey {
    CommKey { start_boot_ns: current.start_boot_ns(), comm, pid: current.pid(), reserved: 0 }
}

/// What is at the places of a cookie.
struct Arguments<'c> {
    ctx: &'c ProbeContext,
    registers: [u64; 8],
}

impl<'c> Arguments<'c> {
    #[inline(always)]
    fn of(ctx: &'c ProbeContext) -> Self {
        Self { ctx, registers: registers(ctx) }
    }

    #[inline(always)]
    fn at(&self, place: u8) -> u64 {
        match Place::from_bits(place) {
            // The compiler knows that it is below eight, and would not say so to the verifier.
            Place::Register(number) => self.registers[usize::from(core::hint::black_box(number) & 7)],
            Place::Stack(word) => stack(self.ctx, word),
            Place::Nowhere => 0,
        }
    }
}
