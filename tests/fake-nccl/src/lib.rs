//! A shared library with NCCL's C interface and no communication behind it, for probes to be at.
//!
//! Names and parameters are those of `nccl.h` 2.30 for what the daemon looks at. As NCCL's do, some of its functions call others by their
//! exported names: what went wrong is asked for by those that need a communicator that is ready (`ncclCommEnsureReady`). A collective keeps the time at which it was called, by the
//! clock that the kernel's probes have: [`fake_nccl_called_ns`] gives it back, so that what was said of arrivals can be compared.

#![expect(unsafe_code, reason = "a C interface: exported names, and pointers of the caller")]

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::{c_int, c_void},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
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
static ASYNC_ERROR: AtomicI32 = AtomicI32::new(SUCCESS);

/// Ranks and rank of each communicator, where they are known.
static COMMS: Mutex<Option<HashMap<u64, (c_int, c_int)>>> = Mutex::new(None);

thread_local! {
    static GROUP: RefCell<Group> = const { RefCell::new(Group { depth: 0, handles: Vec::new() }) };
}

/// Handles of what was split off in a group are filled in when it ends.
struct Group {
    depth: u32,
    handles: Vec<(*mut u64, u64)>,
}

/// What [`ncclCommGetAsyncError`] says from now on.
#[unsafe(no_mangle)]
pub extern "C" fn fake_nccl_fails(result: Result) {
    ASYNC_ERROR.store(result, Ordering::Relaxed);
}

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
    unsafe { to.write(new_comm(Some((ranks, rank)))) };
    SUCCESS
}

fn new_comm(known: Option<(c_int, c_int)>) -> u64 {
    let comm = NEXT.fetch_add(0x1000, Ordering::Relaxed);
    if let Some(known) = known {
        COMMS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(comm, known);
    }
    comm
}

fn known(comm: u64) -> Option<(c_int, c_int)> {
    COMMS.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&comm).copied()
}

/// A communicator that comes of another, of which there is none for a negative colour.
///
/// # Safety
///
/// `to` is null, or can be written to until the group ends.
unsafe fn split_off(to: *mut u64, color: c_int) -> Result {
    if to.is_null() {
        return INVALID_ARGUMENT;
    }
    let comm = if color < 0 { 0 } else { new_comm(None) };
    GROUP.with_borrow_mut(|group| {
        let now = if group.depth > 0 { 0 } else { comm };
        // SAFETY: by the caller's promise.
        unsafe { to.write(now) };
        if group.depth > 0 {
            group.handles.push((to, comm));
        }
    });
    SUCCESS
}

/// # Safety
///
/// `to` is null or can be written to.
unsafe fn tell(to: *mut c_int, answer: Option<c_int>) -> Result {
    let Some(answer) = answer.filter(|_| !to.is_null()) else { return INVALID_ARGUMENT };
    // SAFETY: by the caller's promise.
    unsafe { to.write(answer) };
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
/// `new` is null, or can be written to until the group ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommSplit(_: u64, color: c_int, _: c_int, new: *mut u64, _: *mut c_void) -> Result {
    // SAFETY: by the caller's promise.
    unsafe { split_off(new, color) }
}

/// # Safety
///
/// `new` is null, or can be written to until the group ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommShrink(
    _: u64,
    excluded: *mut c_int,
    _: c_int,
    new: *mut u64,
    _: *mut c_void,
    _: c_int,
) -> Result {
    std::hint::black_box(excluded);
    // SAFETY: by the caller's promise.
    unsafe { split_off(new, 0) }
}

/// # Safety
///
/// `new` is null, or can be written to until the group ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGrow(
    _: u64,
    _: c_int,
    id: *const UniqueId,
    _: c_int,
    new: *mut u64,
    _: *mut c_void,
) -> Result {
    std::hint::black_box(id);
    // SAFETY: by the caller's promise.
    unsafe { split_off(new, 0) }
}

/// As NCCL's own: by the function that others may call, and probes are at.
fn ensure_ready(comm: u64) {
    let function: unsafe extern "C" fn(u64, *mut Result) -> Result = std::hint::black_box(ncclCommGetAsyncError);
    let mut result = SUCCESS;
    // SAFETY: it can be written to.
    unsafe { function(comm, &raw mut result) };
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommDestroy(comm: u64) -> Result {
    ensure_ready(comm);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclBcast(
    buffer: Buffer,
    count: usize,
    datatype: c_int,
    root: c_int,
    comm: u64,
    stream: Stream,
) -> Result {
    let function: extern "C" fn(Buffer, Buffer, usize, c_int, c_int, u64, Stream) -> Result =
        std::hint::black_box(ncclBroadcast);
    function(buffer, buffer, count, datatype, root, comm, stream)
}

// The other name, of one function of it: an executable that contains NCCL has both.
std::arch::global_asm!(
    ".globl pncclAllReduce",
    ".set pncclAllReduce, ncclAllReduce",
    ".type pncclAllReduce, @function"
);

/// # Safety
///
/// `rank` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommUserRank(comm: u64, rank: *mut c_int) -> Result {
    ensure_ready(comm);
    // SAFETY: by the caller's promise.
    unsafe { tell(rank, known(comm).map(|(_, rank)| rank)) }
}

/// # Safety
///
/// `count` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommCount(comm: u64, count: *mut c_int) -> Result {
    ensure_ready(comm);
    // SAFETY: by the caller's promise.
    unsafe { tell(count, known(comm).map(|(ranks, _)| ranks)) }
}

/// # Safety
///
/// `result` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGetAsyncError(_: u64, result: *mut Result) -> Result {
    // SAFETY: by the caller's promise.
    unsafe { tell(result, Some(ASYNC_ERROR.load(Ordering::Relaxed))) }
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupStart() -> Result {
    GROUP.with_borrow_mut(|group| group.depth += 1);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupEnd() -> Result {
    GROUP.with_borrow_mut(|group| {
        group.depth = group.depth.saturating_sub(1);
        if group.depth == 0 {
            for (to, comm) in group.handles.drain(..) {
                // SAFETY: the caller of what was called in the group has promised it.
                unsafe { to.write(comm) };
            }
        }
    });
    SUCCESS
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
    ncclAlltoAll(Buffer, Buffer, usize, c_int, u64, Stream);
    ncclBroadcast(Buffer, Buffer, usize, c_int, c_int, u64, Stream);
    ncclGather(Buffer, Buffer, usize, c_int, c_int, u64, Stream);
    ncclScatter(Buffer, Buffer, usize, c_int, c_int, u64, Stream);
    ncclReduce(Buffer, Buffer, usize, c_int, c_int, c_int, u64, Stream);
    ncclSend(Buffer, usize, c_int, c_int, u64, Stream);
    ncclRecv(Buffer, usize, c_int, c_int, u64, Stream);
    ncclCommAbort(u64);
}
