//! Kernel objects of the daemon itself, and who reaches for them by `bpf(2)`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::Header;

/// `Header::kind` of [`BpfAccess`].
pub const KIND_BPF: u32 = 15;

/// Objects of the daemon that are known.
pub const OBJECTS: u32 = 1024;

/// `BPF_OBJ_NAME_LEN` (include/uapi/linux/bpf.h)
pub const NAME_BYTES: usize = 16;

/// [`Object::kind`]
pub const OBJECT_MAP: u32 = 1;
pub const OBJECT_PROGRAM: u32 = 2;
pub const OBJECT_LINK: u32 = 3;

/// [`BpfAccess::how`]: a descriptor of it was got by its number.
pub const OBJECT_OPEN: u32 = 1;
/// What it holds was changed, or it was taken away.
pub const OBJECT_CHANGE: u32 = 2;

/// A map, a program or a link, by the number that the kernel gave it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Object {
    pub kind: u32,
    pub id: u32,
}

/// A process reached for an object of the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BpfAccess {
    pub header: Header,
    pub object: Object,
    pub how: u32,
    pub reserved: u32,
    /// As the kernel has it, cut, ended by a zero if there is room.
    pub name: [u8; NAME_BYTES],
}
