//! The kernel programs at functions of CUDA's driver and of NCCL, in an object of their own: loaded where somebody maps one of them, taken
//! out whole, and no part of what the other programs' verdicts depend on.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", allow(internal_features), feature(core_intrinsics))]

#[cfg(target_arch = "bpf")]
#[allow(dead_code, unused_macros, unused_imports, reason = "the other object uses the rest")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod object;
#[cfg(target_arch = "bpf")]
mod uprobes;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
