//! A shared library with the C interface of CUDA's driver and no hardware behind it, for probes to be at.
//!
//! Names and parameters are those of `cuda.h` (CUDA 13) for what the daemon looks at, and for no other. Nothing is done: handles are
//! numbers that were not given before. What the caller wants to happen it says in an argument that a driver takes otherwise: a stream or
//! an event is a handle, and here the microseconds that a wait for it takes.

#![expect(unsafe_code, reason = "a C interface: exported names, and pointers of the caller")]

use std::{
    arch::naked_asm,
    env,
    ffi::{c_int, c_uint, c_void},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// `CUresult`.
type Result = c_int;
const SUCCESS: Result = 0;
const INVALID_VALUE: Result = 1;
const OUT_OF_MEMORY: Result = 2;
const INVALID_DEVICE: Result = 101;

/// What a device has.
const MEMORY_BYTES: usize = 80 << 30;
const DEVICES: c_int = 8;

static NEXT: AtomicU64 = AtomicU64::new(0x7f00_0000_0000);

/// Puts a handle that was not given before where `to` points.
///
/// # Safety
///
/// `to` is null or can be written to.
unsafe fn give(to: *mut u64) -> Result {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: by the caller's promise.
    unsafe { ptr::write(to, NEXT.fetch_add(0x1000, Ordering::Relaxed)) };
    SUCCESS
}

fn wait(microseconds: u64) -> Result {
    thread::sleep(Duration::from_micros(microseconds));
    SUCCESS
}

/// # Safety
///
/// `to` is null or can be written to.
unsafe fn allocate(to: *mut u64, bytes: usize) -> Result {
    if bytes > MEMORY_BYTES {
        return OUT_OF_MEMORY;
    }
    // SAFETY: by the caller's promise.
    unsafe { give(to) }
}

/// # Safety
///
/// `to` is null or can be written to.
unsafe fn context(to: *mut u64, device: c_int) -> Result {
    if !(0..DEVICES).contains(&device) {
        return INVALID_DEVICE;
    }
    // SAFETY: by the caller's promise.
    unsafe { give(to) }
}

/// A function that only says that all is well, and begins as the driver's own do since CUDA 11.3: by looking whether somebody debugs.
macro_rules! nothing {
    ($($name:ident($($type:ty),*);)*) => {
        $(#[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($(_: $type),*) -> Result {
            naked_asm!("cmp dword ptr [rip + {debugged}], 1", "je 2f", "2:", "xor eax, eax", "ret", debugged = sym DEBUGGED)
        })*
    };
}

static DEBUGGED: AtomicU32 = AtomicU32::new(0);

/// The same with the first instruction that compilers begin with most often.
macro_rules! nothing_pushed {
    ($($name:ident($($type:ty),*);)*) => {
        $(#[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($(_: $type),*) -> Result {
            naked_asm!("push rbp", "pop rbp", "xor eax, eax", "ret")
        })*
    };
}

type Pointer = *mut c_void;
type Bytes = usize;

nothing! {
    cuInit(c_uint);
    cuLaunchKernel(Pointer, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Pointer, Pointer, Pointer);
    cuLaunchKernelEx(Pointer, Pointer, Pointer, Pointer);
    cuGraphLaunch(Pointer, Pointer);
    cuMemFree_v2(u64);
    cuMemFreeAsync(u64, Pointer);
    cuMemRelease(u64);
    cuMemcpyHtoD_v2(u64, Pointer, Bytes);
    cuMemcpyHtoDAsync_v2(u64, Pointer, Bytes, Pointer);
    cuMemcpyDtoHAsync_v2(Pointer, u64, Bytes, Pointer);
    cuMemcpyPeerAsync(u64, Pointer, u64, Pointer, Bytes, Pointer);
    cuModuleLoadData(Pointer, Pointer);
    cuModuleGetFunction(Pointer, Pointer, Pointer);
    cuGraphInstantiateWithFlags(Pointer, Pointer, u64);
    cuCtxSetCurrent(u64);
    cuStreamBeginCapture_v2(u64, c_int);
}

nothing_pushed! {
    cuLaunchKernel_ptsz(Pointer, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Pointer, Pointer, Pointer);
}

/// A stream of this number is one whose recording was invalidated.
const STREAM_CAPTURE_INVALIDATED: Result = 901;

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(stream: u64, _: Pointer) -> Result {
    if stream == 901 { STREAM_CAPTURE_INVALIDATED } else { SUCCESS }
}

/// A stream for which a wait takes 50 microseconds.
///
/// # Safety
///
/// `stream` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut u64, _: c_uint) -> Result {
    if stream.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: by the caller's promise.
    unsafe { stream.write(50) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: u64) -> Result {
    wait(stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: u64) -> Result {
    wait(event)
}

/// # Safety
///
/// `pointer` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(pointer: *mut u64, bytes: usize) -> Result {
    // SAFETY: by the caller's promise.
    unsafe { allocate(pointer, bytes) }
}

/// # Safety
///
/// `handle` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemCreate(handle: *mut u64, bytes: usize, _: Pointer, _: u64) -> Result {
    // SAFETY: by the caller's promise.
    unsafe { allocate(handle, bytes) }
}

/// # Safety
///
/// `context` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut u64, device: c_int) -> Result {
    // SAFETY: by the caller's promise.
    unsafe { self::context(context, device) }
}

/// `CUuuid`.
type Uuid = [u8; 16];

/// Of the GPUs of the library that has NVML's interface, but for the last octet, which is the GPU's number there.
const UUID: Uuid = [0x5e, 0xed, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0];

/// `CUDA_VISIBLE_DEVICES` says which GPUs there are for this process, and in which order.
///
/// # Safety
///
/// `uuid` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut Uuid, device: c_int) -> Result {
    let visible = env::var("CUDA_VISIBLE_DEVICES").unwrap_or_else(|_| "0,1,2,3,4,5,6,7".to_owned());
    let named = usize::try_from(device).ok().and_then(|device| visible.split(',').nth(device)?.parse::<u8>().ok());
    let Some(gpu) = named.filter(|_| !uuid.is_null()) else { return INVALID_DEVICE };
    let mut told = UUID;
    told[15] = gpu;
    // SAFETY: by the caller's promise.
    unsafe { uuid.write(told) };
    SUCCESS
}

/// # Safety
///
/// `context` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v2(context: *mut u64, _: c_uint, device: c_int) -> Result {
    // SAFETY: by the caller's promise.
    unsafe { self::context(context, device) }
}
