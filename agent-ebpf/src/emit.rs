//! Rings and counters: every record that was due is counted, and so is every one that found its ring full.
#![expect(unsafe_code, reason = "kernel edge: map values and ring reservations are raw pointers")]

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use plumbline_ebpf::{
    program,
    record::{Counters, Header},
};

use crate::{decide, path, task};

/// Opens and connections. The agent sizes it at load.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Fork, exec, exit: a lane of its own, so that a flood of one cannot starve the other.
#[map]
static LIFECYCLE: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Messages of the domain name system, which whoever asks much may make many of: a lane of its own too.
#[map]
static NAMES: RingBuf = RingBuf::with_byte_size(1 << 19, 0);

#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(program::COUNT, 0);

/// Room to build a record with a path in, larger than a stack.
#[repr(C)]
pub struct Scratch<T> {
    pub record: T,
    pub path: path::Area,
}

#[map]
static SCRATCH: PerCpuArray<Scratch<[u8; HEAD_BYTES]>> = PerCpuArray::with_max_entries(Slot::COUNT, 0);

/// The largest record before its path.
const HEAD_BYTES: usize = 160;

/// One slot per kernel program that spells paths: another program may preempt it on its CPU, itself it cannot (the
/// kernel skips it then, and counts that).
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Slot {
    FileOpen,
    FileReceive,
    FileRead,
    SystemCallReturn,
    IoUring,
    Exec,
    Rename,
    Unlink,
    Link,
    PathTruncate,
    FileTruncate,
    Clone,
    Map,
    Allocate,
    DnsReceive,
    DnsSend4,
    DnsSend6,
    DnsStreamSend,
    DnsStreamReceive,
}

impl Slot {
    const COUNT: u32 = 19;
}

/// The slot's room for a record `T` and its path.
#[inline(always)]
pub fn scratch<T>(slot: Slot) -> Option<*mut Scratch<T>> {
    const { assert!(size_of::<T>() <= HEAD_BYTES && align_of::<T>() <= 8) };
    SCRATCH.get_ptr_mut(slot as u32).map(|slot| slot.cast())
}

/// Slots that a program which another task can preempt is at work in.
#[map]
static CLAIMED: PerCpuArray<u32> = PerCpuArray::with_max_entries(Slot::COUNT, 0);

/// Takes the slot for a program of the security hooks: those are not kept from running while the same program, preempted on
/// this CPU, has not ended (`bpf_prog_check_recur` of include/linux/bpf_verifier.h leaves them out). A record that finds its slot
/// taken is lost, and counted.
#[inline(always)]
pub fn claim(slot: Slot, program: u32) -> bool {
    let Some(claimed) = CLAIMED.get_ptr_mut(slot as u32) else { return false };
    // SAFETY: a map value of this CPU; volatile, since whoever preempts looks at it.
    unsafe {
        if core::ptr::read_volatile(claimed) != 0 {
            next_sequence(program);
            count_ring_full(program);
            return false;
        }
        core::ptr::write_volatile(claimed, 1);
    }
    true
}

/// Gives it back.
#[inline(always)]
pub fn release(slot: Slot) {
    if let Some(claimed) = CLAIMED.get_ptr_mut(slot as u32) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(claimed, 0) };
    }
}

/// Which ring a record goes to.
#[derive(Clone, Copy)]
pub enum Lane {
    Events,
    Lifecycle,
    Names,
}

impl Lane {
    #[inline(always)]
    fn ring(self) -> &'static RingBuf {
        match self {
            Self::Events => &EVENTS,
            Self::Lifecycle => &LIFECYCLE,
            Self::Names => &NAMES,
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

/// A read that could not be accounted for, because the table of reads is full.
#[inline(always)]
pub fn count_table_full(program: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(program) {
        // SAFETY: as in `next_sequence`.
        unsafe { (*counters).table_full += 1 };
    }
}

/// Fills the header of a record that is due now.
#[inline(always)]
pub fn stamp(header: *mut Header, kind: u32, program: u32, task: u64) {
    number(header, kind, program);
    task::describe(header, task);
}

/// The same of a header that tells of its task already.
#[inline(always)]
pub fn number(header: *mut Header, kind: u32, program: u32) {
    let sequence = next_sequence(program);
    // SAFETY: `header` points into a ring reservation or a map value of the caller.
    unsafe {
        (*header).kind = kind;
        (*header).program = program;
        (*header).cpu = bpf_get_smp_processor_id();
        (*header).generation = decide::generation();
        (*header).sequence = sequence;
        (*header).boot_ns = bpf_ktime_get_boot_ns();
    }
}

/// Writes one record of fixed size: `fill` gets the reservation.
#[inline(always)]
pub fn record<T: 'static>(lane: Lane, program: u32, fill: impl FnOnce(*mut T)) {
    let Some(mut slot) = reserve::<T>(lane, program) else { return };
    fill(slot.as_mut_ptr());
    slot.submit(0);
}

/// Room for one record of fixed size; `None` where the ring is full, which is counted.
#[inline(always)]
pub fn reserve<T: 'static>(lane: Lane, program: u32) -> Option<RingBufEntry<T>> {
    let slot = lane.ring().reserve::<T>(0);
    if slot.is_none() {
        next_sequence(program);
        count_ring_full(program);
    }
    slot
}

/// Writes a record that was built in a slot, with the `path_bytes` of its path.
#[inline(always)]
pub fn spelled<T>(lane: Lane, program: u32, scratch: *mut Scratch<T>, path_bytes: u32) {
    let length = size_of::<T>() + (path_bytes as usize & (size_of::<path::Area>() - 1));
    bytes(lane, program, scratch.cast(), length);
}

/// Writes `bytes` of a map value. The caller bounds `bytes` by the value's size.
#[inline(always)]
fn bytes(lane: Lane, program: u32, start: *const u8, bytes: usize) {
    // SAFETY: `start` is a map value of at least `bytes` bytes; the verifier checks it.
    let slice = unsafe { core::slice::from_raw_parts(start, bytes) };
    if lane.ring().output::<[u8]>(slice, 0).is_err() {
        count_ring_full(program);
    }
}
