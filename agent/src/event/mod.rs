//! What happened: the closed set of events that flow from the sensor to the log.
//!
//! An event holds kernel facts only, exactly as the kernel held them; who the process is and what a policy says of
//! it is added later (`identity`, `verdict`). Bytes that need not be UTF-8 (names, paths) stay bytes.

mod around;
mod file;
mod finding;
mod network;

use plumbline_audit::Statement;

pub use self::around::{BpfAccess, BpfHow, BpfKind, DeviceKind, DeviceOpen, MemoryAccess, MemoryHow};
pub use self::file::{Change, Coverage, FileChange, FileKey, FileOpen, FileRead, Told};
pub use self::finding::{Finding, FoundHolder, FoundProcess};
pub use self::network::{
    Connect, ConnectEnd, ConnectHow, Direction, DnsMessage, LocalConnect, Outcome, Protocol, SocketOpen,
};

/// One thing that happened, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Nanoseconds of CLOCK_BOOTTIME when the kernel (or the daemon) saw it.
    pub boot_ns: u64,
    /// Which program on which CPU saw it, and its number there; `None` for the daemon's own events.
    pub origin: Option<Origin>,
    /// The task that did it; `None` for the daemon's own events.
    pub task: Option<Task>,
    pub what: What,
}

impl Event {
    /// What denied it, if something did.
    pub fn denied_by(&self) -> Option<DeniedBy> {
        match &self.what {
            What::FileOpen(open) => open.denied_by,
            What::Connect(connect) => connect.denied_by,
            _ => None,
        }
    }

    /// Of the policies that were in force for whoever saw it.
    pub fn generation(&self) -> Option<u32> {
        let by = self.denied_by().map(|by| by.generation);
        by.or_else(|| self.origin.map(|origin| origin.generation))
    }
}

/// The place of a record in the gap-free sequence of one program on one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Of the policies by which the kernel denied then.
    pub generation: u32,
    pub program: u32,
    pub cpu: u32,
    pub sequence: u64,
}

/// What denied: a lane of the rules that deny, numbered anew with each generation of the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedBy {
    pub generation: u32,
    pub lane: u32,
}

/// The acting task as the kernel knew it at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Task {
    /// Process id (thread-group id) in the initial pid namespace.
    pub pid: u32,
    pub tid: u32,
    pub ppid: u32,
    pub uid: u32,
    pub gid: u32,
    /// `task_struct.start_boottime`, nanoseconds: with `pid` it names a process for ever.
    pub start_boot_ns: u64,
    /// The cgroup v2 id (the kernfs inode number of its directory).
    pub cgroup_id: u64,
    pub namespaces: Namespaces,
    pub comm: Vec<u8>,
}

/// A network namespace: its inode number is used again, and then drawn another number for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct NetNs {
    pub inum: u32,
    /// `net.hash_mix`: a secret of the kernel's, never recorded.
    pub mix: u32,
}

/// Namespace inode numbers, as in `/proc/PID/ns/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces {
    pub mnt: u32,
    pub net: u32,
    pub pid: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    FileOpen(FileOpen),
    FileRead(FileRead),
    FileChange(FileChange),
    DeviceOpen(DeviceOpen),
    MemoryAccess(MemoryAccess),
    BpfAccess(BpfAccess),
    Connect(Connect),
    ConnectEnd(ConnectEnd),
    SocketOpen(SocketOpen),
    LocalConnect(LocalConnect),
    Dns(DnsMessage),
    Exec(Exec),
    Fork(Fork),
    Exit(Exit),
    Loss(Loss),
    Gap(Gap),
    Start(Start),
    Stop(Stop),
    Hook(Hook),
    Coverage(CoverageStatement),
    Policies(Policies),
    Disk(Disk),
    ClockStep(ClockStep),
    Finding(Finding),
    Log(Statement),
}

impl What {
    /// The kind in one word: the label of series, and `unmapped.plumbline.kind` of records.
    pub fn kind(&self) -> &'static str {
        match self {
            What::FileOpen(_) => "file_open",
            What::FileRead(_) => "file_read",
            What::FileChange(_) => "file_change",
            What::DeviceOpen(_) => "device_open",
            What::MemoryAccess(_) => "memory_access",
            What::BpfAccess(_) => "bpf_access",
            What::Connect(_) => "connect",
            What::ConnectEnd(_) => "connect_end",
            What::SocketOpen(_) => "socket_open",
            What::LocalConnect(_) => "local_connect",
            What::Dns(_) => "dns",
            What::Exec(_) => "exec",
            What::Fork(_) => "fork",
            What::Exit(_) => "exit",
            What::Loss(_) => "loss",
            What::Gap(_) => "gap",
            What::Start(_) => "start",
            What::Stop(_) => "stop",
            What::Hook(_) => "hook",
            What::Coverage(_) => "coverage",
            What::Policies(_) => "policies",
            What::Disk(_) => "disk",
            What::ClockStep(_) => "clock_step",
            What::Finding(_) => "finding",
            What::Log(statement) => statement.kind(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exec {
    /// The number of the mount namespace in which `exe` is the file's path; 0 where it is in none.
    pub mnt_ns: u32,
    /// The path of the file that runs; for a script, its interpreter.
    pub exe: Vec<u8>,
    /// Its arguments, each ended by a NUL, as the new program found them; cut at 1023 bytes.
    pub arguments: Vec<u8>,
    pub arguments_truncated: bool,
    /// `cred.cap_effective`: one bit per capability of capabilities(7).
    pub capabilities: u64,
    /// Who logged in, whatever became of the uid since; `None` for daemons and where the kernel has no audit.
    pub loginuid: Option<u32>,
    /// The file has no name any more, or never had one: removed, or a memfd.
    pub deleted: bool,
    /// The file that runs.
    pub key: FileKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    pub child_pid: u32,
    pub child_start_boot_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// As in `wait(2)`; of the thread that ended last.
    pub code: i32,
}

/// Records that were generated and never reached the log: the hole, declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Where: `ring`, `table`, `rate`, `recursion`, `sequence`, `decode`, `log`.
    pub place: &'static str,
    /// The kernel program or queue that lost them.
    pub what: String,
    pub cpu: Option<u32>,
    /// The cgroup whose records were held back, where it was one's.
    pub cgroup_id: Option<u64>,
    pub count: u64,
}

/// Nobody watched: from the last record of the daemon before to the start of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// When the last record was written, nanoseconds since 1970; `None` where it cannot be read any more.
    pub from_unix_ns: Option<u64>,
    /// The machine was started anew meanwhile.
    pub reboot: bool,
    /// The daemon before had closed its log.
    pub orderly: bool,
}

/// The daemon began, or began again, to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Hooks and other sources, and how each fared, in words.
    pub coverage: Vec<(String, String)>,
    /// How the log was found: `new`, `closed`, or what recovery had to do.
    pub previous: String,
    /// How the log is kept: mode, retention, keys, memory, in words.
    pub keeping: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub reason: String,
}

/// A hook of the kernel was attached, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    /// The rung that was taken; `None` where every rung was refused.
    pub rung: Option<String>,
    pub sight: Sight,
    /// In words: the rung, and what was refused on the way to it.
    pub state: String,
}

/// Whether a hook sees what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Sees,
    /// Another hook sees it.
    NotNeeded,
    /// No rung was taken.
    Blind,
    /// It is attached, and does not see what the daemon does before its eyes.
    Silent,
}

/// What this node sees and what it does not, from now on until the next statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoverageStatement {
    /// Why it is made now, in words.
    pub cause: String,
    /// Hooks, and how each fares.
    pub hooks: Vec<(String, String)>,
    /// What the kernel and the machine are.
    pub host: Vec<(String, String)>,
    /// Watched directories, and how each is recognised.
    pub watched: Vec<(String, String)>,
    /// Ways that nothing sees, and what is so instead.
    pub blind: Vec<(String, String)>,
}

/// Another set of policies came into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    pub digest: String,
    pub generation: u64,
    pub previous_digest: String,
}

/// The room for the log changed from one state to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub state: DiskState,
    pub free_bytes: u64,
    /// What the daemon does about it, in words.
    pub action: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    Enough,
    Low,
    Critical,
    Full,
}

impl DiskState {
    pub fn as_str(self) -> &'static str {
        match self {
            DiskState::Enough => "enough",
            DiskState::Low => "low",
            DiskState::Critical => "critical",
            DiskState::Full => "full",
        }
    }
}

/// The wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// By how much, nanoseconds; positive is forward.
    pub by_ns: i64,
}
