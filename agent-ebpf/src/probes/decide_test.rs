//! The decision of the programs that deny, asked about any facts: never attached, run by tests through `BPF_PROG_TEST_RUN`.

#![expect(unsafe_code, reason = "kernel edge; aya-ebpf's macro throws the result away")]

use core::ffi::c_void;

use aya_ebpf::programs::RawTracePointContext;
use plumbline_ebpf::deny::Class;

use crate::decide;

/// Arguments: the cgroup's id, the executable's device, inode and its generation, the user, and either the protocol, the port in
/// the wire's order and the two halves of the address, or 0 and the watched directory's device and inode.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sys_enter")]
pub fn decide_test(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let generation = decide::generation();
    let subject = [
        decide::by_cgroup(generation, ctx.arg(0)).unwrap_or(Class::NONE),
        decide::of_program(generation, ctx.arg(1), ctx.arg(2), ctx.arg(3)),
        decide::of_user(generation, ctx.arg(4)),
    ];
    let [place, program, user] = subject;
    let protocol: u32 = ctx.arg(5);
    let word = if protocol == 0 {
        let directory = decide::of_directory(generation, ctx.arg(6), ctx.arg(7));
        decide::first(generation, &[directory, place, program, user])
    } else {
        let address: [u64; 2] = [ctx.arg(7), ctx.arg(8)];
        let address = decide::of_address(generation, zerocopy::transmute!(address));
        let port: u16 = ctx.arg(6);
        let port = decide::of_port(generation, protocol as u16, port.to_ne_bytes());
        decide::first(generation, &[address, port, place, program, user])
    };
    word as i32
}
