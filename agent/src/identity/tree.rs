//! Trees of processes, and the watched files that each has read: the first half of "read weights, then connected".
//!
//! A tree is a process with all that descends from it, for as long as they stay in one cgroup. Whoever moves into
//! another cgroup, as a container's first process does, begins a tree of its own and takes along what it knows. pid 1
//! is nobody's parent here, and a parent's death changes nothing: a tree is inherited at fork.

use std::collections::HashMap;

use crate::event::{FileKey, What};

/// Trees that have read and are remembered; beyond it the ones without a living process leave first, then the one that
/// has read least lately.
pub const MAX_TREES: usize = 1024;

/// Files remembered per tree; beyond it the one least lately read leaves.
pub const MAX_FILES: usize = 16;

/// One unit of `/proc/PID/stat`'s start time (USER_HZ is 100), so that a start read there and the kernel's exact one name
/// the same tree.
const TICK_NS: u64 = 10_000_000;

/// The process that a tree begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root {
    pid: u32,
    start_ticks: u64,
}

impl Root {
    pub fn new(pid: u32, start_boot_ns: u64) -> Self {
        Self { pid, start_ticks: start_boot_ns / TICK_NS }
    }
}

/// A process that reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reader {
    pub pid: u32,
    pub start_boot_ns: u64,
    pub comm: Vec<u8>,
    pub exe: Option<Vec<u8>>,
}

/// A watched file that a process has opened to read, and as much as is known of what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The name below the watched directory, where one was told.
    pub path: Option<Vec<u8>>,
    pub key: FileKey,
    pub watched: FileKey,
    pub reader: Reader,
    pub first_boot_ns: u64,
    pub last_boot_ns: u64,
    /// `None` where no figure has been told yet, or no hook counts it.
    pub bytes_read: Option<u64>,
    pub bytes_faulted: Option<u64>,
}

impl Taken {
    /// What the event tells of reading; `None` for events that tell of none.
    pub fn of(what: &What, reader: Reader, boot_ns: u64) -> Option<Self> {
        match what {
            What::FileOpen(open) if open.can_read() => Some(Self {
                path: Some(open.known_as.as_ref().unwrap_or(&open.path).clone()).filter(|path| !path.is_empty()),
                key: open.key,
                watched: open.watched,
                reader,
                first_boot_ns: boot_ns,
                last_boot_ns: boot_ns,
                bytes_read: None,
                bytes_faulted: None,
            }),
            What::FileRead(read) if !read.is_only_written() => Some(Self {
                path: read.path.clone(),
                key: read.key,
                watched: read.watched,
                reader,
                first_boot_ns: read.first_boot_ns,
                last_boot_ns: read.last_boot_ns,
                bytes_read: read.bytes_read,
                bytes_faulted: read.bytes_faulted,
            }),
            _ => None,
        }
    }

    /// Figures are cumulative, so the later ones hold.
    fn update(&mut self, later: Self) {
        self.first_boot_ns = self.first_boot_ns.min(later.first_boot_ns);
        self.last_boot_ns = self.last_boot_ns.max(later.last_boot_ns);
        self.bytes_read = later.bytes_read.or(self.bytes_read);
        self.bytes_faulted = later.bytes_faulted.or(self.bytes_faulted);
        self.path = later.path.or(self.path.take());
        self.reader = later.reader;
    }
}

/// What every tree has read.
#[derive(Debug, Default)]
pub struct Trees {
    taken: HashMap<Root, Vec<Taken>>,
}

impl Trees {
    /// The files, the most lately read first.
    pub fn has_read(&self, root: Root) -> &[Taken] {
        self.taken.get(&root).map_or(&[], Vec::as_slice)
    }

    /// Adds to what the tree has read; `lives` says which trees still have a process.
    pub fn took(&mut self, root: Root, taken: Taken, lives: impl Fn(Root) -> bool) {
        self.make_room(root, lives);
        let files = self.taken.entry(root).or_default();
        let same = |other: &Taken| {
            (other.key, other.reader.pid, other.reader.start_boot_ns)
                == (taken.key, taken.reader.pid, taken.reader.start_boot_ns)
        };
        match files.iter_mut().find(|other| same(other)) {
            Some(before) => before.update(taken),
            None => files.push(taken),
        }
        files.sort_by_key(|taken| std::cmp::Reverse(taken.last_boot_ns));
        files.truncate(MAX_FILES);
    }

    /// A tree begins within another: it takes along what that has read.
    pub fn branch(&mut self, from: Root, to: Root, lives: impl Fn(Root) -> bool) {
        if from != to
            && let Some(taken) = self.taken.get(&from).cloned()
        {
            self.make_room(to, lives);
            self.taken.entry(to).or_insert(taken);
        }
    }

    fn make_room(&mut self, root: Root, lives: impl Fn(Root) -> bool) {
        if self.taken.len() < MAX_TREES || self.taken.contains_key(&root) {
            return;
        }
        self.taken.retain(|root, _| lives(*root));
        if self.taken.len() >= MAX_TREES {
            let last =
                |(root, files): (&Root, &Vec<Taken>)| (files.first().map_or(0, |taken| taken.last_boot_ns), *root);
            let oldest = self.taken.iter().map(last).min_by_key(|(last_boot_ns, _)| *last_boot_ns);
            if let Some((_, oldest)) = oldest {
                tracing::warn!(
                    limit = MAX_TREES,
                    "too many trees of processes have read watched files; the oldest is forgotten"
                );
                self.taken.remove(&oldest);
            }
        }
    }
}
