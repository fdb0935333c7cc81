//! What a program learns of the call that it is at.
#![expect(unsafe_code, reason = "kernel edge: helpers that check what they are given, and the program's own context")]

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user},
    programs::ProbeContext,
};

use crate::kernel::user_word;

/// Which of the functions that the program is attached to this is.
#[inline(always)]
pub fn cookie(ctx: *mut c_void) -> u64 {
    // SAFETY: `ctx` is the program's own context.
    unsafe { bpf_get_attach_cookie(ctx) }
}

/// The first six arguments, which are in registers.
#[inline(always)]
pub fn registers(ctx: &ProbeContext) -> [u64; 8] {
    let one = |place| ctx.arg::<u64>(place).unwrap_or(0);
    // On the stack: the verifier refuses a place in the context that is known at run time only, and the compiler would make one.
    core::hint::black_box([one(0), one(1), one(2), one(3), one(4), one(5), 0, 0])
}

/// The address of a word of the stack, as counted from the first argument that lies there: at a function's entry the stack pointer is at
/// the return address (System V ABI for x86-64, 3.2.2).
#[inline(always)]
pub fn stack_address(ctx: &ProbeContext, word: u8) -> u64 {
    // SAFETY: the program's own context.
    let stack_pointer = unsafe { (*ctx.regs).rsp };
    stack_pointer.wrapping_add(8 + 8 * u64::from(word))
}

#[inline(always)]
pub fn stack(ctx: &ProbeContext, word: u8) -> u64 {
    user_word(stack_address(ctx, word))
}

/// As many of the current task's own memory as are wanted, unless they are not there.
#[inline(always)]
pub fn user_octets<const N: usize>(address: u64) -> Option<[u8; N]> {
    let mut octets = [0; N];
    // SAFETY: the helper checks the address and writes as many bytes as there are.
    let done = unsafe { bpf_probe_read_user((&raw mut octets).cast(), N as u32, address as *const c_void) };
    (done == 0).then_some(octets)
}
