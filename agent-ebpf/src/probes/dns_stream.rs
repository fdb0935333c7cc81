//! Messages to and from the DNS port of a server over TCP (fentry): the question in the caller's memory before TCP takes it,
//! the answer in the packet's as it is copied to the caller, so that nobody can show another one than came.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use aya_ebpf::{
    macros::{fentry, map},
    maps::LruHashMap,
    programs::FEntryContext,
};
use plumbline_ebpf::record::{DNS_MIN_BYTES, DNS_PORT, DNS_RECEIVED, DNS_SENT};

use super::dns::{Message, tell};
use crate::{
    emit::Slot,
    kernel::{off, read},
    packet,
    peer::{self, AF_INET, AF_INET6, IPPROTO_TCP},
};

/// `tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`
#[fentry(function = "tcp_sendmsg")]
pub fn dns_stream_send_fentry(ctx: FEntryContext) -> i32 {
    let sock: u64 = ctx.arg(0);
    if read::<u16>(sock, off!(sock_dport)) == DNS_PORT.to_be() {
        let message = first_pieces(ctx.arg(1), ctx.arg(2));
        let (peer, net) = (peer::of_sock(sock), peer::net(sock));
        tell(Slot::DnsStreamSend, DNS_SENT, IPPROTO_TCP, &peer, net, &message);
    }
    0
}

/// How far the messages of a connection have been followed.
#[repr(C)]
#[derive(Clone, Copy)]
struct Followed {
    /// The sequence number of the stream's first byte: sockets are used again.
    first: u32,
    /// Where in the stream the next message's length stands.
    next: u32,
    /// That length, where it has been read alone; else 0.
    length: u32,
    reserved: u32,
}

/// By `struct sock *`. Of a connection that falls out, or was there before, nothing is told: where its messages begin nobody
/// knows.
#[map]
static FOLLOWED: LruHashMap<u64, Followed> = LruHashMap::with_max_entries(1024, 0);

/// `skb_copy_datagram_iter(const struct sk_buff *skb, int offset, struct iov_iter *to, int len)`: how TCP, among others,
/// gives bytes to whoever reads. Which socket it is says the socket: other packets have no headers of this kind.
#[fentry(function = "skb_copy_datagram_iter")]
pub fn dns_stream_receive_fentry(ctx: FEntryContext) -> i32 {
    let skb: u64 = ctx.arg(0);
    let sock: u64 = read(skb, off!(skb_sk));
    if sock == 0 || read::<u16>(sock, off!(sock_dport)) != DNS_PORT.to_be() {
        return 0;
    }
    let family: u16 = read(sock, off!(sock_family));
    let (offset, bytes): (i32, i32) = (ctx.arg(1), ctx.arg(3));
    if !matches!(family, AF_INET | AF_INET6) || peer::protocol(sock) != IPPROTO_TCP || offset < 0 || bytes <= 0 {
        return 0;
    }
    received(sock, skb, offset as u32, bytes as u32);
    0
}

/// Tells a message where one begins in the stream, and nothing else: who reads chooses where its reads begin, and with them
/// could make an answer of what another one quotes. RFC 1035, 4.2.2: two bytes of length, and the message.
#[inline(always)]
fn received(sock: u64, skb: u64, offset: u32, bytes: u32) {
    // `tcp_rcv_nxt_update` (net/ipv4/tcp_input.c) counts what it moves `rcv_nxt` by.
    let first = read::<u32>(sock, off!(tcp_rcv_nxt)).wrapping_sub(read::<u64>(sock, off!(tcp_bytes_received)) as u32);
    // The first field of `struct tcp_skb_cb` is the sequence number of the packet's first byte.
    let position = read::<u32>(skb, off!(skb_cb)).wrapping_add(offset).wrapping_sub(first);
    let mut followed = Followed { first, next: 0, length: 0, reserved: 0 };
    if let Some(known) = FOLLOWED.get_ptr(&sock) {
        // SAFETY: a map value of plain integers.
        let known = unsafe { *known };
        if known.first == first {
            followed = known;
        }
    }
    let mut piece = packet::piece(skb, u64::from(offset), u64::from(bytes));
    let mut bytes = bytes;
    if position == followed.next && followed.length == 0 && piece.bytes >= 2 {
        followed.length = u32::from(u16::from_be(read(piece.start, 0)));
        piece.start += 2;
        piece.bytes -= 2;
        bytes -= 2;
    } else if position != followed.next.wrapping_add(2) || followed.length == 0 {
        return;
    }
    let length = followed.length;
    if bytes != 0 || length == 0 {
        followed.next = followed.next.wrapping_add(2).wrapping_add(length);
        followed.length = 0;
    }
    let _ = FOLLOWED.insert(&sock, &followed, 0);
    // A message that is not read whole is none.
    if bytes == 0 || bytes < length {
        return;
    }
    let length = u64::from(length);
    let there = if piece.bytes < length { piece.bytes } else { length };
    let message = Message { start: piece.start, by_kernel: true, bytes: there, total_bytes: length };
    tell(Slot::DnsStreamReceive, DNS_RECEIVED, IPPROTO_TCP, &peer::of_sock(sock), peer::net(sock), &message);
}

/// What a call to send begins with: one buffer of the caller's, or the first of several. Which of them it is (`ITER_UBUF`,
/// `ITER_IOVEC`, by other numbers in each kernel) shows by whose address it has.
#[inline(always)]
fn first_pieces(msg: u64, size: u64) -> Message {
    let iter = msg.wrapping_add(u64::from(off!(msghdr_iter)));
    let offset: u64 = read(iter, off!(iov_iter_offset));
    let vector: u64 = read(iter, off!(iov_iter_vector));
    let mut message = Message { start: vector.wrapping_add(offset), by_kernel: false, bytes: size, total_bytes: size };
    if is_kernels(vector) {
        // `struct iovec`: start and length.
        let first = read::<u64>(vector, 8).wrapping_sub(offset);
        message.start = read::<u64>(vector, 0).wrapping_add(offset);
        message.bytes = if first < size { first } else { size };
        // What is too short for a message is the length before one.
        if first < DNS_MIN_BYTES && size > first {
            message.total_bytes = size - first;
            let second: u64 = read(vector, 24);
            message.start = read(vector, 16);
            message.bytes = if second < message.total_bytes { second } else { message.total_bytes };
        }
    }
    message
}

/// The upper half of all addresses is the kernel's.
#[inline(always)]
fn is_kernels(address: u64) -> bool {
    address >> 63 != 0
}
