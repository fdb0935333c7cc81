//! A process set out to send datagrams: by connecting a UDP socket, or by naming the destination with each.
//!
//! `connect4`/`connect6` and `sendmsg4`/`sendmsg6` of the cgroup v2 root; where they cannot attach,
//! `security_socket_connect` and `security_socket_sendmsg` by fentry. A destination is told once a minute per process.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{cgroup_sock_addr, fentry, map},
    maps::LruHashMap,
    programs::{FEntryContext, SockAddrContext},
};
use plumbline_ebpf::{
    program::{UDP_CONNECT, UDP_SEND},
    record::{CONNECT_BEGIN, CONNECT_DATAGRAM},
};

use crate::{
    kernel::{off, read},
    peer::{self, AF_INET, AF_INET6, IPPROTO_UDP, Peer},
    task,
};

/// Destinations that were told, and when.
#[map]
static DATAGRAMS: LruHashMap<Datagram, u64> = LruHashMap::with_max_entries(8192, 0);

const TELL_AGAIN_NS: u64 = 60_000_000_000;

#[repr(C)]
struct Datagram {
    peer: Peer,
    pid: u32,
}

#[cgroup_sock_addr(connect4)]
pub fn udp_connect4_cgroup(ctx: SockAddrContext) -> i32 {
    if is_udp(&ctx) {
        peer::tell(UDP_CONNECT, CONNECT_BEGIN, IPPROTO_UDP, &peer4(&ctx), &[0; 4], task::net());
    }
    1
}

#[cgroup_sock_addr(connect6)]
pub fn udp_connect6_cgroup(ctx: SockAddrContext) -> i32 {
    if is_udp(&ctx) {
        peer::tell(UDP_CONNECT, CONNECT_BEGIN, IPPROTO_UDP, &peer6(&ctx), &[0; 4], task::net());
    }
    1
}

#[cgroup_sock_addr(sendmsg4)]
pub fn udp_send4_cgroup(ctx: SockAddrContext) -> i32 {
    sends_to(peer4(&ctx), task::net());
    1
}

#[cgroup_sock_addr(sendmsg6)]
pub fn udp_send6_cgroup(ctx: SockAddrContext) -> i32 {
    sends_to(peer6(&ctx), task::net());
    1
}

/// `security_socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)`: the address is the kernel's copy.
#[fentry(function = "security_socket_connect")]
pub fn udp_connect_fentry(ctx: FEntryContext) -> i32 {
    let sock: u64 = read(ctx.arg(0), off!(socket_sk));
    let peer = peer::of_sockaddr(ctx.arg(1));
    if peer::protocol(sock) == IPPROTO_UDP && peer.family != 0 {
        peer::tell(UDP_CONNECT, CONNECT_BEGIN, IPPROTO_UDP, &peer, &[0; 4], peer::net(sock));
    }
    0
}

/// `security_socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)`: the name is the kernel's copy.
#[fentry(function = "security_socket_sendmsg")]
pub fn udp_send_fentry(ctx: FEntryContext) -> i32 {
    let sock: u64 = read(ctx.arg(0), off!(socket_sk));
    let name: u64 = read(ctx.arg(1), off!(msghdr_name));
    if name != 0 && peer::protocol(sock) == IPPROTO_UDP {
        let peer = peer::of_sockaddr(name);
        if peer.family != 0 {
            sends_to(peer, peer::net(sock));
        }
    }
    0
}

#[inline(always)]
fn sends_to(peer: Peer, net: u64) {
    // SAFETY: the helpers have no preconditions.
    let (pid, now_boot_ns) = unsafe { ((bpf_get_current_pid_tgid() >> 32) as u32, bpf_ktime_get_boot_ns()) };
    let key = Datagram { peer, pid };
    if let Some(told) = DATAGRAMS.get_ptr(&key) {
        // SAFETY: a map value.
        if now_boot_ns.wrapping_sub(unsafe { *told }) < TELL_AGAIN_NS {
            return;
        }
    }
    let _ = DATAGRAMS.insert(&key, &now_boot_ns, 0);
    peer::tell(UDP_SEND, CONNECT_DATAGRAM, IPPROTO_UDP, &peer, &[0; 4], net);
}

#[inline(always)]
fn is_udp(ctx: &SockAddrContext) -> bool {
    // SAFETY: the verifier checks accesses to the context.
    unsafe { (*ctx.sock_addr).protocol == IPPROTO_UDP }
}

#[inline(always)]
fn peer4(ctx: &SockAddrContext) -> Peer {
    // SAFETY: the verifier checks accesses to the context.
    let (port, ip) = unsafe { ((*ctx.sock_addr).user_port, (*ctx.sock_addr).user_ip4) };
    Peer { address: [ip, 0, 0, 0], family: AF_INET, port: port as u16 }
}

#[inline(always)]
fn peer6(ctx: &SockAddrContext) -> Peer {
    // SAFETY: as above. Read one by one: the context takes loads of 4 bytes at constant offsets only.
    unsafe {
        let word = |at: usize| core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[at]);
        let address = [word(0), word(1), word(2), word(3)];
        Peer { address, family: AF_INET6, port: (*ctx.sock_addr).user_port as u16 }
    }
}
