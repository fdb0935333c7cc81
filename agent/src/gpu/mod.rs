//! GPUs, by way of the vendor's NVML library: the role "gpu worker".
//!
//! | file | its one job |
//! |---|---|
//! | `worker` | the thread that alone opens NVML, and its rounds |
//! | `nvml` | opening the library, and who the GPUs are |
//! | `sample` | what is asked of a GPU, and what number an answer is |
//! | `fields` | the same for NVML's field values |
//! | `raw` | the calls that nvml-wrapper lacks |
//!
//! A GPU that does not answer a question has no such series. Nothing here says what the numbers mean together.

pub mod fields;
pub mod nvml;
mod raw;
pub mod sample;
mod worker;

pub use worker::{Worker, describe, spawn};
