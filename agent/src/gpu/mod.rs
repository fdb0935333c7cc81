//! GPUs, by way of the vendor's NVML library: the role "gpu worker", a process of its own, and the daemon's side of it.
//!
//! | file | its one job |
//! |---|---|
//! | `question/` | what is asked of a GPU, and what number an answer is, one file per subject |
//! | `config` | what the configuration may say |
//! | `identity` | who a GPU is |
//! | `driver` | what depends on the driver's version |
//! | `nvml` | opening the library |
//! | `raw` | the calls that nvml-wrapper lacks |
//! | `worker/` | the process that alone opens NVML: a thread per GPU, and its rounds |
//! | `wire` | what the process and the daemon say to each other |
//! | `keeper/` | the daemon's side: starts, hears, kills; what is known of each GPU, and how old it is |
//! | `xid`, `sxid`, `kmsg` | the driver's error numbers of GPUs and of NVSwitches, and the kernel's log that tells of them |
//! | `held` | which container has which, as whoever fuses says |
//! | `release` | letting go of the devices |
//!
//! A GPU that does not answer a question has no such series. Nothing here says what the numbers mean together.

mod config;
mod driver;
mod held;
mod identity;
mod keeper;
mod kmsg;
mod nvml;
mod question;
mod raw;
pub mod release;
mod sxid;
mod wire;
mod worker;
mod xid;

pub use config::GpuConfig;
pub use held::{Held, Holder, Holding, Part, Source};
pub use identity::Identity;
pub use keeper::{
    Fleet, GpuView, Next, Program, Running, SOURCE, State, View, WORKER_SOURCE, Worker, XidCount, look, spawn,
};
pub use question::Refusal;
pub use wire::{Frame, Rhythm};
pub use worker::main as work;

/// What an error number means.
pub fn xid_words(xid: u32) -> &'static str {
    xid::words(xid).0
}
