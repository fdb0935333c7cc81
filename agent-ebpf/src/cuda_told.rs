//! What the programs at functions of libraries tell at once, beside what they count: what went wrong for the first time, and communicators that
//! begin and end.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Told {
    /// A call of CUDA failed with a result with which it had not failed before, in this process and on this device.
    Failed = 0,
    /// A process is a member of a communicator now.
    Begun = 1,
    /// It ended it by this call.
    Ended = 2,
    /// NCCL says for the first time that this went wrong with it.
    Error = 3,
}

/// One of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Record {
    /// CLOCK_BOOTTIME.
    pub boot_ns: u64,
    pub pid: u32,
    pub tid: u32,
    /// A [`Told`].
    pub what: u32,
    /// A row of the table of CUDA's calls, or of NCCL's functions.
    pub call: u32,
    /// `CUresult` or `ncclResult_t`.
    pub result: u32,
    /// Of a failure.
    pub device: u32,
    /// Bytes that a call that failed asked for, where it asks for bytes.
    pub bytes: u64,
    /// Of a communicator, as all that follows; 0 where it is not known.
    pub hash: u64,
    pub rank: u32,
    pub ranks: u32,
}
