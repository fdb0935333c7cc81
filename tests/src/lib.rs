//! What end-to-end tests share: the bench that runs the real kernel programs, the real daemon, and simulated engines.
//!
//! A test here must not be confused by the rest of the machine: it looks only at what its own processes did.

pub mod bench;
pub mod bench_deny;
pub mod bpf;
pub mod bypass;
pub mod caller;
pub mod checks;
pub mod cost;
pub mod daemon;
pub mod fake_engine;
pub mod llama;
pub mod otlp;
mod pages;
pub mod samples;
pub mod spine;
pub mod tools;
