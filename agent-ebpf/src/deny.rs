//! What the agent tells the programs of the rules that deny, and under which keys.
//!
//! A rule is a lane of a byte or of a word, a block is 64 words, and a [`Class`] stands for all facts that leave the same lanes.
//! Every key holds the generation of the policies that it belongs to: one word says which generation is in force, so that all tables
//! change at once. What the bits mean is described where they are made, in `agent/policy/src/compile.rs`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words of a block.
pub const WORDS: usize = 64;
/// Blocks of lanes of a byte.
pub const NARROW_BLOCKS: usize = 4;
/// Blocks of lanes of a word, which follow.
pub const WIDE_BLOCKS: usize = 2;
/// Lanes of a word of narrow ones.
pub const LANES: usize = 8;

/// Entries of the tables, for two generations at a time. The agent asserts that they hold what it puts in.
pub const USERS: u32 = 4096;
/// Watched directories, and files that lie below several.
pub const DIRECTORIES: u32 = 34_816;
pub const ADDRESSES: u32 = 131_072;
pub const PORTS: u32 = 131_072;

/// Cgroups above a task's that are looked for, until one is known.
pub const MAX_CGROUP_DEPTH: usize = 16;

/// The user that stands for all who are not in the table (`INVALID_UID` of include/linux/uidgid.h).
pub const OTHER_USER: u32 = u32::MAX;

/// What a fact leaves of the rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Class {
    /// Blocks in which a word is not 0.
    pub blocks: u64,
    pub number: u32,
    pub reserved: u32,
}

impl Class {
    /// What leaves nothing.
    pub const NONE: Self = Self { blocks: 0, number: 0, reserved: 0 };
}

/// Where the words of a class are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BlockKey {
    pub generation: u32,
    pub class: u32,
    pub block: u32,
}

/// Words of a class.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Block {
    /// Words that are not 0.
    pub live: u64,
    pub words: [u64; WORDS],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserKey {
    pub generation: u32,
    pub uid: u32,
}

/// A cgroup by its v2 id; 0 for one of which nothing is known.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CgroupKey {
    pub id: u64,
    pub generation: u32,
    pub reserved: u32,
}

/// An executable; zeros for one of which nothing is known.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ProgramKey {
    pub ino: u64,
    /// The kernel's encoding: `major << 20 | minor`.
    pub dev: u32,
    /// `inode.i_generation`: numbers of inodes are used again.
    pub inode_generation: u32,
    pub generation: u32,
    pub reserved: u32,
}

/// A watched directory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DirectoryKey {
    pub ino: u64,
    pub dev: u32,
    pub generation: u32,
}

/// Data of a key of the trie of addresses: the generation, then the address, IPv4 ones mapped into IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AddressKey {
    pub generation: u32,
    pub address: [u8; 16],
}

/// Data of a key of the trie of ports: the generation, the protocol, the port in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PortKey {
    pub generation: u32,
    pub protocol: u16,
    pub port: [u8; 2],
}

impl AddressKey {
    /// Bits of the whole.
    pub const BITS: u32 = 32 + 128;
}

impl PortKey {
    /// Bits of the whole.
    pub const BITS: u32 = 32 + 16 + 16;
}

const _: () = {
    assert!(size_of::<Class>() == 16);
    assert!(size_of::<BlockKey>() == 12);
    assert!(size_of::<Block>() == 520);
    assert!(size_of::<AddressKey>() == 20);
    assert!(size_of::<PortKey>() == 8);
};
