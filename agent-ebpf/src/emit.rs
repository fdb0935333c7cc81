//! Rings and counters: every record that was due is counted, and so is every one that found its ring full.
#![expect(unsafe_code, reason = "kernel edge: map values and ring reservations are raw pointers")]

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use plumbline_ebpf::{
    program,
    record::{Counters, Header},
};

use crate::task;

/// Opens and connections. The agent sizes it at load.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Fork, exec, exit: a lane of its own, so that a flood of one cannot starve the other.
#[map]
static LIFECYCLE: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(program::COUNT, 0);

/// Which ring a record goes to.
#[derive(Clone, Copy)]
pub enum Lane {
    Events,
    Lifecycle,
}

impl Lane {
    #[inline(always)]
    fn ring(self) -> &'static RingBuf {
        match self {
            Self::Events => &EVENTS,
            Self::Lifecycle => &LIFECYCLE,
        }
    }
}

/// Takes the next number of `program` on this CPU.
#[inline(always)]
fn next_sequence(program: u32) -> u64 {
    let Some(counters) = COUNTERS.get_ptr_mut(program) else { return 0 };
    // SAFETY: a per-CPU map value of two integers. Tracing programs of one number do not nest on a CPU (the kernel's
    // recursion guard). Cgroup and LSM programs can be preempted by themselves: then a number may repeat.
    unsafe {
        let sequence = (*counters).generated;
        (*counters).generated = sequence + 1;
        sequence
    }
}

#[inline(always)]
fn count_ring_full(program: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(program) {
        // SAFETY: as in `next_sequence`.
        unsafe { (*counters).ring_full += 1 };
    }
}

/// Fills the header of a record that is due now.
#[inline(always)]
pub fn stamp(header: *mut Header, kind: u32, program: u32, task: u64) {
    let sequence = next_sequence(program);
    // SAFETY: `header` points into a ring reservation or a map value of the caller.
    unsafe {
        (*header).kind = kind;
        (*header).program = program;
        (*header).cpu = bpf_get_smp_processor_id();
        (*header).reserved = 0;
        (*header).sequence = sequence;
        (*header).boot_ns = bpf_ktime_get_boot_ns();
    }
    task::describe(header, task);
}

/// Writes one record of fixed size: `fill` gets the reservation.
#[inline(always)]
pub fn record<T: 'static>(lane: Lane, program: u32, fill: impl FnOnce(*mut T)) {
    let Some(mut slot) = lane.ring().reserve::<T>(0) else {
        next_sequence(program);
        count_ring_full(program);
        return;
    };
    fill(slot.as_mut_ptr());
    slot.submit(0);
}

/// Writes `bytes` of a map value. The caller bounds `bytes` by the value's size.
#[inline(always)]
pub fn bytes(lane: Lane, program: u32, start: *const u8, bytes: usize) {
    // SAFETY: `start` is a map value of at least `bytes` bytes; the verifier checks it.
    let slice = unsafe { core::slice::from_raw_parts(start, bytes) };
    if lane.ring().output::<[u8]>(slice, 0).is_err() {
        count_ring_full(program);
    }
}
