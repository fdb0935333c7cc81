//! A process set out to connect.
//!
//! TCP: the transition of a socket to SYN_SENT, in the context of the connecting process, on every kernel, by
//! system call and io_uring alike. UDP: `connect4`/`connect6` of the cgroup v2 root; where they cannot attach,
//! `security_socket_connect` by fentry or LSM.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    macros::{btf_tracepoint, cgroup_sock_addr, fentry, lsm, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, LsmContext, RawTracePointContext, SockAddrContext},
};
use plumbline_ebpf::{
    program,
    record::{Connect, KIND_CONNECT},
};

use crate::{
    emit::{self, Lane},
    kernel::{off, read, read_into},
    limit, task,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
/// include/net/tcp_states.h
const TCP_SYN_SENT: i32 = 2;

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_connect_tp_btf(ctx: BtfTracePointContext) -> i32 {
    observe_state(ctx.arg(0), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn tcp_connect_raw_tp(ctx: RawTracePointContext) -> i32 {
    observe_state(ctx.arg(0), ctx.arg(2));
    0
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: the destination is in the
/// socket before the state is set (net/ipv4/tcp_ipv4.c, `tcp_v4_connect`).
#[inline(always)]
fn observe_state(sock: u64, new_state: i32) {
    // sk_protocol is 16 bits wide since 5.6, 8 before; the mask serves both.
    let protocol = u32::from(read::<u16>(sock, off!(sock_protocol)) & 0xff);
    if new_state != TCP_SYN_SENT || protocol != IPPROTO_TCP || !limit::admits(program::TCP_CONNECT) {
        return;
    }
    emit::record(Lane::Events, program::TCP_CONNECT, |record: *mut Connect| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_CONNECT, program::TCP_CONNECT, task::current());
            let family: u16 = read(sock, off!(sock_family));
            (*record).family = family;
            (*record).protocol = IPPROTO_TCP;
            (*record).port = u16::from_be(read(sock, off!(sock_dport)));
            (*record).address = [0; 16];
            if family == AF_INET6 {
                read_into(&raw mut (*record).address, sock, off!(sock_daddr6));
            } else {
                read_into((&raw mut (*record).address).cast::<u32>(), sock, off!(sock_daddr));
            }
        }
    });
}

#[cgroup_sock_addr(connect4)]
pub fn udp_connect4_cgroup(ctx: SockAddrContext) -> i32 {
    // SAFETY: the verifier checks accesses to the context.
    let (protocol, port, ip) =
        unsafe { ((*ctx.sock_addr).protocol, (*ctx.sock_addr).user_port, (*ctx.sock_addr).user_ip4) };
    if protocol == IPPROTO_UDP {
        emit_udp(AF_INET, port as u16, [ip, 0, 0, 0]);
    }
    1
}

#[cgroup_sock_addr(connect6)]
pub fn udp_connect6_cgroup(ctx: SockAddrContext) -> i32 {
    // SAFETY: the verifier checks accesses to the context.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    if protocol == IPPROTO_UDP {
        // SAFETY: as above. Read one by one: the context takes loads of 4 bytes at constant offsets only.
        let (port, ip) = unsafe {
            (
                (*ctx.sock_addr).user_port,
                [
                    core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[0]),
                    core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[1]),
                    core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[2]),
                    core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[3]),
                ],
            )
        };
        emit_udp(AF_INET6, port as u16, ip);
    }
    1
}

#[fentry(function = "security_socket_connect")]
pub fn udp_connect_fentry(ctx: FEntryContext) -> i32 {
    observe_socket(ctx.arg(0), ctx.arg(1));
    0
}

#[lsm(hook = "socket_connect")]
pub fn udp_connect_lsm(ctx: LsmContext) -> i32 {
    observe_socket(ctx.arg(0), ctx.arg(1));
    0
}

/// `security_socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)`: the address is the kernel's
/// copy. `struct sockaddr_in`: family, port, address at 4; `sockaddr_in6`: address at 8.
#[inline(always)]
fn observe_socket(socket: u64, sockaddr: u64) {
    let sock: u64 = read(socket, off!(socket_sk));
    if u32::from(read::<u16>(sock, off!(sock_protocol)) & 0xff) != IPPROTO_UDP {
        return;
    }
    let family: u16 = read(sockaddr, 0);
    let port: u16 = read(sockaddr, 2);
    match family {
        AF_INET => emit_udp(AF_INET, port, [read(sockaddr, 4), 0, 0, 0]),
        AF_INET6 => {
            emit_udp(AF_INET6, port, [read(sockaddr, 8), read(sockaddr, 12), read(sockaddr, 16), read(sockaddr, 20)])
        }
        _ => {}
    }
}

/// `port` and `address` in network byte order.
#[inline(always)]
fn emit_udp(family: u16, port: u16, address: [u32; 4]) {
    if !limit::admits(program::UDP_CONNECT) {
        return;
    }
    emit::record(Lane::Events, program::UDP_CONNECT, |record: *mut Connect| {
        // SAFETY: a ring reservation of this size; the address field is 8-byte aligned.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_CONNECT, program::UDP_CONNECT, task::current());
            (*record).family = family;
            (*record).protocol = IPPROTO_UDP;
            (*record).port = u16::from_be(port);
            (&raw mut (*record).address).cast::<[u32; 4]>().write(address);
        }
    });
}
