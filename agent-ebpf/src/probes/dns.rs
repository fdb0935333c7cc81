//! Messages that a process sends to the DNS port of a server, or takes from there: where names of addresses come from.
//!
//! At the places where UDP hands packets over, in the process's own context and from the kernel's memory (fentry); or at the
//! return of the calls that send and receive, from the caller's memory, UDP and TCP. What they say is the core's to read.
#![expect(unsafe_code, reason = "kernel edge: writes records into map values")]

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::fentry,
    programs::FEntryContext,
};
use plumbline_ebpf::{
    program::DNS,
    record::{DNS_MAX_BYTES, DNS_MIN_BYTES, DNS_PORT, DNS_RECEIVED, DNS_SENT, DnsMessage, KIND_DNS},
};

use crate::{
    emit::{self, Lane, Slot},
    kernel::{off, read, user_word},
    limit,
    packet::{self, End},
    peer::{self, AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Peer},
    syscall::{Call, number},
    task,
};

/// Messages of one `sendmmsg` or `recvmmsg` that are looked at; resolvers ask for two addresses with one call.
const MAX_MESSAGES: u64 = 2;

/// Longer reads and writes by calls that need no socket are not looked at.
const MAX_PLAIN_BYTES: u64 = DNS_MAX_BYTES as u64 + 2;

/// Records of one cgroup in a second: half as many names as they are answers.
const MAX_PER_SECOND: u32 = 2000;

/// `recvmsg(2)`: what is read is the process's own message, that could not be delivered.
const MSG_ERRQUEUE: u64 = 0x2000;

/// `struct sockaddr_in` is the shortest name of an IP address.
const MIN_NAME_BYTES: u64 = 16;

/// Where a message lies.
pub(super) struct Message {
    /// In the kernel's memory, or in the current task's.
    pub(super) start: u64,
    pub(super) by_kernel: bool,
    /// That lie there.
    pub(super) bytes: u64,
    pub(super) total_bytes: u64,
}

/// `skb_consume_udp(struct sock *sk, struct sk_buff *skb, int len)`: the process has its copy.
#[fentry(function = "skb_consume_udp")]
pub fn dns_receive_fentry(ctx: FEntryContext) -> i32 {
    observe_packet(Slot::DnsReceive, ctx.arg(1), DNS_RECEIVED, peer::net(ctx.arg(0)));
    0
}

/// `ip_send_skb(struct net *net, struct sk_buff *skb)`: before address translation.
#[fentry(function = "ip_send_skb")]
pub fn dns_send4_fentry(ctx: FEntryContext) -> i32 {
    observe_packet(Slot::DnsSend4, ctx.arg(1), DNS_SENT, ctx.arg(0));
    0
}

/// `ip6_send_skb(struct sk_buff *skb)`
#[fentry(function = "ip6_send_skb")]
pub fn dns_send6_fentry(ctx: FEntryContext) -> i32 {
    let sock: u64 = read(ctx.arg(0), off!(skb_sk));
    observe_packet(Slot::DnsSend6, ctx.arg(0), DNS_SENT, peer::net(sock));
    0
}

/// A datagram whose headers are set (RFC 768: 8 bytes).
#[inline(always)]
fn observe_packet(slot: Slot, skb: u64, direction: u32, net: u64) {
    let end = if direction == DNS_SENT { End::Destination } else { End::Source };
    if packet::port(skb, end) != DNS_PORT.to_be() {
        return;
    }
    let headers = packet::headers(skb, end);
    // What is received here is UDP behind whatever extension headers; what is sent may be anything.
    if direction == DNS_SENT && headers.protocol != IPPROTO_UDP {
        return;
    }
    let data: u64 = read(skb, off!(skb_data));
    let before = headers.transport.wrapping_add(8).wrapping_sub(data);
    let total_bytes = u64::from(read::<u32>(skb, off!(skb_len))).wrapping_sub(before);
    let piece = packet::piece(skb, before, total_bytes);
    let message = Message { start: piece.start, by_kernel: true, bytes: piece.bytes, total_bytes };
    tell(slot, direction, IPPROTO_UDP, &headers.peer, net, &message);
}

/// A call of the 64-bit table that has sent or received bytes, or messages.
#[inline(always)]
pub fn at_return(slot: Slot, call: Call, returned: u64) {
    let number = call.number();
    let is_plain = matches!(number, number::READ | number::WRITE | number::READV | number::WRITEV);
    let is_many = matches!(number, number::SENDMMSG | number::RECVMMSG);
    let is_one = matches!(number, number::SENDTO | number::RECVFROM | number::SENDMSG | number::RECVMSG);
    if !(is_plain || is_many || is_one)
        || (is_plain && returned > MAX_PLAIN_BYTES)
        || (!is_many && returned < DNS_MIN_BYTES)
    {
        return;
    }
    let file = task::file(call.arg0());
    if is_plain && !is_socket(file) {
        return;
    }
    let socket: u64 = read(file, off!(file_private_data));
    let sock: u64 = read(socket, off!(socket_sk));
    let port: u16 = read(sock, off!(sock_dport));
    if port != DNS_PORT.to_be() && port != 0 {
        return;
    }
    let protocol = peer::protocol(sock);
    let family: u16 = read(sock, off!(sock_family));
    if !matches!(family, AF_INET | AF_INET6) || !matches!(protocol, IPPROTO_UDP | IPPROTO_TCP) {
        return;
    }
    let is_sent =
        matches!(number, number::WRITE | number::WRITEV | number::SENDTO | number::SENDMSG | number::SENDMMSG);
    let direction = if is_sent { DNS_SENT } else { DNS_RECEIVED };
    let net = peer::net(sock);
    let count = if is_many { returned } else { 1 };
    for index in 0..MAX_MESSAGES {
        if index >= count {
            return;
        }
        // Behind its buffer's end nothing was written, whatever length was returned (MSG_TRUNC).
        let (mut start, mut bytes, mut total_bytes, mut name) = (call.arg1(), call.arg2(), returned, 0);
        let mut vector = 0;
        // What comes by the queue of errors is what the process itself has sent.
        let mut flags = 0;
        match number {
            number::SENDTO => name = call.arg4(),
            number::RECVFROM => {
                flags = call.arg3();
                // The kernel says how long the name is that it wrote. Most ask for none, and to read at 0 is a fault, which
                // costs more than all the rest.
                if port == 0 && call.arg5() != 0 && user_word(call.arg5()) & 0xffff_ffff >= MIN_NAME_BYTES {
                    name = call.arg4();
                }
            }
            number::READV | number::WRITEV => vector = call.arg1(),
            number::SENDMSG | number::RECVMSG | number::SENDMMSG | number::RECVMMSG => {
                // include/linux/socket.h: `struct user_msghdr` has the name at 0, its length at 8, the vector at 16 and the
                // flags that the kernel returns at 48; `struct mmsghdr` is one of 56 bytes and a length.
                let header = call.arg1().wrapping_add(index * 64);
                if is_many {
                    total_bytes = user_word(header.wrapping_add(56)) & 0xffff_ffff;
                }
                if user_word(header.wrapping_add(8)) & 0xffff_ffff >= MIN_NAME_BYTES {
                    name = user_word(header);
                }
                vector = user_word(header.wrapping_add(16));
                flags = user_word(header.wrapping_add(48));
            }
            _ => {}
        }
        if flags & MSG_ERRQUEUE != 0 && !is_sent {
            return;
        }
        if vector != 0 {
            // `struct iovec`: start and length. What is too short for a message is the length before one over TCP.
            (start, bytes) = (user_word(vector), user_word(vector.wrapping_add(8)));
            if bytes < DNS_MIN_BYTES && total_bytes > bytes {
                total_bytes -= bytes;
                (start, bytes) = (user_word(vector.wrapping_add(16)), user_word(vector.wrapping_add(24)));
            }
        }
        if port == 0 && name == 0 {
            continue;
        }
        let peer = if port == 0 { named(name) } else { peer::of_sock(sock) };
        if peer.port == DNS_PORT.to_be() && peer.family != 0 {
            if bytes > total_bytes {
                bytes = total_bytes;
            }
            tell(slot, direction, protocol, &peer, net, &Message { start, by_kernel: false, bytes, total_bytes });
        }
    }
}

/// What a `struct sockaddr *` in the current task's memory names, as [`peer::of_sockaddr`]; port 0 for none.
#[inline(always)]
fn named(address: u64) -> Peer {
    let head = user_word(address);
    let mut peer = Peer { address: [0; 4], family: head as u16, port: (head >> 16) as u16 };
    match peer.family {
        AF_INET => peer.address[0] = (head >> 32) as u32,
        AF_INET6 => {
            let (high, low) = (user_word(address.wrapping_add(8)), user_word(address.wrapping_add(16)));
            peer.address = [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32];
        }
        _ => peer.family = 0,
    }
    peer
}

/// `S_ISSOCK` (include/uapi/linux/stat.h)
#[inline(always)]
fn is_socket(file: u64) -> bool {
    let inode: u64 = read(file, off!(file_inode));
    read::<u16>(inode, off!(inode_mode)) & 0o170_000 == 0o140_000
}

#[inline(always)]
pub(super) fn tell(slot: Slot, direction: u32, protocol: u32, peer: &Peer, net: u64, message: &Message) {
    if message.total_bytes < DNS_MIN_BYTES || !limit::admits_at_most(DNS, MAX_PER_SECOND) {
        return;
    }
    let Some(scratch) = emit::scratch::<DnsMessage>(slot) else { return };
    let bytes = if message.bytes > DNS_MAX_BYTES as u64 { DNS_MAX_BYTES as u32 } else { message.bytes as u32 };
    // SAFETY: `scratch` is this program's own map value, with room for more than the longest message behind the record; the
    // helpers check the source.
    unsafe {
        let record = &raw mut (*scratch).record;
        let area: *mut c_void = (&raw mut (*scratch).path).cast();
        let source = message.start as *const c_void;
        let failed = if message.by_kernel {
            bpf_probe_read_kernel(area, bytes, source)
        } else {
            bpf_probe_read_user(area, bytes, source)
        };
        // A message that is not there is told as one without bytes.
        let bytes = if failed == 0 { bytes } else { 0 };
        emit::stamp(&raw mut (*record).header, KIND_DNS, DNS, task::current());
        (*record).family = peer.family;
        (*record).port = u16::from_be(peer.port);
        (*record).protocol = protocol;
        (&raw mut (*record).address).cast::<[u32; 4]>().write_unaligned(peer.address);
        (*record).direction = direction;
        (*record).reserved = 0;
        (*record).net = task::net_ns(net);
        (*record).message_bytes = bytes;
        (*record).total_bytes = message.total_bytes as u32;
        emit::spelled(Lane::Names, DNS, scratch, bytes);
    }
}
