//! A process connected to a local socket: whoever listens there may send on what it gets, in its own name.
//!
//! A server is told once a minute per process. Datagrams to a local socket are not seen.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{fentry, map},
    maps::LruHashMap,
    programs::FEntryContext,
};
use plumbline_ebpf::{
    program::LOCAL_CONNECT,
    record::{KIND_LOCAL_CONNECT, LOCAL_NAME_BYTES, LocalConnect},
};

use crate::{
    emit::{self, Lane},
    kernel::{off, read, read_into},
    limit, task,
};

/// Servers that were told, and when.
#[map]
static LOCAL: LruHashMap<Server, u64> = LruHashMap::with_max_entries(8192, 0);

const TELL_AGAIN_NS: u64 = 60_000_000_000;

/// A `struct unix_address *` is the server's for as long as it listens.
#[repr(C)]
struct Server {
    address: u64,
    pid: u32,
    server_pid: u32,
}

/// `security_unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)`: streams and sequenced packets.
#[fentry(function = "security_unix_stream_connect")]
pub fn local_connect_fentry(ctx: FEntryContext) -> i32 {
    let other: u64 = ctx.arg(1);
    observe(other, other);
    0
}

/// The return of `connect`: the socket has taken over who listens (net/unix/af_unix.c, `copy_peercred`).
#[inline(always)]
pub fn connected(descriptor: u64) {
    let socket: u64 = read(task::file(descriptor), off!(file_private_data));
    let sock: u64 = read(socket, off!(socket_sk));
    if read::<u16>(sock, off!(sock_family)) == AF_UNIX {
        observe(read(sock, off!(unix_peer)), sock);
    }
}

/// include/linux/socket.h
const AF_UNIX: u16 = 1;

/// `named` has the server's address, `knows` who listens.
#[inline(always)]
fn observe(named: u64, knows: u64) {
    let address: u64 = read(named, off!(unix_address));
    if address == 0 {
        return;
    }
    let listener: u64 = read(knows, off!(sock_peer_pid));
    // `pid->numbers[0]` is the number in the initial namespace (include/linux/pid.h).
    let number = off!(pid_numbers).wrapping_add(off!(upid_number));
    let server_pid: u32 = if listener == 0 { 0 } else { read(listener, number) };
    // SAFETY: the helpers have no preconditions.
    let (pid, now_boot_ns) = unsafe { ((bpf_get_current_pid_tgid() >> 32) as u32, bpf_ktime_get_boot_ns()) };
    let key = Server { address, pid, server_pid };
    if let Some(told) = LOCAL.get_ptr(&key) {
        // SAFETY: a map value.
        if now_boot_ns.wrapping_sub(unsafe { *told }) < TELL_AGAIN_NS {
            return;
        }
    }
    let _ = LOCAL.insert(&key, &now_boot_ns, 0);
    if !limit::admits(LOCAL_CONNECT) {
        return;
    }
    // The length counts the family, two bytes in front of the name.
    let bytes: u32 = read(address, off!(unix_address_bytes));
    let bytes = bytes.saturating_sub(2);
    emit::record(Lane::Events, LOCAL_CONNECT, |record: *mut LocalConnect| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_LOCAL_CONNECT, LOCAL_CONNECT, task::current());
            (*record).server_pid = server_pid;
            (*record).name_bytes = if bytes > LOCAL_NAME_BYTES as u32 { LOCAL_NAME_BYTES as u32 } else { bytes };
            read_into(&raw mut (*record).name, address, off!(unix_address_name).wrapping_add(2));
            (*record).reserved = 0;
        }
    });
}
