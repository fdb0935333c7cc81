//! What the iterator of programs writes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which file a process runs; a record of an iterator, not of a ring. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Running {
    pub ino: u64,
    pub dev: u32,
    pub inode_generation: u32,
    pub pid: u32,
    pub reserved: u32,
}
