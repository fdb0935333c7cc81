//! Ring-buffer records, as the kernel programs write them and the agent reads them: native byte order, 8-byte
//! aligned, no padding, `Header` first.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `Header::kind` of [`FileOpen`].
pub const KIND_FILE_OPEN: u32 = 1;
/// `Header::kind` of a [`FileOpen`] written for the daemon's own enrolling open: its key is the answer.
pub const KIND_ENROL: u32 = 2;
/// `Header::kind` of [`Connect`].
pub const KIND_CONNECT: u32 = 3;
/// `Header::kind` of [`Exec`].
pub const KIND_EXEC: u32 = 4;
/// `Header::kind` of [`Fork`].
pub const KIND_FORK: u32 = 5;
/// `Header::kind` of [`Exit`].
pub const KIND_EXIT: u32 = 6;
/// `Header::kind` of a bare [`Header`] written by the task iterator.
pub const KIND_TASK: u32 = 7;

/// `Header::kind` of [`FileClose`].
pub const KIND_FILE_CLOSE: u32 = 8;
/// `Header::kind` of [`FileChange`].
pub const KIND_FILE_CHANGE: u32 = 9;

/// `Header::kind` of [`MemoryAccess`].
pub const KIND_MEMORY: u32 = 10;

/// `Header::kind` of [`ConnectEnd`].
pub const KIND_CONNECT_END: u32 = 11;
/// `Header::kind` of [`SocketOpen`].
pub const KIND_SOCKET_OPEN: u32 = 12;

/// `Header::kind` of [`DnsMessage`].
pub const KIND_DNS: u32 = 13;

/// `Header::kind` of [`LocalConnect`].
pub const KIND_LOCAL_CONNECT: u32 = 14;

/// Bytes of `task_struct.comm` (`TASK_COMM_LEN` in include/linux/sched.h).
pub const COMM_BYTES: usize = 16;
/// The longest path a record carries; a longer one sets [`PATH_TRUNCATED`].
pub const PATH_MAX_BYTES: usize = 4096;
/// Components (and mount crossings) that the path walk follows.
pub const PATH_MAX_STEPS: usize = 64;
/// `path_state`: the walk stopped before the root, the front of the path is missing.
pub const PATH_TRUNCATED: u32 = 1;

/// Who, when, and which number in which sequence. 96 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    pub kind: u32,
    pub program: u32,
    pub cpu: u32,
    /// Of the policies whose rules deny: the one in force then.
    pub generation: u32,
    /// Records that this program generated on this CPU before this one, lost ones included.
    pub sequence: u64,
    /// CLOCK_BOOTTIME, nanoseconds (`bpf_ktime_get_boot_ns`).
    pub boot_ns: u64,
    /// `start_boottime` of the thread-group leader, nanoseconds.
    pub start_boot_ns: u64,
    /// `kernfs_node.id` of the task's cgroup in the default (v2) hierarchy.
    pub cgroup_id: u64,
    pub pid: u32,
    pub tid: u32,
    pub ppid: u32,
    pub uid: u32,
    pub gid: u32,
    pub mnt_ns: u32,
    pub net_ns: u32,
    pub pid_ns: u32,
    pub comm: [u8; COMM_BYTES],
}

/// `FileOpen::via`: by an open.
pub const VIA_OPEN: u32 = 0;
/// The descriptor came from another process: `SCM_RIGHTS`, `pidfd_getfd(2)`.
pub const VIA_RECEIVED: u32 = 1;

/// Not a watched file but a way around the watch: the memory of a process, `/proc/PID/mem`.
pub const VIA_PROC_MEM: u32 = 2;
/// The block device that a watched file lies on; `FileOpen::watched_dev` is its number.
pub const VIA_BLOCK_DEVICE: u32 = 3;
/// A device whose transfers pass no file and no socket: RDMA verbs, GPUDirect Storage.
pub const VIA_BYPASS_DEVICE: u32 = 4;
/// The device node of a GPU.
pub const VIA_GPU_DEVICE: u32 = 5;

/// A file was opened. 160 bytes, then `path_bytes` bytes: the path's components, last first, each ended by a NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FileOpen {
    pub header: Header,
    pub ino: u64,
    pub watched_ino: u64,
    pub size_bytes: u64,
    /// `super_block.s_dev`, the kernel's encoding: `major << 20 | minor`.
    pub dev: u32,
    pub generation: u32,
    pub flags: u32,
    pub mode: u32,
    pub links: u32,
    pub watched_dev: u32,
    pub path_bytes: u32,
    pub path_state: u32,
    pub via: u32,
    /// The rule that denied it, as a lane counted from 1; 0 where none did.
    pub denied: u32,
}

/// `Connect::how`: a TCP connection begins, or a UDP socket is connected.
pub const CONNECT_BEGIN: u32 = 0;
/// Datagrams are sent to a destination that each of them names.
pub const CONNECT_DATAGRAM: u32 = 1;
/// The process sends over a connection that another one began.
pub const CONNECT_INHERITED: u32 = 2;

/// A network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NetNs {
    /// Its inode number, as in `/proc/PID/ns/net`, which the next namespace may get.
    pub inum: u32,
    /// What the kernel drew for it by lot (`net.hash_mix`).
    pub mix: u32,
}

/// A task set out to connect, or to send. 152 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Connect {
    pub header: Header,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// Host byte order.
    pub port: u16,
    /// `IPPROTO_TCP` (6) or `IPPROTO_UDP` (17).
    pub protocol: u32,
    /// Network byte order; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// The node's own address, in the same form; zeros where it is not known yet.
    pub source: [u8; 16],
    pub how: u32,
    /// As in [`FileOpen`].
    pub denied: u32,
    /// The socket's network namespace; by cgroup the task's, since such a program cannot look into its socket.
    pub net: NetNs,
}

/// A TCP connection ended, or did not come about; `header` is the task that began it. 184 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConnectEnd {
    pub header: Header,
    pub family: u16,
    pub port: u16,
    pub protocol: u32,
    pub address: [u8; 16],
    pub source: [u8; 16],
    /// `sock.sk_err`, an errno; 0 for an orderly end.
    pub error: u32,
    pub reserved: u32,
    pub net: NetNs,
    pub begin_boot_ns: u64,
    /// 0 when it never was.
    pub established_boot_ns: u64,
    /// Retransmissions not counted.
    pub bytes_sent: u64,
    /// The end of the stream may count as one.
    pub bytes_received: u64,
}

/// A socket was made whose traffic no hook sees. 112 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketOpen {
    pub header: Header,
    /// `AF_*`, `SOCK_*` and `IPPROTO_*`, as in `socket(2)`.
    pub family: u32,
    pub kind: u32,
    pub protocol: u32,
    pub reserved: u32,
}

/// Bytes of `sockaddr_un.sun_path` (include/uapi/linux/un.h).
pub const LOCAL_NAME_BYTES: usize = 108;

/// A task connected to a local socket (`AF_UNIX`). 216 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LocalConnect {
    pub header: Header,
    /// Who listens, in the initial pid namespace; 0 where nobody is known to.
    pub server_pid: u32,
    pub name_bytes: u32,
    /// As the server bound it: a path, relative ones included, or an abstract name, which begins with a NUL.
    pub name: [u8; LOCAL_NAME_BYTES],
    pub reserved: u32,
}

/// The port of the domain name system (RFC 1035, 4.2).
pub const DNS_PORT: u16 = 53;
/// The shortest message that asks: a header of 12 bytes, the root's name, type and class (RFC 1035, 4.1).
pub const DNS_MIN_BYTES: u64 = 17;
/// The longest message that a record carries; of a longer one it has the front.
pub const DNS_MAX_BYTES: usize = 4096;

/// `DnsMessage::direction`: the task sent it to the server, or took it from there.
pub const DNS_SENT: u32 = 0;
pub const DNS_RECEIVED: u32 = 1;

/// A message to or from port 53 of a server. 144 bytes, then `message_bytes` bytes of it. Over TCP these may begin with the
/// length of the message (RFC 1035, 4.2.2), or be a part of one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DnsMessage {
    pub header: Header,
    /// The server, as in [`Connect`].
    pub family: u16,
    pub port: u16,
    pub protocol: u32,
    pub address: [u8; 16],
    pub direction: u32,
    pub reserved: u32,
    /// The socket's.
    pub net: NetNs,
    pub message_bytes: u32,
    /// How long it is in all.
    pub total_bytes: u32,
}

/// The longest argument list that a record carries.
pub const ARGUMENTS_MAX_BYTES: usize = 1024;

/// `Exec::loginuid` of a task that nobody logged in for, and of kernels without audit (include/linux/uidgid.h, `INVALID_UID`).
pub const NO_LOGIN: u32 = u32::MAX;

/// A new program runs. 152 bytes, then the path of the file that runs, as in [`FileOpen`], then `argument_bytes` bytes of
/// its arguments, each ended by a NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exec {
    pub header: Header,
    pub path_bytes: u32,
    pub path_state: u32,
    pub ino: u64,
    /// `cred.cap_effective`
    pub capabilities: u64,
    pub loginuid: u32,
    /// `inode.i_nlink` of the file: 0 for one that was removed, and for a memfd.
    pub links: u32,
    pub argument_bytes: u32,
    /// How long the arguments are in all.
    pub argument_total_bytes: u32,
    /// `super_block.s_dev` of the file that runs.
    pub dev: u32,
    /// `inode.i_generation` of it.
    pub inode_generation: u32,
    /// The mount namespace of its mount, in which the path is; 0 for none.
    pub mnt_ns: u32,
    pub reserved: u32,
}

/// A process was forked (threads are not reported); `header` is the parent. 112 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fork {
    pub header: Header,
    pub child_start_boot_ns: u64,
    pub child_pid: u32,
    pub reserved: u32,
}

/// The last thread of a process exited. 104 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exit {
    pub header: Header,
    /// As in `wait(2)`.
    pub code: i32,
    /// Not 0 when the process has entries in the table of reads.
    pub files: u32,
}

/// A descriptor or a mapping of a watched file came to its end. 112 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FileClose {
    pub header: Header,
    pub ino: u64,
    pub dev: u32,
    pub reserved: u32,
}

/// `FileChange::how`: bytes were written.
pub const CHANGE_WRITE: u32 = 1;
/// It got another name.
pub const CHANGE_RENAME: u32 = 2;
/// Another file took its name.
pub const CHANGE_REPLACE: u32 = 3;
/// A name of it was removed.
pub const CHANGE_UNLINK: u32 = 4;
/// It got one more name: a hard link.
pub const CHANGE_LINK: u32 = 5;
/// Its length was set.
pub const CHANGE_TRUNCATE: u32 = 6;
/// Another file now shares its blocks (`FICLONE`): a copy that no read shows.
pub const CHANGE_CLONED: u32 = 7;
/// It now shares the blocks of another file.
pub const CHANGE_OVERWRITTEN: u32 = 8;
/// It was mapped shared and writable: what is written is not seen.
pub const CHANGE_MAP_WRITABLE: u32 = 9;
/// Blocks of it were allocated, zeroed or removed (`fallocate`).
pub const CHANGE_ALLOCATE: u32 = 10;

/// A watched file was changed, or got or lost a name. 144 bytes, then a path as in [`FileOpen`]: the name that it has
/// after the change, or that it lost. Without a mount at hand the path starts at the root of its file system.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FileChange {
    pub header: Header,
    pub ino: u64,
    pub watched_ino: u64,
    pub dev: u32,
    pub generation: u32,
    pub watched_dev: u32,
    pub how: u32,
    pub path_bytes: u32,
    pub path_state: u32,
    pub links: u32,
    pub reserved: u32,
}

/// `MemoryAccess::how`: with the rights to read and write it, by whatever call.
pub const MEMORY_ATTACH: u32 = 1;
/// `process_vm_readv(2)` returned bytes.
pub const MEMORY_VM_READ: u32 = 2;
/// `ptrace(2)` attached.
pub const MEMORY_PTRACE: u32 = 3;

/// A process reached into the memory of another. 112 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MemoryAccess {
    pub header: Header,
    /// When the other process started, nanoseconds; 0 where the number is all that is known.
    pub target_start_boot_ns: u64,
    /// In the initial pid namespace where `target_start_boot_ns` is known, else as the caller named it.
    pub target_pid: u32,
    pub how: u32,
}

/// An inode, as the maps of watched directories and files are keyed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FileId {
    pub ino: u64,
    /// As [`FileOpen::dev`].
    pub dev: u32,
    pub reserved: u32,
}

/// Value of the map of watched files: which watched directory made it one, and which file of that number is meant.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WatchedFile {
    pub watched_ino: u64,
    pub watched_dev: u32,
    /// `inode.i_generation`: inode numbers are used again.
    pub generation: u32,
}

/// Key of the map of reads: one process, one file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReadKey {
    pub file: FileId,
    pub start_boot_ns: u64,
    pub pid: u32,
    pub reserved: u32,
}

/// Key of the map of processes that have entries in the map of reads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ProcessKey {
    pub start_boot_ns: u64,
    pub pid: u32,
    pub reserved: u32,
}

/// Parts of a file that [`Reads::coverage`] tells apart.
pub const SLICES: usize = 512;

/// What one process has taken from, and given to, one watched file since it first touched it.
///
/// The figures are never summed: a program that reads a file and maps it has taken it once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Reads {
    /// The task that touched it first; `boot_ns` is when.
    pub header: Header,
    pub last_boot_ns: u64,
    /// By `read(2)` and its kin.
    pub bytes_read: u64,
    /// Of the page ranges that page faults mapped, repeated ones included.
    pub bytes_faulted: u64,
    pub bytes_written: u64,
    /// `inode.i_size` at the first touch: what the slices divide.
    pub size_bytes: u64,
    pub watched: WatchedFile,
    /// One byte per slice, so that two CPUs that mark neighbours need no atomic operation: 1 for touched.
    pub coverage: [u8; SLICES],
}

/// The one entry of the control map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Control {
    /// Watched directories; 0 makes `file_open` return at once.
    pub watched: u32,
    /// While not 0, every open of this process (initial pid namespace) is answered by a [`KIND_ENROL`] record.
    pub enrol_pid: u32,
    /// What the programs at the return of system calls do: bits `1 << program` of [`crate::program`].
    pub at_return: u32,
    /// The hooks that are attached, on whichever rung: the same bits.
    pub attached: u32,
    /// Pages are `1 << page_shift` bytes.
    pub page_shift: u32,
    /// Records of one program that one cgroup may have in a second; 0 for no limit.
    pub records_per_second: u32,
    /// Not 0 where a fault maps all pages of a folio, and not only those that it asked for.
    pub maps_folios: u32,
    /// Size of a `struct page`; 0 where nobody knows at which addresses pages lie, which the next two say.
    pub page_bytes: u32,
    /// The daemon, to which nothing is denied, in the initial pid namespace.
    pub own_pid: u32,
    pub reserved: u32,
    /// Addresses of the kernel's variables `vmemmap_base` and `page_offset_base`.
    pub vmemmap_base_at: u64,
    pub page_offset_base_at: u64,
}

/// Key of the map of rates: one cgroup, one program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BucketKey {
    pub cgroup_id: u64,
    pub program: u32,
    pub reserved: u32,
}

/// What one cgroup has told in its present second, and what was held back since the beginning.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Bucket {
    pub window_boot_ns: u64,
    pub suppressed: u64,
    pub taken: u32,
    pub reserved: u32,
}

/// Per-CPU counters of one program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Counters {
    /// Records that were due, delivered or not; the next record's `sequence`.
    pub generated: u64,
    /// Records that found the ring buffer full.
    pub ring_full: u64,
    /// Reads that found the table of reads full.
    pub table_full: u64,
}

const _: () = {
    assert!(size_of::<Header>() == 96);
    assert!(size_of::<FileOpen>() == 160);
    assert!(size_of::<Connect>() == 152);
    assert!(size_of::<Exec>() == 152);
    assert!(size_of::<Fork>() == 112);
    assert!(size_of::<Exit>() == 104);
    assert!(size_of::<FileClose>() == 112);
    assert!(size_of::<FileChange>() == 144);
    assert!(size_of::<ConnectEnd>() == 184);
    assert!(size_of::<SocketOpen>() == 112);
    assert!(size_of::<DnsMessage>() == 144);
    assert!(size_of::<LocalConnect>() == 216);
    assert!(size_of::<ReadKey>() == 32);
    assert!(size_of::<Reads>() == 664);
};
