//! The programs at functions of libraries, one file per library.

mod call;
mod cuda;
mod nccl;
mod nothing;
mod thread;
