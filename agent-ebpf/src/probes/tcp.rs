//! A process set out to connect by TCP, and what became of it.
//!
//! A socket's transition to SYN_SENT happens in the context of the connecting process, by system call, Fast Open and
//! io_uring alike; its later ones in anybody's. So who connected is kept by socket until its end.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{btf_tracepoint, fentry, map, raw_tracepoint},
    maps::{Array, HashMap, LruHashMap},
    programs::{BtfTracePointContext, FEntryContext, RawTracePointContext},
};
use plumbline_ebpf::{
    program::{SOCKET_SEND, TCP_CONNECT},
    record::{CONNECT_BEGIN, CONNECT_INHERITED, ConnectEnd, KIND_CONNECT_END},
};

use crate::{
    decide::Decision,
    emit::{self, Lane},
    kernel::{off, read},
    peer::{self, IPPROTO_TCP},
    task,
};

/// include/net/tcp_states.h
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;

/// Connections that have begun, by `struct sock *`: the record of their end as far as it is known.
#[map]
static CONNECTIONS: HashMap<u64, ConnectEnd> = HashMap::with_max_entries(16_384, 0);

/// One entry of zeros, never written: what a new entry is made of.
#[map]
static NO_CONNECTION: Array<ConnectEnd> = Array::with_max_entries(1, 0);

/// Processes that send over a connection that another one began, told once.
#[map]
static SENDERS: LruHashMap<Sender, u32> = LruHashMap::with_max_entries(4096, 0);

#[repr(C)]
struct Sender {
    sock: u64,
    pid: u32,
    reserved: u32,
}

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
    if peer::protocol(sock) != IPPROTO_TCP {
        return;
    }
    match new_state {
        TCP_SYN_SENT => begin(sock),
        TCP_ESTABLISHED => {
            if let Some(entry) = CONNECTIONS.get_ptr_mut(&sock) {
                // SAFETY: a map value.
                unsafe { (*entry).established_boot_ns = bpf_ktime_get_boot_ns() };
            }
        }
        TCP_CLOSE => end(sock),
        _ => {}
    }
}

#[inline(always)]
fn begin(sock: u64) {
    let peer = peer::of_sock(sock);
    let none = Decision::none();
    peer::tell(TCP_CONNECT, CONNECT_BEGIN, IPPROTO_TCP, &peer, &peer::source(sock), peer::net(sock), none);
    let Some(nothing) = NO_CONNECTION.get(0) else { return };
    let _ = CONNECTIONS.insert(&sock, nothing, 0);
    let Some(entry) = CONNECTIONS.get_ptr_mut(&sock) else {
        emit::count_table_full(TCP_CONNECT);
        return;
    };
    // SAFETY: a map value; nobody else knows the socket yet.
    unsafe {
        (*entry).begin_boot_ns = bpf_ktime_get_boot_ns();
        (*entry).family = peer.family;
        (*entry).port = u16::from_be(peer.port);
        (*entry).protocol = IPPROTO_TCP;
        (&raw mut (*entry).address).cast::<[u32; 4]>().write(peer.address);
        (&raw mut (*entry).source).cast::<[u32; 4]>().write(peer::source(sock));
        (*entry).net = task::net_ns(peer::net(sock));
        task::describe(&raw mut (*entry).header, task::current());
    }
}

#[inline(always)]
fn end(sock: u64) {
    let Some(entry) = CONNECTIONS.get_ptr_mut(&sock) else { return };
    // A socket whose end was missed leaves its entry to whoever gets its address next.
    // SAFETY: a map value.
    let same = unsafe { (*entry).port == u16::from_be(read(sock, off!(sock_dport))) };
    if !same {
        let _ = CONNECTIONS.remove(&sock);
        return;
    }
    emit::record(Lane::Events, TCP_CONNECT, |record: *mut ConnectEnd| {
        // SAFETY: a ring reservation of this size, and a map value.
        unsafe {
            *record = *entry;
            emit::number(&raw mut (*record).header, KIND_CONNECT_END, TCP_CONNECT);
            (*record).error = read(sock, off!(sock_err));
            let retransmitted: u64 = read(sock, off!(tcp_bytes_retrans));
            (*record).bytes_sent = read::<u64>(sock, off!(tcp_bytes_sent)).wrapping_sub(retransmitted);
            (*record).bytes_received = read(sock, off!(tcp_bytes_received));
        }
    });
    let _ = CONNECTIONS.remove(&sock);
}

/// `security_socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)`
#[fentry(function = "security_socket_sendmsg")]
pub fn socket_send_fentry(ctx: FEntryContext) -> i32 {
    observe_send(read(ctx.arg(0), off!(socket_sk)));
    0
}

/// `sock_send_length(struct sock *sk, int ret, int flags)`, 6.3 and later.
#[btf_tracepoint(function = "sock_send_length")]
pub fn socket_send_tp_btf(ctx: BtfTracePointContext) -> i32 {
    observe_send(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn socket_send_raw_tp(ctx: RawTracePointContext) -> i32 {
    observe_send(ctx.arg(0));
    0
}

/// A process sends over a connection that another one began: it inherited the socket, or was passed it.
#[inline(always)]
fn observe_send(sock: u64) {
    let Some(entry) = CONNECTIONS.get_ptr(&sock) else { return };
    // SAFETY: a map value.
    let owner = unsafe { (*entry).header.pid };
    let pid: u32 = read(task::current(), off!(task_tgid));
    if owner == pid {
        return;
    }
    let sender = Sender { sock, pid, reserved: 0 };
    if SENDERS.get_ptr(&sender).is_some() {
        return;
    }
    let _ = SENDERS.insert(&sender, &1, 0);
    let (peer, source) = (peer::of_sock(sock), peer::source(sock));
    let (protocol, net) = (peer::protocol(sock), peer::net(sock));
    peer::tell(SOCKET_SEND, CONNECT_INHERITED, protocol, &peer, &source, net, Decision::none());
}
