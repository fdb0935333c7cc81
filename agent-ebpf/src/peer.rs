//! Where a socket leads, and the record of a process that set out there.
#![expect(unsafe_code, reason = "kernel edge: writes into ring reservations")]

use plumbline_ebpf::record::{Connect, KIND_CONNECT};

use crate::{
    decide::Decision,
    emit::{self, Lane},
    kernel::{self, off, read, read_into},
    limit, task,
};

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;

/// An address and port as the kernel keeps them: network byte order; IPv4 in the first word.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Peer {
    pub address: [u32; 4],
    pub family: u16,
    pub port: u16,
}

/// What a `struct sock *` is connected to.
#[inline(always)]
pub fn of_sock(sock: u64) -> Peer {
    let family: u16 = read(sock, off!(sock_family));
    let mut peer = Peer { address: [0; 4], family, port: read(sock, off!(sock_dport)) };
    if family == AF_INET6 {
        read_into(&raw mut peer.address, sock, off!(sock_daddr6));
    } else {
        peer.address[0] = read(sock, off!(sock_daddr));
    }
    peer
}

/// The node's own address of a `struct sock *`, in the same form; zeros before it is chosen.
#[inline(always)]
pub fn source(sock: u64) -> [u32; 4] {
    let mut source = [0; 4];
    if read::<u16>(sock, off!(sock_family)) == AF_INET6 {
        read_into(&raw mut source, sock, off!(sock_rcv_saddr6));
    } else {
        source[0] = read(sock, off!(sock_rcv_saddr));
    }
    source
}

/// No address.
#[inline(always)]
pub fn nowhere() -> [u32; 4] {
    let zero = kernel::zero() as u32;
    [zero, zero, zero, zero]
}

/// What a `struct sockaddr *` in the kernel's memory names; a family of 0 for what is no IP address. `struct sockaddr_in`:
/// family, port, address at 4; `sockaddr_in6`: address at 8.
#[inline(always)]
pub fn of_sockaddr(sockaddr: u64) -> Peer {
    let family: u16 = read(sockaddr, 0);
    let mut peer = Peer { address: nowhere(), family, port: read(sockaddr, 2) };
    match family {
        AF_INET => peer.address[0] = read(sockaddr, 4),
        AF_INET6 => read_into(&raw mut peer.address, sockaddr, 8),
        _ => peer.family = 0,
    }
    peer
}

/// The same of what a datagram names: on an IPv4 socket the family may be left out (net/ipv4/udp.c, `udp_sendmsg`).
#[inline(always)]
pub fn of_name(sock: u64, sockaddr: u64) -> Peer {
    let mut peer = of_sockaddr(sockaddr);
    if read::<u16>(sockaddr, 0) == 0 && read::<u16>(sock, off!(sock_family)) == AF_INET {
        peer.family = AF_INET;
        peer.address[0] = read(sockaddr, 4);
    }
    peer
}

/// The network namespace of a `struct sock *`: a `struct net *`. It is not the caller's where the socket was passed.
#[inline(always)]
pub fn net(sock: u64) -> u64 {
    read(sock, off!(sock_net))
}

/// `sk_protocol`, 16 bits wide since 5.6: an MPTCP socket (262) is not a TCP one, its subflows are.
#[inline(always)]
pub fn protocol(sock: u64) -> u32 {
    u32::from(read::<u16>(sock, off!(sock_protocol)))
}

/// Writes a record of the current task; `net` is a `struct net *`, `source` the node's own address.
#[inline(always)]
pub fn tell(program: u32, how: u32, protocol: u32, peer: &Peer, source: &[u32; 4], net: u64, decision: Decision) {
    if !limit::admits(program) {
        return;
    }
    // In place, and not by a closure, which would be a function of its own (see `kernel::zero`).
    let Some(mut slot) = emit::reserve::<Connect>(Lane::Events, program) else { return };
    let record = slot.as_mut_ptr();
    // SAFETY: a ring reservation of this size; the address fields are 4-byte aligned.
    unsafe {
        emit::stamp(&raw mut (*record).header, KIND_CONNECT, program, task::current());
        (*record).header.generation = decision.generation;
        (*record).family = peer.family;
        (*record).protocol = protocol;
        (*record).port = u16::from_be(peer.port);
        (*record).how = how;
        (*record).denied = decision.denied;
        (*record).net = task::net_ns(net);
        (&raw mut (*record).address).cast::<[u32; 4]>().write(peer.address);
        (&raw mut (*record).source).cast::<[u32; 4]>().write(*source);
    }
    slot.submit(0);
}
