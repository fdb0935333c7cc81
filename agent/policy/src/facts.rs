//! What a policy sees of an event.
//!
//! Borrowed, so that deciding copies nothing. Names and paths are bytes, as the kernel holds them. What is not known
//! is `None`, and **what is not known never satisfies an exception**: a process whose executable could not be read is
//! not on anybody's allow-list. Ignorance errs towards the alert.

use std::net::IpAddr;

use crate::policy::Severity;
use crate::shape::Words;

/// One event: who did what to what.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub subject: Subject<'a>,
    pub object: Object<'a>,
}

/// The process that acted. Of findings, which no process made, nothing is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    pub pid: u32,
    pub uid: Option<u32>,
    /// The name of the uid, on the host.
    pub user: Option<&'a str>,
    /// The task's name. Any process may call itself anything: a policy should not trust it alone.
    pub comm: &'a [u8],
    /// The path of the executable, in the process's own mount namespace.
    pub exe: Option<&'a [u8]>,
    /// SHA-256 of the executable, lower-case hexadecimal; filled where [`crate::PolicySet::wants_digests`].
    pub exe_sha256: Option<&'a str>,
    /// Parent first, then its parent, as far as they are known.
    pub ancestors: &'a [Ancestor<'a>],
    /// The path below the cgroup mount, such as `/system.slice/vllm.service`.
    pub cgroup: Option<&'a [u8]>,
    /// The full container id, lower-case hexadecimal; `None` outside containers as well as when unknown.
    pub container: Option<&'a str>,
    /// The image of the container, as its pod names it.
    pub image: Option<&'a str>,
    /// The Kubernetes pod's uid.
    pub pod_uid: Option<&'a str>,
    pub pod: Option<Pod<'a>>,
    /// Watched files that its tree of processes has read.
    pub has_read: &'a [Taken<'a>],
}

/// What a Kubernetes pod is called.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty where they are not known.
    pub labels: &'a [(String, String)],
}

/// A watched file that the process, or another of its tree, has read.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// The name below the watched directory, where one was told.
    pub path: Option<&'a [u8]>,
    /// The watched directory above the file, as in [`File`].
    pub watched: Option<&'a [u8]>,
}

/// A process above the one that acted.
#[derive(Debug, Clone, Copy)]
pub struct Ancestor<'a> {
    pub exe: Option<&'a [u8]>,
    pub comm: &'a [u8],
}

/// What was done, to what.
#[derive(Debug, Clone, Copy)]
pub enum Object<'a> {
    File(File<'a>),
    Connect {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        /// What the address was resolved as: by a server that the process is configured to ask, and not too long ago.
        names: &'a [&'a str],
        /// The node's own address, where it is known already: of a TCP connection, but not of datagrams.
        source: Option<IpAddr>,
    },
    /// A program began to run; the subject is the process as it is from then on.
    Exec {
        path: &'a [u8],
        /// The file has no name any more, or never had one: removed, or a memfd.
        is_nameless: bool,
    },
    /// A device node was opened.
    Device {
        kind: DeviceKind,
        path: &'a [u8],
    },
    /// The memory of a process that has read watched files was reached into.
    Memory {
        how: MemoryHow,
    },
    /// A map, program or link of the daemon's own was reached for by `bpf(2)`.
    Bpf {
        kind: BpfKind,
        /// As the kernel has it.
        name: &'a [u8],
        how: BpfHow,
    },
    /// A reader of watched files connected to a local socket; an abstract name begins with `@`.
    Local {
        name: &'a [u8],
    },
    /// A socket was made whose traffic is not seen.
    Socket {
        family: &'a str,
    },
    /// Something is wrong with a part of the node, or with the evidence itself.
    Finding {
        kind: &'a str,
        severity: Severity,
        entity: &'a str,
        text: &'a str,
    },
}

impl Object<'_> {
    /// The kind as rules name it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Connect { .. } => "connect",
            Self::Exec { .. } => "exec",
            Self::Device { .. } => "device",
            Self::Memory { .. } => "memory",
            Self::Bpf { .. } => "bpf",
            Self::Local { .. } => "local",
            Self::Socket { .. } => "socket",
            Self::Finding { .. } => "finding",
        }
    }
}

/// A watched file, and what was done to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct File<'a> {
    pub accesses: Accesses,
    /// From the root of the opener's mount namespace.
    pub path: &'a [u8],
    /// The front of `path` is missing, so that nothing can be said of where it lies.
    pub path_truncated: bool,
    /// The watched directory above the file, as [`crate::PolicySet::watched_paths`] led to it. It is found by
    /// inode, so it holds where `path` misleads: bind mounts, symbolic links, containers.
    pub watched: Option<&'a [u8]>,
    /// The repository of the model that the path claims to belong to: `org/name`.
    pub artefact: Option<&'a str>,
    /// How much of it was read or mapped so far, where that is counted.
    pub bytes: Option<u64>,
    /// Hundredths of its slices that were touched so far.
    pub percent: Option<u8>,
    /// Another tree of processes that lives has read it; `None` where nobody has looked.
    pub is_served: Option<bool>,
}

/// What was done to a file, several at once: what is mapped is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accesses(u16);

impl Accesses {
    pub fn of(accesses: impl IntoIterator<Item = Access>) -> Self {
        Self(accesses.into_iter().fold(0, |bits, access| bits | access.bits()))
    }

    pub fn any_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Nothing but what is in `other`.
    pub(crate) fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Its words, for people.
    pub(crate) fn words(self) -> String {
        let single =
            Access::WORDS.iter().filter(|(_, access)| *access != Access::Change && self.any_of(Self(access.bits())));
        single.map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
    }
}

/// What may be done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It was opened, or its descriptor received.
    Open,
    /// Bytes of it were read or mapped.
    Read,
    /// Bytes of it were reached through a mapping.
    Map,
    /// Its bytes or its length were changed.
    Write,
    /// It was renamed, or another file took its name.
    Rename,
    /// It got one more name, or another file shares its blocks.
    Link,
    /// It lost a name.
    Unlink,
    /// It began to run.
    Exec,
    /// Any of write, rename, link, unlink.
    Change,
}

impl Words for Access {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("open", Self::Open),
        ("read", Self::Read),
        ("map", Self::Map),
        ("write", Self::Write),
        ("rename", Self::Rename),
        ("link", Self::Link),
        ("unlink", Self::Unlink),
        ("exec", Self::Exec),
        ("change", Self::Change),
    ];
}

impl Access {
    fn bits(self) -> u16 {
        match self {
            Self::Open => 1,
            Self::Read => 2,
            Self::Map => 4,
            Self::Write => 8,
            Self::Rename => 16,
            Self::Link => 32,
            Self::Unlink => 64,
            Self::Exec => 128,
            Self::Change => 8 | 16 | 32 | 64,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Words for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("udp", Self::Udp)];
}

/// Device nodes that tell something of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// `/dev/nvidia*`
    Gpu,
    /// The disk that watched files lie on, read below its file system.
    Block,
    /// RDMA verbs or GPUDirect Storage: transfers that the kernel's sockets and files do not carry.
    Bypass,
}

impl Words for DeviceKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("gpu", Self::Gpu), ("block", Self::Block), ("bypass", Self::Bypass)];
}

/// How the memory of another process was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryHow {
    /// By whatever call: it asked for the rights of a debugger.
    Attach,
    VmRead,
    Ptrace,
    ProcMem,
}

impl Words for MemoryHow {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("attach", Self::Attach),
        ("process_vm_readv", Self::VmRead),
        ("ptrace", Self::Ptrace),
        ("proc_mem", Self::ProcMem),
    ];
}

/// Objects of `bpf(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfKind {
    Map,
    Program,
    Link,
}

impl Words for BpfKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("map", Self::Map), ("program", Self::Program), ("link", Self::Link)];
}

/// How one was reached for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfHow {
    /// A descriptor of it was got by its number.
    Open,
    /// What it holds was changed, or it was taken away.
    Change,
}

impl Words for BpfHow {
    const WORDS: &'static [(&'static str, Self)] = &[("open", Self::Open), ("change", Self::Change)];
}
