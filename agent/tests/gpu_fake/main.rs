//! The GPU worker and its keeper against `tests/fake-nvml`: a library with NVML's C interface and no hardware behind it.
//!
//! Each test loads a copy of its own, with its scenario beside it, so that none sees another's time or GPUs.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bench;
mod numbers;
mod parts;
mod trouble;
