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
    pub reserved: u32,
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

/// A file was opened. 152 bytes, then `path_bytes` bytes: the path's components, last first, each ended by a NUL.
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
}

/// A task set out to connect. 120 bytes.
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
}

/// A new program runs. 112 bytes, then the path of the file that runs, as in [`FileOpen`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exec {
    pub header: Header,
    pub path_bytes: u32,
    pub path_state: u32,
    pub ino: u64,
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

/// A thread-group leader exited. 104 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exit {
    pub header: Header,
    /// As in `wait(2)`.
    pub code: i32,
    pub reserved: u32,
}

/// Key of the watched-directory map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WatchKey {
    pub ino: u64,
    pub dev: u32,
    pub reserved: u32,
}

/// The one entry of the control map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Control {
    /// Watched directories; 0 makes `file_open` return at once.
    pub watched: u32,
    /// While not 0, every open of this process (initial pid namespace) is answered by a [`KIND_ENROL`] record.
    pub enrol_pid: u32,
}

/// Per-CPU counters of one program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Counters {
    /// Records that were due, delivered or not; the next record's `sequence`.
    pub generated: u64,
    /// Records that found the ring buffer full.
    pub ring_full: u64,
}

const _: () = {
    assert!(size_of::<Header>() == 96);
    assert!(size_of::<FileOpen>() == 152);
    assert!(size_of::<Connect>() == 120);
    assert!(size_of::<Exec>() == 112);
    assert!(size_of::<Fork>() == 112);
    assert!(size_of::<Exit>() == 104);
};
