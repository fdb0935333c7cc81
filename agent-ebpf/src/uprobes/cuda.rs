//! Calls of CUDA's driver, `libcuda.so.1`: counted where they happen, by process, device and call.
//!
//! The cost of a call is the trap; what is done here is a lookup or two. Whatever a process says in its
//! arguments is believed of that process alone.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_ktime_get_ns,
    macros::{map, uprobe, uretprobe},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap},
    programs::{ProbeContext, RetProbeContext},
};
use plumbline_ebpf::cuda::{
    Action, BUCKETS, CallKey, CallStats, Cookie, Handle, HandleKey, KIND_CONTEXT, KIND_DEVICE, KIND_LAUNCH,
    KIND_STREAM, LAUNCHES, LOST, Lost, MOST_DEVICES, PARTS, UNKNOWN_DEVICE, UUID_BYTES, Waits, bucket,
};
use plumbline_ebpf::cuda_told::{Record, Told};

use super::{
    BPF_F_NO_PREALLOC, BPF_NOEXIST,
    call::{cookie, registers, user_octets},
    tell::tell,
    thread::{Current, current},
};
use crate::kernel::user_word;

/// Processes times devices times calls; the agent takes out those of processes that have ended.
#[map]
static CALLS: PerCpuHashMap<CallKey, CallStats> = PerCpuHashMap::with_max_entries(32_768, BPF_F_NO_PREALLOC);

/// Waits, which are rarer than launches: one copy for all CPUs.
#[map]
static WAITS: HashMap<CallKey, Waits> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Calls that failed, by result.
#[map]
static FAILURES: HashMap<CallKey, u64> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Bytes of what is allocated, and devices of contexts.
#[map]
static HANDLES: HashMap<HandleKey, Handle> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Who devices are, as the driver told the process: by its own number of them.
#[map]
static DEVICES: HashMap<HandleKey, [u8; UUID_BYTES]> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Streams that record a graph. Those of processes that have ended give way.
#[map]
static CAPTURED: LruHashMap<HandleKey, u8> = LruHashMap::with_max_entries(4096, 0);

/// Calls that have begun, by thread and call.
#[map]
static IN_FLIGHT: LruHashMap<FlightKey, Flight> = LruHashMap::with_max_entries(16_384, 0);

/// Not 0 for each part of the calls that is looked at now, and another number after each gap. The kernel takes its time to take a probe away:
/// what comes meanwhile is not counted, so that all of a part is counted from one moment to another.
#[map]
static WATCHED: Array<u32> = Array::with_max_entries(PARTS as u32, 0);

#[map]
static CUDA_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST as u32, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct FlightKey {
    pid_tgid: u64,
    call: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Flight {
    /// 0 when nobody looked.
    began_ns: u64,
    first: u64,
    amount: u64,
}

/// At the entry of a launch of a single kernel, of which only the number matters: what is done here is done tens of thousands of times a
/// second.
#[uprobe]
pub fn cuda_launch(_: ProbeContext) -> u32 {
    if watch(LAUNCHES) != 0
        && let Some(current) = current()
    {
        current.count(KIND_LAUNCH);
    }
    0
}

#[uprobe]
pub fn cuda_enter(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let arguments = registers(&ctx);
    let flight = Flight {
        // SAFETY: the helper has no preconditions.
        began_ns: if is_watched(&cookie) { unsafe { bpf_ktime_get_ns() } } else { 0 },
        first: arguments[0],
        amount: arguments[usize::from(cookie.argument & 7)],
    };
    let Some(Current { pid_tgid, .. }) = current() else { return 0 };
    if IN_FLIGHT.insert(&FlightKey { pid_tgid, call: cookie.call.into() }, &flight, 0).is_err() {
        lost(Lost::InFlight);
    }
    0
}

#[uretprobe]
pub fn cuda_return(ctx: RetProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let Some(current) = current() else { return 0 };
    let flight_key = FlightKey { pid_tgid: current.pid_tgid, call: cookie.call.into() };
    let Some(flight) = IN_FLIGHT.get_ptr(&flight_key) else {
        // Its entry was before our time, or was forgotten.
        lost(Lost::InFlight);
        return 0;
    };
    // SAFETY: a map value, read before it is removed.
    let Flight { began_ns, first, amount } = unsafe { *flight };
    let _ = IN_FLIGHT.remove(&flight_key);
    if began_ns == 0 || !is_watched(&cookie) {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(began_ns);
    let result: u32 = ctx.ret();
    let mut key = key(current, cookie.call.into());
    let bytes = if result == 0 { succeeded(&mut key, current, &cookie, first, amount) } else { 0 };
    if let Some(stats) = stats(&key) {
        // SAFETY: a map value. Added to atomically, though it is this CPU's: another thread's call may come in between.
        unsafe {
            add(&raw mut (*stats).calls, 1);
            add(&raw mut (*stats).bytes, bytes);
            add(&raw mut (*stats).ns, ns);
        }
    }
    // It ends whatever comes of it.
    if cookie.action == Action::EndCapture as u8 {
        current.set_capturing(false);
        let (start_boot_ns, pid) = (key.start_boot_ns, key.pid);
        let _ = CAPTURED.remove(&HandleKey { start_boot_ns, pid, kind: KIND_STREAM, handle: first });
    }
    if result != 0 {
        let has_bytes = [Action::Allocate as u8, Action::Copy as u8].contains(&cookie.action);
        let bytes = if has_bytes { amount } else { 0 };
        failed(current, &CallKey { result, ..key }, bytes);
    }
    if cookie.action == Action::Wait as u8 {
        waited(&key, ns);
    }
    0
}

#[inline(always)]
fn is_watched(cookie: &Cookie) -> bool {
    watch(cookie.part) != 0
}

/// Since when a part has been looked at without a gap; 0 while it is not.
#[inline(always)]
pub fn watch(part: u8) -> u32 {
    WATCHED.get(part.into()).copied().unwrap_or(0)
}

/// What a call that did not fail has done; the bytes that it counts for. What is freed counts for the device that it was of.
#[inline(always)]
fn succeeded(key: &mut CallKey, current: Current, cookie: &Cookie, first: u64, amount: u64) -> u64 {
    let handle = |kind, handle| HandleKey { start_boot_ns: key.start_boot_ns, pid: key.pid, kind, handle };
    const ALLOCATE: u8 = Action::Allocate as u8;
    const FREE: u8 = Action::Free as u8;
    const COPY: u8 = Action::Copy as u8;
    const CONTEXT: u8 = Action::Context as u8;
    const CREATE_CONTEXT: u8 = Action::CreateContext as u8;
    const SET_CONTEXT: u8 = Action::SetContext as u8;
    const SET_DEVICE: u8 = Action::SetDevice as u8;
    const BEGIN_CAPTURE: u8 = Action::BeginCapture as u8;
    const IDENTIFY: u8 = Action::Identify as u8;
    match cookie.action {
        COPY => amount,
        ALLOCATE => {
            remember(&handle(cookie.kind.into(), user_word(first)), amount, key.device);
            amount
        }
        FREE => {
            let handle = handle(cookie.kind.into(), first);
            let Some(known) = HANDLES.get_ptr(&handle) else {
                if first != 0 {
                    lost(Lost::Handles);
                }
                return 0;
            };
            // SAFETY: a map value, read before it is removed.
            let known = unsafe { *known };
            let _ = HANDLES.remove(&handle);
            key.device = known.device;
            known.bytes
        }
        CONTEXT | CREATE_CONTEXT => {
            remember(&handle(KIND_CONTEXT, user_word(first)), 0, amount as u32);
            if cookie.action == CREATE_CONTEXT {
                current.set_device(amount as u32);
            }
            0
        }
        SET_CONTEXT => {
            let device = HANDLES.get_ptr(&handle(KIND_CONTEXT, first));
            // SAFETY: a map value.
            let device = device.map_or(UNKNOWN_DEVICE, |context| unsafe { (*context).device });
            current.set_device(device);
            0
        }
        SET_DEVICE => {
            current.set_device(first as u32);
            0
        }
        BEGIN_CAPTURE => {
            current.set_capturing(true);
            let _ = CAPTURED.insert(&handle(KIND_STREAM, first), &1, 0);
            0
        }
        IDENTIFY => {
            let device = amount & 0xffff_ffff;
            if device < MOST_DEVICES
                && let Some(uuid) = user_octets(first)
                && DEVICES.insert(&handle(KIND_DEVICE, device), &uuid, 0).is_err()
            {
                lost(Lost::Handles);
            }
            0
        }
        _ => 0,
    }
}

#[inline(always)]
fn remember(key: &HandleKey, bytes: u64, device: u32) {
    if HANDLES.insert(key, &Handle { bytes, device, reserved: 0 }, 0).is_err() {
        lost(Lost::Handles);
    }
}

/// Whether what the thread puts into the stream is recorded into a graph: by this thread, or by another that began it.
#[inline(always)]
pub fn is_captured(current: Current, stream: u64) -> bool {
    let stream =
        HandleKey { start_boot_ns: current.start_boot_ns(), pid: current.pid(), kind: KIND_STREAM, handle: stream };
    current.is_capturing() || CAPTURED.get_ptr(&stream).is_some()
}

#[inline(always)]
fn failed(current: Current, key: &CallKey, bytes: u64) {
    // Another thread may have made it meanwhile.
    if FAILURES.get_ptr(key).is_none() && FAILURES.insert(key, &0, BPF_NOEXIST).is_ok() {
        let (call, result, device) = (key.call, key.result, key.device);
        tell(current, Told::Failed, Record { call, result, device, bytes, ..Record::default() });
    }
    match FAILURES.get_ptr_mut(key) {
        // SAFETY: a map value, added to atomically.
        Some(count) => unsafe { add(count, 1) },
        None => lost(Lost::Calls),
    }
}

#[inline(always)]
fn waited(key: &CallKey, ns: u64) {
    if WAITS.get_ptr(key).is_none() {
        const NOTHING: Waits = Waits { buckets: [0; BUCKETS] };
        let _ = WAITS.insert(key, &NOTHING, BPF_NOEXIST);
    }
    match WAITS.get_ptr_mut(key) {
        // SAFETY: a map value; the bucket lies within, whatever the time.
        Some(waits) => unsafe { add(waits.cast::<u64>().add(bucket(ns).min(BUCKETS - 1)), 1) },
        None => lost(Lost::Calls),
    }
}

/// SAFETY: `to` is a map value.
#[inline(always)]
pub unsafe fn add(to: *mut u64, count: u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(to, count);
    }
}

/// The entry of this CPU, made if there is none.
#[inline(always)]
fn stats(key: &CallKey) -> Option<*mut CallStats> {
    if let Some(stats) = CALLS.get_ptr_mut(key) {
        return Some(stats);
    }
    let _ = CALLS.insert(key, &CallStats { calls: 0, bytes: 0, ns: 0 }, BPF_NOEXIST);
    let stats = CALLS.get_ptr_mut(key);
    if stats.is_none() {
        lost(Lost::Calls);
    }
    stats
}

#[inline(always)]
fn key(current: Current, call: u32) -> CallKey {
    CallKey { start_boot_ns: current.start_boot_ns(), pid: current.pid(), device: current.device(), call, result: 0 }
}

#[inline(always)]
pub fn lost(what: Lost) {
    if let Some(count) = CUDA_LOST.get_ptr_mut(what as u32) {
        // SAFETY: a map value, added to atomically.
        unsafe { add(count, 1) };
    }
}
