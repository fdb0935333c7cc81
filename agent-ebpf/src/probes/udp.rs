//! A process set out to send datagrams: by connecting a UDP socket, or by naming the destination with each; and the place
//! where connections are denied, TCP ones too.
//!
//! `security_socket_connect` and `security_socket_sendmsg` by BPF LSM; `connect4`/`connect6` and `sendmsg4`/`sendmsg6` of the
//! cgroup v2 root, which deny as well; where none of them can attach, the former two by fentry, which does not. A destination is
//! told once a minute per process.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{cgroup_sock_addr, fentry, lsm, map},
    maps::LruHashMap,
    programs::{FEntryContext, LsmContext, SockAddrContext},
};
use plumbline_ebpf::{
    program::{UDP_CONNECT, UDP_SEND},
    record::{CONNECT_BEGIN, CONNECT_DATAGRAM},
};

use crate::{
    decide::{self, Decision},
    kernel::{self, off, read},
    peer::{self, AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Peer},
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
    denied: u32,
}

#[cgroup_sock_addr(connect4)]
pub fn udp_connect4_cgroup(ctx: SockAddrContext) -> i32 {
    let decision = kernel::any(&decide::connection(protocol(&ctx), &peer4(&ctx)));
    i32::from(!connects(protocol(&ctx), &peer4(&ctx), task::net(), decision))
}

#[cgroup_sock_addr(connect6)]
pub fn udp_connect6_cgroup(ctx: SockAddrContext) -> i32 {
    let decision = kernel::any(&decide::connection(protocol(&ctx), &peer6(&ctx)));
    i32::from(!connects(protocol(&ctx), &peer6(&ctx), task::net(), decision))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn udp_send4_cgroup(ctx: SockAddrContext) -> i32 {
    let decision = kernel::any(&decide::connection(IPPROTO_UDP, &peer4(&ctx)));
    i32::from(!sends_to(IPPROTO_UDP, peer4(&ctx), task::net(), decision))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn udp_send6_cgroup(ctx: SockAddrContext) -> i32 {
    let decision = kernel::any(&decide::connection(IPPROTO_UDP, &peer6(&ctx)));
    i32::from(!sends_to(IPPROTO_UDP, peer6(&ctx), task::net(), decision))
}

/// `security_socket_connect`, where its answer counts.
#[lsm(hook = "socket_connect")]
pub fn udp_connect_lsm(ctx: LsmContext) -> i32 {
    decide::answer(connected(ctx.arg(0), ctx.arg(1), true))
}

/// `security_socket_sendmsg`, where its answer counts.
#[lsm(hook = "socket_sendmsg")]
pub fn udp_send_lsm(ctx: LsmContext) -> i32 {
    decide::answer(sent(ctx.arg(0), ctx.arg(1), true))
}

/// `security_socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)`: the address is the kernel's copy.
#[fentry(function = "security_socket_connect")]
pub fn udp_connect_fentry(ctx: FEntryContext) -> i32 {
    connected(ctx.arg(0), ctx.arg(1), false);
    0
}

/// `security_socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)`: the name is the kernel's copy.
#[fentry(function = "security_socket_sendmsg")]
pub fn udp_send_fentry(ctx: FEntryContext) -> i32 {
    sent(ctx.arg(0), ctx.arg(1), false);
    0
}

/// Whether `connect` of this `struct socket *` to this `struct sockaddr *` is denied; tells of it.
#[inline(always)]
fn connected(socket: u64, address: u64, may_deny: bool) -> bool {
    let sock: u64 = read(socket, off!(socket_sk));
    let decision = if may_deny {
        kernel::any(&decide::connection(peer::protocol(sock), &peer::of_sockaddr(address)))
    } else {
        Decision::none()
    };
    let peer = peer::of_sockaddr(address);
    peer.family != 0 && connects(peer::protocol(sock), &peer, peer::net(sock), decision)
}

/// The same of `sendmsg` of this `struct msghdr *`, where it names a destination.
#[inline(always)]
fn sent(socket: u64, message: u64, may_deny: bool) -> bool {
    let sock: u64 = read(socket, off!(socket_sk));
    let name: u64 = read(message, off!(msghdr_name));
    if name == 0 {
        return false;
    }
    let decision = if may_deny {
        kernel::any(&decide::connection(peer::protocol(sock), &peer::of_name(sock, name)))
    } else {
        Decision::none()
    };
    let peer = peer::of_name(sock, name);
    peer.family != 0 && sends_to(peer::protocol(sock), peer, peer::net(sock), decision)
}

// Protocol and destination are read once to decide and once to tell: the verifier follows what comes after a decision once
// for each value that it knows of them, and of what is read anew it knows none.

/// Tells of UDP sockets, and of whatever is denied; says whether it is. Of a TCP connection that begins, `tcp.rs` tells.
#[inline(always)]
fn connects(protocol: u32, peer: &Peer, net: u64, decision: Decision) -> bool {
    if protocol == IPPROTO_UDP || decision.denied != 0 {
        peer::tell(UDP_CONNECT, CONNECT_BEGIN, told(protocol), peer, &peer::nowhere(), net, decision);
    }
    decision.denied != 0
}

/// The same for what names its destination with each message: datagrams, and the first one of a TCP connection with Fast
/// Open, which needs no other connect.
#[inline(always)]
fn sends_to(protocol: u32, peer: Peer, net: u64, decision: Decision) -> bool {
    if protocol != IPPROTO_UDP && decision.denied == 0 {
        return false;
    }
    // SAFETY: the helpers have no preconditions.
    let (pid, now_boot_ns) = unsafe { ((bpf_get_current_pid_tgid() >> 32) as u32, bpf_ktime_get_boot_ns()) };
    let key = Datagram { peer, pid, denied: decision.denied };
    if let Some(told) = DATAGRAMS.get_ptr(&key) {
        // SAFETY: a map value.
        if now_boot_ns.wrapping_sub(unsafe { *told }) < TELL_AGAIN_NS {
            return decision.denied != 0;
        }
    }
    let _ = DATAGRAMS.insert(&key, &now_boot_ns, 0);
    let how = if protocol == IPPROTO_UDP { CONNECT_DATAGRAM } else { CONNECT_BEGIN };
    peer::tell(UDP_SEND, how, told(protocol), &peer, &peer::nowhere(), net, decision);
    decision.denied != 0
}

/// What is denied and is not UDP is TCP, or to be.
#[inline(always)]
fn told(protocol: u32) -> u32 {
    if protocol == IPPROTO_UDP { IPPROTO_UDP } else { IPPROTO_TCP }
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the verifier checks accesses to the context.
    unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).protocol) }
}

#[inline(always)]
fn peer4(ctx: &SockAddrContext) -> Peer {
    // SAFETY: the verifier checks accesses to the context.
    unsafe {
        let port = core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_port);
        let ip = core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip4);
        let zero = kernel::zero() as u32;
        Peer { address: [ip, zero, zero, zero], family: AF_INET, port: port as u16 }
    }
}

#[inline(always)]
fn peer6(ctx: &SockAddrContext) -> Peer {
    // SAFETY: as above. Read one by one: the context takes loads of 4 bytes at constant offsets only.
    unsafe {
        let word = |at: usize| core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip6[at]);
        let address = [word(0), word(1), word(2), word(3)];
        let port = core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_port);
        Peer { address, family: AF_INET6, port: port as u16 }
    }
}
