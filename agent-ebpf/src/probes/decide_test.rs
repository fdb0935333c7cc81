//! The decision of the programs that deny, asked about any facts: never attached, run by tests through `BPF_PROG_TEST_RUN`.

#![expect(unsafe_code, reason = "kernel edge; aya-ebpf's macro throws the result away")]

use core::ffi::c_void;

use crate::decide;
use aya_ebpf::programs::RawTracePointContext;

/// Arguments: the cgroup's id, the executable's device, inode and its generation, the user, and either the protocol, the port in
/// the wire's order and the two halves of the address, or 0 and the watched directory's device and inode.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sys_enter")]
pub fn decide_test(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let generation = decide::generation();
    let (Some(place), Some(program), Some(user)) = (
        decide::by_cgroup(generation, ctx.arg(0)),
        decide::of_program(generation, ctx.arg(1), ctx.arg(2), ctx.arg(3)),
        decide::of_user(generation, ctx.arg(4)),
    ) else {
        return 0;
    };
    let protocol: u32 = ctx.arg(5);
    let lane = if protocol == 0 {
        let Some(directory) = decide::of_directory(generation, ctx.arg(6), ctx.arg(7)) else { return 0 };
        decide::first(generation, &[directory, place, program, user])
    } else {
        let address: [u64; 2] = [ctx.arg(7), ctx.arg(8)];
        let port: u16 = ctx.arg(6);
        let address = decide::of_address(generation, zerocopy::transmute!(address));
        let port = decide::of_port(generation, protocol as u16, port.to_ne_bytes());
        let (Some(address), Some(port)) = (address, port) else { return 0 };
        decide::first(generation, &[address, port, place, program, user])
    };
    lane as i32
}
