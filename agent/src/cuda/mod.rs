//! What processes ask of CUDA's driver and of NCCL, counted in the kernel by probes at the libraries' own functions.
//!
//! | file | its one job |
//! |---|---|
//! | `config` | the `cuda` part of the configuration |
//! | `calls` | the table of the driver's calls; a new call is one row |
//! | `nccl/` | the same of NCCL, and who of a communicator comes last |
//! | `part` | what is looked at together, and given up together |
//! | `libraries` | which files of processes are CUDA's driver or NCCL |
//! | `mapped` | who has just mapped one |
//! | `symbols` | where the functions lie in such a file |
//! | `hooks` | which programs go there |
//! | `trap` | what it costs to be stopped there |
//! | `probes` | the programs in the kernel, and their attachments |
//! | `threads` | what each thread counted of its own |
//! | `account` | what they counted, as points |
//! | `told` | what is told at once, as findings |
//! | `budget` | what they cost each process, and what is given up |
//! | `attention` | how much is looked at, and whose |
//! | `control` | what somebody says of that while the daemon runs |
//! | `worker` | the thread that does all this |
//!
//! A probe is attached to a file, for whoever maps it now or later: once for each inode, and taken away when nobody maps it any more.
//! What is counted is what the process asked, when it asked it: nothing here says when, or whether, a GPU did it.

mod account;
mod attention;
mod budget;
mod calls;
mod config;
mod control;
mod hooks;
mod libraries;
mod mapped;
mod nccl;
mod part;
mod probes;
mod symbols;
mod threads;
mod told;
mod trap;
mod worker;

use std::{io, thread};

use tokio::sync::mpsc;

use self::worker::Worker;
pub use self::{
    attention::Order,
    config::{CudaConfig, Detail},
    control::{Control, View},
};
use crate::{halt::Halt, message::Message};

/// The part of the calls that a label `call` is of, as the label `part` has it.
pub fn part_of(call: &str) -> &'static str {
    let known = calls::Call::numbered().find(|(_, known)| known.name == call);
    known.map_or(part::Part::Rest, |(_, known)| known.part()).as_str()
}

/// What samples of it are called.
pub const SOURCE: &str = "cuda";

/// Works on a thread of its own until the halt, or until nobody receives any more.
pub fn spawn(config: &CudaConfig, out: &mpsc::Sender<Message>, halt: Halt) -> io::Result<Control> {
    let (control, orders) = Control::new(config.detail)?;
    let worker = Worker::new(config, orders, out.downgrade(), halt);
    thread::Builder::new().name("cuda".to_owned()).spawn(move || worker.run())?;
    Ok(control)
}
