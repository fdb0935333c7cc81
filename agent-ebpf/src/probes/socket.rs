//! A socket was made that leads out of the node past the hooks on TCP and UDP: raw, packet, vsock and their kin.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use plumbline_ebpf::{
    program::SOCKET_OPEN,
    record::{KIND_SOCKET_OPEN, SocketOpen},
};

use crate::{
    emit::{self, Lane},
    limit, task,
};

/// include/linux/socket.h and include/linux/net.h
mod constant {
    pub const AF_PACKET: u32 = 17;
    pub const AF_RDS: u32 = 21;
    pub const AF_TIPC: u32 = 30;
    pub const AF_VSOCK: u32 = 40;
    pub const AF_SMC: u32 = 43;
    pub const AF_XDP: u32 = 44;
    pub const SOCK_RAW: u32 = 3;
    pub const SOCK_TYPE_MASK: u32 = 0xf;
    pub const AF_INET: u32 = 2;
    pub const AF_INET6: u32 = 10;
    pub const IPPROTO_ICMP: u32 = 1;
    pub const IPPROTO_ICMPV6: u32 = 58;
    pub const IPPROTO_SCTP: u32 = 132;
}

/// `security_socket_create(int family, int type, int protocol, int kern)`
#[fentry(function = "security_socket_create")]
pub fn socket_open_fentry(ctx: FEntryContext) -> i32 {
    let (family, kind, protocol, by_kernel): (u32, u32, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    if by_kernel == 0 {
        opened(family, kind, protocol);
    }
    0
}

/// Writes a record if the socket is of a kind whose traffic no hook sees.
#[inline(always)]
pub fn opened(family: u32, kind: u32, protocol: u32) {
    use constant::*;
    let kind = kind & SOCK_TYPE_MASK;
    let by_ip = matches!(family, AF_INET | AF_INET6);
    let leads_past = matches!(family, AF_PACKET | AF_RDS | AF_TIPC | AF_VSOCK | AF_SMC | AF_XDP)
        || (by_ip && (kind == SOCK_RAW || matches!(protocol, IPPROTO_ICMP | IPPROTO_ICMPV6 | IPPROTO_SCTP)));
    if !leads_past || !limit::admits(SOCKET_OPEN) {
        return;
    }
    emit::record(Lane::Events, SOCKET_OPEN, |record: *mut SocketOpen| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_SOCKET_OPEN, SOCKET_OPEN, task::current());
            (*record).family = family;
            (*record).kind = kind;
            (*record).protocol = protocol;
            (*record).reserved = 0;
        }
    });
}
