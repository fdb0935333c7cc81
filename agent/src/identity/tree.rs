//! Trees of processes, and the watched files that each has read: the first half of "read weights, then connected".
//!
//! A tree is a process with all that descends from it, for as long as they stay in one cgroup. It is inherited at fork, so a
//! parent's death changes nothing, and pid 1 is nobody's parent here. Whoever moves into another cgroup, as a container's
//! first process does, begins a tree of its own, which still knows what the tree it came from reads; that one learns nothing
//! from it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::Who;
use crate::event::{FileKey, What};

/// Trees that have read and are remembered; beyond it those without a living process leave first, then those that have
/// read least lately, which is told as a loss.
pub const MAX_TREES: usize = 512;

/// Files remembered per tree; beyond it the least lately read leave first, the last one of a watched directory last.
pub const MAX_FILES: usize = 16;

/// Trees that come from one another; a process that moves once more stays in the tree that it is in.
const MAX_DEPTH: u32 = 16;

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
    fn of(pid: u32, start_boot_ns: u64) -> Self {
        Self { pid, start_ticks: start_boot_ns / TICK_NS }
    }
}

/// The tree of a process, and those that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(Arc<Node>);

#[derive(Debug, PartialEq, Eq)]
struct Node {
    root: Root,
    origin: Option<Tree>,
    depth: u32,
}

impl Tree {
    /// The tree that begins with this process.
    pub fn of(pid: u32, start_boot_ns: u64) -> Self {
        Self(Arc::new(Node { root: Root::of(pid, start_boot_ns), origin: None, depth: 0 }))
    }

    /// The tree that begins with this process, which leaves `self`.
    pub fn branch(&self, pid: u32, start_boot_ns: u64) -> Self {
        let root = Root::of(pid, start_boot_ns);
        if root == self.0.root || self.0.depth >= MAX_DEPTH {
            return self.clone();
        }
        Self(Arc::new(Node { root, origin: Some(self.clone()), depth: self.0.depth + 1 }))
    }

    /// Whether this is the process that it begins with.
    pub fn is_rooted_at(&self, root: &Root) -> bool {
        self.0.root == *root
    }

    /// Its own root, and those of the trees that it came from.
    fn roots(&self) -> impl Iterator<Item = Root> {
        std::iter::successors(Some(self), |tree| tree.0.origin.as_ref()).map(|tree| tree.0.root)
    }
}

/// A watched file that a process has opened to read, and as much as is known of what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The name below the watched directory, where one was told.
    pub path: Option<Vec<u8>>,
    pub key: FileKey,
    pub watched: FileKey,
    pub reader: Who,
    pub first_boot_ns: u64,
    pub last_boot_ns: u64,
    /// `None` where no figure has been told yet, or no hook counts it.
    pub bytes_read: Option<u64>,
    pub bytes_faulted: Option<u64>,
}

impl Taken {
    /// What the event tells of reading; `None` for events that tell of none.
    pub fn of(what: &What, reader: Who, boot_ns: u64) -> Option<Self> {
        match what {
            What::FileOpen(open) if open.can_read() => Some(Self {
                // Of a path without its front nobody can say where it lies.
                path: open.known_as.clone().or_else(|| (!open.path_truncated).then(|| open.path.clone())),
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

    /// What is known of the same file later. Figures of one reader are cumulative, so the later ones hold; of several
    /// readers, the one that has taken most is kept.
    fn update(&mut self, later: Self) {
        let amount = |taken: &Self| taken.bytes_read.unwrap_or(0).max(taken.bytes_faulted.unwrap_or(0));
        let of = |taken: &Self| (taken.reader.pid, taken.reader.start_boot_ns);
        if of(self) == of(&later) {
            self.bytes_read = later.bytes_read.or(self.bytes_read);
            self.bytes_faulted = later.bytes_faulted.or(self.bytes_faulted);
            self.reader = later.reader;
        } else if amount(&later) >= amount(self) {
            self.bytes_read = later.bytes_read;
            self.bytes_faulted = later.bytes_faulted;
            self.reader = later.reader;
        }
        self.first_boot_ns = self.first_boot_ns.min(later.first_boot_ns);
        self.last_boot_ns = self.last_boot_ns.max(later.last_boot_ns);
        self.path = later.path.or(self.path.take());
    }
}

/// What one tree has read, as far as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HasRead {
    /// The most lately read first.
    pub files: Vec<Taken>,
    /// How often a file was forgotten because there were too many.
    pub left_out: u64,
}

impl HasRead {
    fn add(&mut self, taken: Taken) {
        match self.files.iter_mut().find(|other| other.key == taken.key) {
            Some(before) => before.update(taken),
            None => self.files.push(taken),
        }
        self.sort();
        while self.files.len() > MAX_FILES {
            let of_one_directory =
                |taken: &Taken| self.files.iter().filter(|other| other.watched == taken.watched).count() > 1;
            let least = self.files.iter().rposition(of_one_directory).unwrap_or(self.files.len() - 1);
            self.files.remove(least);
            self.left_out += 1;
        }
    }

    fn sort(&mut self) {
        self.files.sort_by_key(|taken| std::cmp::Reverse(taken.last_boot_ns));
    }
}

/// Files of which is remembered that a tree has read them; of a tree that has read more, it is not known of every file.
pub const MAX_KEYS: usize = 1024;

/// What every tree has read.
#[derive(Debug, Default)]
pub struct Readings {
    trees: HashMap<Root, HasRead>,
    /// Every file that a tree has read, up to [`MAX_KEYS`].
    keys: HashMap<Root, HashSet<FileKey>>,
    forgotten: u64,
}

impl Readings {
    /// What the tree, and those that it came from, have read.
    pub fn of(&self, tree: &Tree) -> HasRead {
        let mut all = HasRead::default();
        for read in tree.roots().filter_map(|root| self.trees.get(&root)) {
            all.files.extend(read.files.iter().cloned());
            all.left_out += read.left_out;
        }
        all.sort();
        all
    }

    /// The roots of trees that may have read the file, other than this one and those that it came from, each with whether it
    /// surely has.
    pub fn others_that_read(&self, file: FileKey, than: &Tree) -> Vec<(Root, bool)> {
        let others = self.keys.iter().filter(|(root, _)| !than.roots().any(|own| own == **root));
        let reads = others.map(|(root, keys)| (*root, keys.contains(&file), keys.len() >= MAX_KEYS));
        reads.filter(|(_, surely, maybe)| *surely || *maybe).map(|(root, surely, _)| (root, surely)).collect()
    }

    /// Adds to what the tree has read; `living` is asked for the trees that have a process, when there are too many.
    pub fn took<'a, L: Iterator<Item = &'a Tree>>(&mut self, tree: &Tree, taken: Taken, living: impl FnOnce() -> L) {
        let root = tree.0.root;
        if self.trees.len() >= MAX_TREES && !self.trees.contains_key(&root) {
            let living: HashSet<Root> = living().flat_map(Tree::roots).collect();
            self.trees.retain(|root, _| living.contains(root));
            self.keys.retain(|root, _| living.contains(root));
            self.forget_oldest();
        }
        let keys = self.keys.entry(root).or_default();
        if keys.len() < MAX_KEYS {
            keys.insert(taken.key);
        }
        self.trees.entry(root).or_default().add(taken);
    }

    /// Makes room for many at once, so that it is not done for each.
    fn forget_oldest(&mut self) {
        if self.trees.len() < MAX_TREES {
            return;
        }
        let last = |read: &HasRead| read.files.first().map_or(0, |taken| taken.last_boot_ns);
        let mut oldest: Vec<(u64, Root)> = self.trees.iter().map(|(root, read)| (last(read), *root)).collect();
        oldest.sort_by_key(|(last_boot_ns, _)| *last_boot_ns);
        for (_, root) in oldest.into_iter().take(MAX_TREES / 8) {
            self.trees.remove(&root);
            self.keys.remove(&root);
            self.forgotten += 1;
        }
    }

    /// Living trees whose readings were forgotten since this was asked last.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }
}
