//! What must be told of each way.

use std::{net::SocketAddr, os::unix::ffi::OsStrExt as _, path::Path};

use plumbline::event::{Change, ConnectHow, DeviceKind, Event, FileRead, MemoryHow, Outcome, Protocol, What};

use super::FILE_BYTES;

/// What the events of a way look like.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// The file was opened.
    Open,
    /// A file was opened by another name than this one.
    OpenElsewhere,
    /// A file was opened by this name, that is not the one that had it.
    OpenOfAnother,
    /// Its descriptor was received.
    Received,
    /// So many of its bytes were read, and so many slices touched.
    Read {
        bytes: usize,
    },
    /// At least all; a kernel before 6.8 verifies the range of a copy more than once, and short reads ask again.
    AtLeastAll,
    /// All of it was mapped.
    Faulted,
    Changed(Change),
    Memory(MemoryHow),
    DeviceOpen(DeviceKind),
    /// Over TCP, to the listener of the suite.
    Tcp(ConnectHow),
    /// Over TCP, to any port of loopback.
    TcpAnywhere,
    /// To the datagram socket of the suite.
    Udp(ConnectHow),
    Refused,
    /// A local socket, whose server is the process itself.
    Local,
    /// A question and its answer were told.
    Answered,
    /// `AF_*` and `SOCK_*`.
    Socket(i32, i32),
}

/// Where the ways out lead.
#[derive(Debug, Clone, Copy)]
pub struct Outside {
    pub tcp: SocketAddr,
    pub udp: SocketAddr,
}

/// `None` for ways that cannot be gone on any machine of the suite.
pub fn of(way: &str) -> Option<Expected> {
    let whole = Expected::Read { bytes: FILE_BYTES };
    Some(match way {
        "open by its own name"
        | "open through a symbolic link"
        | "open through a hard link in another directory"
        | "open through a bind mount of the file"
        | "open after it was moved to another directory"
        | "open by a file handle"
        | "open through /proc/PID/fd"
        | "open in another mount namespace"
        | "open by io_uring"
        | "open by a 32-bit system call"
        | "open on an overlay" => Expected::Open,
        "open a new file through a bind mount of a directory below the watched one"
        | "open in the layer below an overlay" => Expected::OpenElsewhere,
        "open a copy that was put in its place by rename" => Expected::OpenOfAnother,
        "receive its descriptor over a socket" | "take its descriptor by pidfd_getfd" => Expected::Received,
        "read through a descriptor that was received over a socket"
        | "read through an inherited descriptor after exec"
        | "read after it was removed while open"
        | "read by a 32-bit system call"
        | "read past the page cache (O_DIRECT)"
        | "read by AIO (io_submit)" => whole,
        "copy by sendfile"
        | "copy by splice"
        | "copy by copy_file_range"
        | "read by io_uring"
        | "read by io_uring from a fixed file" => Expected::AtLeastAll,
        // Each reads another fifth, and a bit.
        "read by read, pread, readv, preadv and preadv2" => whole,
        "map and touch" | "map and touch what no cache has" | "map populated in advance" => Expected::Faulted,
        "read the memory of a process by process_vm_readv" => Expected::Memory(MemoryHow::VmRead),
        "read the memory of a process through /proc/PID/mem" => Expected::Memory(MemoryHow::ProcMem),
        "attach to a process by ptrace" => Expected::Memory(MemoryHow::Ptrace),
        "open the block device below" => Expected::DeviceOpen(DeviceKind::BlockDevice),
        "copy by reflink (FICLONE)" => Expected::Changed(Change::Cloned),
        "write" => Expected::Changed(Change::Write),
        "map shared and writable" => Expected::Changed(Change::MapWritable),
        "truncate by descriptor" | "truncate by name" | "truncate by opening" => Expected::Changed(Change::Truncate),
        "punch a hole (fallocate)" => Expected::Changed(Change::Allocate),
        "put another file in its place by rename" => Expected::Changed(Change::Replace),
        "rename" => Expected::Changed(Change::Rename),
        "remove" => Expected::Changed(Change::Unlink),
        "make a hard link" => Expected::Changed(Change::Link),
        "connect by TCP"
        | "connect by TCP to an IPv4 address in IPv6 clothes"
        | "connect by TCP Fast Open"
        | "connect by MPTCP"
        | "connect by TCP through io_uring" => Expected::Tcp(ConnectHow::Begin),
        "connect by TCP in another network namespace" => Expected::TcpAnywhere,
        "connect by TCP and be refused" => Expected::Refused,
        "connect a UDP socket" => Expected::Udp(ConnectHow::Begin),
        "send datagrams without connecting" | "send datagrams by io_uring" => Expected::Udp(ConnectHow::Datagram),
        "send over an inherited TCP connection" | "send over a TCP connection that was received over a socket" => {
            Expected::Tcp(ConnectHow::Inherited)
        }
        "connect to a local socket (AF_UNIX)"
        | "connect to an abstract local socket"
        | "connect to a local socket by io_uring" => Expected::Local,
        "make a raw socket" | "make a raw socket by io_uring" => Expected::Socket(libc::AF_INET, libc::SOCK_RAW),
        "make a packet socket" => Expected::Socket(libc::AF_PACKET, libc::SOCK_RAW),
        "make an ICMP socket" => Expected::Socket(libc::AF_INET, libc::SOCK_DGRAM),
        "make an SCTP socket" => Expected::Socket(libc::AF_INET, libc::SOCK_STREAM),
        "make a vsock socket" => Expected::Socket(libc::AF_VSOCK, libc::SOCK_STREAM),
        way if way.starts_with("ask") => Expected::Answered,
        _ => return None,
    })
}

impl Expected {
    /// Whether this event, by another process than this one, tells of the way out.
    pub fn is_met_outside(self, event: &Event, outside: Outside) -> bool {
        if event.task.as_ref().is_none_or(|task| task.pid == std::process::id()) {
            return false;
        }
        match (self, &event.what) {
            (Self::Tcp(how), What::Connect(connect)) => {
                SocketAddr::new(connect.address, connect.port) == outside.tcp && connect.how == how
            }
            (Self::Udp(how), What::Connect(connect)) => {
                SocketAddr::new(connect.address, connect.port) == outside.udp && connect.how == how
            }
            (Self::TcpAnywhere, What::Connect(connect)) => {
                connect.protocol == Protocol::Tcp && connect.address.is_loopback()
            }
            (Self::Local, What::LocalConnect(connect)) => {
                let own = connect.server_pid == event.task.as_ref().map(|task| task.pid);
                own && connect.name.windows(9).any(|part| part == b"plumbline")
            }
            (Self::Refused, What::ConnectEnd(end)) => end.outcome == Outcome::Refused,
            (Self::Socket(family, kind), What::SocketOpen(socket)) => {
                (i32::try_from(socket.family), i32::try_from(socket.kind)) == (Ok(family), Ok(kind))
            }
            _ => false,
        }
    }

    /// Whether this event, by another process than this one, tells it of the file of this name with this inode number.
    pub fn is_met_by(self, event: &Event, file: &Path, ino: u64) -> bool {
        if event.task.as_ref().is_none_or(|task| task.pid == std::process::id()) {
            return false;
        }
        match (self, &event.what) {
            (Self::Open, What::FileOpen(open)) => open.key.ino == ino,
            (Self::Received, What::FileOpen(open)) => open.key.ino == ino && open.received,
            (Self::OpenElsewhere, What::FileOpen(open)) => open.path != file.as_os_str().as_bytes(),
            (Self::OpenOfAnother, What::FileOpen(open)) => {
                open.path == file.as_os_str().as_bytes() && open.key.ino != ino
            }
            (Self::Read { bytes }, What::FileRead(read)) => {
                read.key.ino == ino && read.bytes_read == u64::try_from(bytes).ok() && is_whole(read)
            }
            (Self::AtLeastAll, What::FileRead(read)) => {
                read.key.ino == ino && read.bytes_read >= u64::try_from(FILE_BYTES).ok() && is_whole(read)
            }
            (Self::Faulted, What::FileRead(read)) => {
                read.key.ino == ino && read.bytes_faulted.is_some_and(|bytes| bytes > 0) && is_whole(read)
            }
            (Self::Changed(how), What::FileChange(change)) => change.key.ino == ino && change.how == how,
            // Where the kernel asks its security modules, it does not say for which call.
            (Self::Memory(how), What::MemoryAccess(access)) => {
                access.how == how || (access.how == MemoryHow::Attach && how != MemoryHow::ProcMem)
            }
            (Self::DeviceOpen(kind), What::DeviceOpen(way)) => way.kind == kind,
            _ => false,
        }
    }
}

fn is_whole(read: &FileRead) -> bool {
    read.coverage.touched() == 512
}
