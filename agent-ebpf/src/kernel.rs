//! Reading kernel memory by offsets that the agent resolved.
#![expect(unsafe_code, reason = "kernel edge: reads kernel memory through checked helpers")]

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use plumbline_ebpf::offsets::Offsets;

/// Filled by the agent before load; frozen afterwards, so the verifier sees constants.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::NONE;

/// One offset, by field name.
macro_rules! off {
    ($field:ident) => {
        $crate::kernel::offset(&$crate::kernel::OFFSETS.$field)
    };
}
pub(crate) use off;

/// A log line to the agent with the feature `trace`; nothing without it.
macro_rules! trace {
    ($ctx:expr, $($argument:tt)*) => {
        #[cfg(feature = "trace")]
        aya_log_ebpf::debug!($ctx, $($argument)*);
    };
}
pub(crate) use trace;

/// Volatile, since the value in the object file is not the value at run time.
#[inline(always)]
pub fn offset(field: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(field) }
}

/// Reads a `T` at `base + offset`; all zeros when the address is not readable (the helper clears on a fault).
#[inline(always)]
pub fn read<T: Copy + Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    read_into(&raw mut value, base, offset);
    value
}

/// Like [`read`], straight into `target`.
#[inline(always)]
pub fn read_into<T>(target: *mut T, base: u64, offset: u32) {
    let source = base.wrapping_add(u64::from(offset)) as *const c_void;
    // SAFETY: the helper checks the source and writes at most `size_of::<T>()` bytes to `target`, which every
    // caller has on its stack, in a map value, or in a ring reservation.
    unsafe { bpf_probe_read_kernel(target.cast(), size_of::<T>() as u32, source) };
}

/// A zero of which the compiler does not know: two words of zeros that it knows of become a call of `memset`, and in programs
/// that call any function kernels before 6.2 track more of the values than they can hold.
#[inline(always)]
pub fn zero() -> u64 {
    core::hint::black_box(0)
}

/// The same value, of which the verifier knows nothing: it follows what comes after once, and not once for each way in which
/// the value came about.
#[inline(always)]
pub fn any<T: Copy>(value: &T) -> T {
    let mut copy = core::mem::MaybeUninit::uninit();
    read_into(copy.as_mut_ptr(), (&raw const *value) as u64, 0);
    // SAFETY: the helper has written all of it: a program's own stack is always readable.
    unsafe { copy.assume_init() }
}

/// Four bytes of the current task's own memory, as [`user_word`].
#[inline(always)]
pub fn user_u32(address: u64) -> u32 {
    let mut word = 0u32;
    // SAFETY: the helper checks the address and writes four bytes.
    unsafe { bpf_probe_read_user((&raw mut word).cast(), 4, address as *const c_void) };
    word
}

/// Eight bytes of the current task's own memory, zeros when they are not there; the task may change them at any time.
#[inline(always)]
pub fn user_word(address: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: the helper checks the address and writes eight bytes.
    unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const c_void) };
    word
}
