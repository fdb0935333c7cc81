//! The programs at functions of libraries, one file per library.

/// Room is taken as it is needed: most nodes need none.
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_NOEXIST: u64 = 1;

mod call;
mod cuda;
mod nccl;
mod nothing;
mod tell;
mod thread;
