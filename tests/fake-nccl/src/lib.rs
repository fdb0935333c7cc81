//! A shared library with NCCL's C interface and no communication behind it, for probes to be at.
//!
//! Names and parameters are those of `nccl.h` 2.30 for what the daemon looks at. A collective keeps the time at which it was called, by the
//! clock that the kernel's probes have: [`fake_nccl_called_ns`] gives it back, so that what was said of arrivals can be compared.

#![expect(unsafe_code, reason = "a C interface: exported names, and pointers of the caller")]

use std::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::time::{ClockId, clock_gettime};

/// `ncclResult_t`.
type Result = c_int;
const SUCCESS: Result = 0;
const INVALID_ARGUMENT: Result = 4;

/// `ncclUniqueId`, which is passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId {
    internal: [u8; 128],
}

static NEXT: AtomicU64 = AtomicU64::new(0x5500_0000_0000);
static CALLED_NS: AtomicU64 = AtomicU64::new(0);

/// When a collective was called last: CLOCK_MONOTONIC, ns.
#[unsafe(no_mangle)]
pub extern "C" fn fake_nccl_called_ns() -> u64 {
    CALLED_NS.load(Ordering::Relaxed)
}

fn called() -> Result {
    let now = clock_gettime(ClockId::Monotonic);
    let ns = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
    CALLED_NS.store(ns, Ordering::Relaxed);
    SUCCESS
}

/// # Safety
///
/// `to` is null or can be written to.
unsafe fn begin(to: *mut u64, ranks: c_int, rank: c_int) -> Result {
    if to.is_null() || !(0..ranks).contains(&rank) {
        return INVALID_ARGUMENT;
    }
    // SAFETY: by the caller's promise.
    unsafe { to.write(NEXT.fetch_add(0x1000, Ordering::Relaxed)) };
    SUCCESS
}

/// # Safety
///
/// `comm` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRank(comm: *mut u64, ranks: c_int, id: UniqueId, rank: c_int) -> Result {
    std::hint::black_box(id.internal);
    // SAFETY: by the caller's promise.
    unsafe { begin(comm, ranks, rank) }
}

/// # Safety
///
/// `comm` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRankConfig(
    comm: *mut u64,
    ranks: c_int,
    id: UniqueId,
    rank: c_int,
    _: *mut c_void,
) -> Result {
    std::hint::black_box(id.internal);
    // SAFETY: by the caller's promise.
    unsafe { begin(comm, ranks, rank) }
}

/// # Safety
///
/// `comm` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRankScalable(
    comm: *mut u64,
    ranks: c_int,
    rank: c_int,
    _: c_int,
    ids: *mut UniqueId,
    _: *mut c_void,
) -> Result {
    std::hint::black_box(ids);
    // SAFETY: by the caller's promise.
    unsafe { begin(comm, ranks, rank) }
}

/// # Safety
///
/// `comms` is null or has room for so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitAll(comms: *mut u64, devices: c_int, _: *const c_int) -> Result {
    for rank in 0..devices {
        // SAFETY: by the caller's promise.
        let result = unsafe { begin(comms.add(usize::try_from(rank).unwrap_or(0)), devices, rank) };
        if result != SUCCESS {
            return result;
        }
    }
    SUCCESS
}

/// # Safety
///
/// `new` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommSplit(_: u64, _: c_int, _: c_int, new: *mut u64, _: *mut c_void) -> Result {
    // SAFETY: by the caller's promise.
    unsafe { begin(new, 1, 0) }
}

type Buffer = *mut c_void;
type Stream = *mut c_void;

macro_rules! collectives {
    ($($name:ident($($type:ty),*);)*) => {
        $(#[unsafe(no_mangle)]
        pub extern "C" fn $name($(_: $type),*) -> Result {
            std::hint::black_box(stringify!($name));
            called()
        })*
    };
}

collectives! {
    ncclAllReduce(Buffer, Buffer, usize, c_int, c_int, u64, Stream);
    ncclReduceScatter(Buffer, Buffer, usize, c_int, c_int, u64, Stream);
    ncclAllGather(Buffer, Buffer, usize, c_int, u64, Stream);
    ncclBroadcast(Buffer, Buffer, usize, c_int, c_int, u64, Stream);
    ncclBcast(Buffer, usize, c_int, c_int, u64, Stream);
    ncclReduce(Buffer, Buffer, usize, c_int, c_int, c_int, u64, Stream);
    ncclSend(Buffer, usize, c_int, c_int, u64, Stream);
    ncclRecv(Buffer, usize, c_int, c_int, u64, Stream);
    ncclCommDestroy(u64);
    ncclCommAbort(u64);
    ncclGroupStart();
    ncclGroupEnd();
}
