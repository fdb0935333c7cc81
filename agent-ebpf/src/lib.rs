//! What the kernel programs and the agent share: record layouts, the tables of what is denied, program numbers, and the
//! kernel fields whose offsets the agent resolves from BTF before it loads anything.
//!
//! Everything here is plain data. Records derive `zerocopy` traits: `IntoBytes` refuses padding at compile time and
//! `FromBytes` lets the agent decode without `unsafe`. The programs themselves are in `main.rs` and build only for
//! the BPF target.
#![no_std]
#![forbid(unsafe_code)]

pub mod bpf;
pub mod cuda;
pub mod cuda_told;
pub mod deny;
pub mod nccl;
pub mod offsets;
pub mod program;
pub mod record;
pub mod running;
