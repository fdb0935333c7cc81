//! Messages to and from the DNS port of a server over TCP (fentry): the question in the caller's memory before TCP takes it,
//! the answer in the packet's as it is copied to the caller, so that nobody can show another one than came.

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use plumbline_ebpf::record::{DNS_MIN_BYTES, DNS_PORT, DNS_RECEIVED, DNS_SENT};

use super::dns::{Message, tell};
use crate::{
    emit::Slot,
    kernel::{off, read},
    packet::{self, End},
    peer::{self, IPPROTO_TCP},
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

/// `skb_copy_datagram_iter(const struct sk_buff *skb, int offset, struct iov_iter *to, int len)`: how TCP gives bytes to
/// whoever reads.
#[fentry(function = "skb_copy_datagram_iter")]
pub fn dns_stream_receive_fentry(ctx: FEntryContext) -> i32 {
    let skb: u64 = ctx.arg(0);
    if packet::port(skb, End::Source) != DNS_PORT.to_be() {
        return 0;
    }
    let headers = packet::headers(skb, End::Source);
    let (offset, bytes): (i32, i32) = (ctx.arg(1), ctx.arg(3));
    // UDP is told where it is consumed.
    if headers.protocol != IPPROTO_TCP || offset < 0 || bytes <= 0 {
        return 0;
    }
    let piece = packet::piece(skb, offset as u64, bytes as u64);
    let net = peer::net(read(skb, off!(skb_sk)));
    let message = Message { start: piece.start, by_kernel: true, bytes: piece.bytes, total_bytes: bytes as u64 };
    tell(Slot::DnsStreamReceive, DNS_RECEIVED, IPPROTO_TCP, &headers.peer, net, &message);
    0
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
