//! What was done to a watched file.

use super::DeniedBy;

/// A watched file was opened, or its descriptor came from another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOpen {
    /// From the root of the opener's mount namespace, as the kernel's dentries spell it.
    pub path: Vec<u8>,
    /// More components than the kernel program walks: the front of `path` is missing.
    pub path_truncated: bool,
    /// The name below the watched directory, where `path` is another: a hard link, a bind mount.
    pub known_as: Option<Vec<u8>>,
    pub key: FileKey,
    /// The watched directory that made this an event.
    pub watched: FileKey,
    /// `file.f_flags`: `O_RDONLY` and friends.
    pub flags: u32,
    pub inode_mode: u32,
    pub size_bytes: u64,
    pub links: u32,
    /// Not opened but received: over a socket, or by `pidfd_getfd(2)`.
    pub received: bool,
    /// Not opened after all.
    pub denied_by: Option<DeniedBy>,
}

impl FileOpen {
    /// It may be read through this descriptor: `O_RDONLY` (0) or `O_RDWR` (2), and not `O_PATH`; nothing may, where it was denied.
    pub fn can_read(&self) -> bool {
        const O_ACCMODE: u32 = 3;
        const O_WRONLY: u32 = 1;
        const O_PATH: u32 = 0o10_000_000;
        self.denied_by.is_none() && self.flags & O_ACCMODE != O_WRONLY && self.flags & O_PATH == 0
    }
}

/// An inode as the kernel names it. `dev` is the kernel's own encoding (`major << 20 | minor`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileKey {
    pub dev: u32,
    pub ino: u64,
    pub generation: u32,
}

/// How much of a watched file one process has taken, from its first touch until now.
///
/// The figures say different things and are never summed. One that no attached hook counts is `None`, never 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRead {
    /// The name under which the file was found or opened last; `None` where neither was told.
    pub path: Option<Vec<u8>>,
    pub key: FileKey,
    pub watched: FileKey,
    /// The file's length at the first touch.
    pub size_bytes: u64,
    /// By `read(2)` and its kin, sendfile, splice, copy_file_range, io_uring.
    pub bytes_read: Option<u64>,
    /// Of the page ranges that page faults mapped, repeated ones included.
    pub bytes_faulted: Option<u64>,
    pub bytes_written: Option<u64>,
    /// What was read or faulted, by slices of the file.
    pub coverage: Coverage,
    pub first_boot_ns: u64,
    pub last_boot_ns: u64,
    pub told: Told,
}

impl FileRead {
    /// Nothing was taken from the file; it was only written to.
    pub fn is_only_written(&self) -> bool {
        let none = |bytes: Option<u64>| bytes.unwrap_or(0) == 0;
        none(self.bytes_read) && none(self.bytes_faulted)
    }
}

/// Why the figures are told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A descriptor or mapping was let go.
    Close,
    /// The process ended: these are its last.
    Exit,
    /// They have changed, and were not told for a while.
    Interval,
    /// The daemon ends.
    Stop,
}

impl Told {
    pub fn as_str(self) -> &'static str {
        match self {
            Told::Close => "close",
            Told::Exit => "exit",
            Told::Interval => "interval",
            Told::Stop => "stop",
        }
    }
}

/// Which of the 512 equal slices of a file were touched: bit `n % 64` of word `n / 64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coverage(pub [u64; Self::SLICES / 64]);

impl Coverage {
    pub const SLICES: usize = plumbline_ebpf::record::SLICES;

    pub fn of_slices(touched: &[u8; Self::SLICES]) -> Self {
        let mut words = [0; Self::SLICES / 64];
        for (slice, _) in touched.iter().enumerate().filter(|(_, touched)| **touched != 0) {
            words[slice / 64] |= 1 << (slice % 64);
        }
        Self(words)
    }

    /// Slices of which at least a byte was touched.
    pub fn touched(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Little-endian bytes: slice `n` is bit `n % 8` of byte `n / 8`.
    pub fn to_bytes(self) -> [u8; Self::SLICES / 8] {
        let mut bytes = [0; Self::SLICES / 8];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// The artefact changed under the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    pub how: Change,
    /// The name that it has after the change, or lost by it. Of renames, links and removals it starts at the root of its
    /// file system, because the kernel names no mount there.
    pub path: Vec<u8>,
    pub path_truncated: bool,
    /// The name under which the file was found or opened last.
    pub known_as: Option<Vec<u8>>,
    pub key: FileKey,
    pub watched: FileKey,
    pub links: u32,
}

/// What was done; the words are those of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The first bytes that this process wrote to it.
    Write,
    Rename,
    /// Another file took its name.
    Replace,
    Unlink,
    /// It got one more name: a hard link.
    Link,
    Truncate,
    /// Another file now shares its blocks: a copy that no read shows.
    Cloned,
    /// It now shares the blocks of another file.
    Overwritten,
    /// It was mapped shared and writable; what is written so is not seen.
    MapWritable,
    /// Blocks of it were allocated, zeroed or removed.
    Allocate,
}

impl Change {
    pub const ALL: [(u32, Self); 10] = {
        use plumbline_ebpf::record as raw;
        [
            (raw::CHANGE_WRITE, Self::Write),
            (raw::CHANGE_RENAME, Self::Rename),
            (raw::CHANGE_REPLACE, Self::Replace),
            (raw::CHANGE_UNLINK, Self::Unlink),
            (raw::CHANGE_LINK, Self::Link),
            (raw::CHANGE_TRUNCATE, Self::Truncate),
            (raw::CHANGE_CLONED, Self::Cloned),
            (raw::CHANGE_OVERWRITTEN, Self::Overwritten),
            (raw::CHANGE_MAP_WRITABLE, Self::MapWritable),
            (raw::CHANGE_ALLOCATE, Self::Allocate),
        ]
    };

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Rename => "rename",
            Self::Replace => "replace",
            Self::Unlink => "unlink",
            Self::Link => "link",
            Self::Truncate => "truncate",
            Self::Cloned => "cloned",
            Self::Overwritten => "overwritten",
            Self::MapWritable => "map_writable",
            Self::Allocate => "allocate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_one_bit_wherever_it_is_looked_at() {
        let mut touched = [0; Coverage::SLICES];
        (touched[0], touched[9], touched[511]) = (1, 1, 1);
        let coverage = Coverage::of_slices(&touched);
        assert_eq!(coverage.touched(), 3);
        let bytes = coverage.to_bytes();
        assert_eq!((bytes[0], bytes[1], bytes[63]), (1, 2, 128));
    }
}
