//! What a policy sees of an event.
//!
//! Borrowed, so that deciding copies nothing. Names and paths are bytes, as the kernel holds them. What is not known
//! is `None`, and **what is not known never satisfies an exception**: a process whose executable could not be read is
//! not on anybody's allow-list. Ignorance errs towards the alert.

use std::net::IpAddr;

/// One event: who did what to what.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub subject: Subject<'a>,
    pub object: Object<'a>,
}

/// The process that acted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    pub pid: u32,
    pub uid: u32,
    /// The task's name. Any process may call itself anything: a policy should not trust it alone.
    pub comm: &'a [u8],
    /// The path of the executable, in the process's own mount namespace.
    pub exe: Option<&'a [u8]>,
    /// Parent first, then its parent, as far as they are known.
    pub ancestors: &'a [Ancestor<'a>],
    /// The path below the cgroup mount, such as `/system.slice/vllm.service`.
    pub cgroup: Option<&'a [u8]>,
    /// The full container id, lower-case hexadecimal; `None` outside containers as well as when unknown.
    pub container: Option<&'a str>,
    /// The Kubernetes pod's uid.
    pub pod_uid: Option<&'a str>,
    /// Watched files that its tree of processes has read.
    pub has_read: &'a [Taken<'a>],
}

/// A watched file that the process, or another of its tree, has read.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// The name below the watched directory, where one was told.
    pub path: Option<&'a [u8]>,
    /// The watched directory above the file, as in [`Object::File`].
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
    File {
        access: Access,
        /// From the root of the opener's mount namespace.
        path: &'a [u8],
        /// The front of `path` is missing, so that nothing can be said of where it lies.
        path_truncated: bool,
        /// The watched directory above the file, as [`crate::PolicySet::watched_paths`] led to it. It is found by
        /// inode, so it holds where `path` misleads: bind mounts, symbolic links, containers.
        watched: Option<&'a [u8]>,
    },
    Connect {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        /// What the address was resolved as: by a server that the process is configured to ask, and not too long ago.
        names: &'a [&'a str],
    },
}

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It was opened, or its descriptor received.
    Open,
    /// Bytes of it were read or mapped.
    Read,
    /// Its bytes, its length or its names were changed.
    Change,
}

impl Access {
    pub(crate) const WORDS: &[(&str, Self)] = &[("open", Self::Open), ("read", Self::Read), ("change", Self::Change)];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Change => "change",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) const WORDS: &[(&str, Self)] = &[("tcp", Self::Tcp), ("udp", Self::Udp)];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
