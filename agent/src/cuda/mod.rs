//! What processes ask of CUDA's driver and of NCCL, counted in the kernel by probes at the libraries' own functions.
//!
//! | file | its one job |
//! |---|---|
//! | `config` | the `cuda` part of the configuration |
//! | `calls` | the table of the driver's calls; a new call is one row |
//! | `nccl/` | the same of NCCL, and who of a communicator comes last |
//! | `libraries` | which files of processes are CUDA's driver or NCCL |
//! | `symbols` | where the functions lie in such a file |
//! | `probes` | the programs in the kernel, and their attachments |
//! | `account` | what they counted, as points |
//!
//! A probe is attached to a file, for whoever maps it now or later: once for each inode, and taken away when nobody maps it any more.
//! What is counted is what the process asked, when it asked it: nothing here says when, or whether, a GPU did it.

mod account;
mod calls;
mod config;
mod libraries;
mod nccl;
mod probes;
mod symbols;

use std::{io, path::Path, thread, time::Duration};

use tokio::sync::mpsc;

pub use self::config::{CudaConfig, Detail};
use self::{libraries::Libraries, probes::Probes};
use crate::{clock, core::chain, halt::Halt, message::Message, series::Sample};

/// What samples of it are called.
pub const SOURCE: &str = "cuda";

/// Between two looks for libraries, and two readings of the counts.
const EVERY: Duration = Duration::from_secs(5);

/// Works on a thread of its own until the halt, or until nobody receives any more.
pub fn spawn(config: &CudaConfig, out: &mpsc::Sender<Message>, halt: Halt) -> io::Result<()> {
    if config.detail == Detail::Off {
        return Ok(());
    }
    let (detail, weak) = (config.detail, out.downgrade());
    let work = move || {
        let mut libraries = Libraries::of(Path::new("/proc"));
        let mut probes: Option<Probes> = None;
        while !halt.is_halted() {
            let found = libraries.look();
            // Nothing is loaded before there is something to look at.
            if probes.is_none() && !found.is_empty() {
                match Probes::load(detail) {
                    Ok(loaded) => probes = Some(loaded),
                    Err(error) => {
                        return tracing::warn!(
                            reason = chain(&error),
                            "calls of CUDA's driver and NCCL are not counted"
                        );
                    }
                }
            }
            if let Some(probes) = &mut probes {
                probes.attach(&found);
                let taken_boot_ns = clock::boot_ns();
                let points = probes.account(|pid, start_boot_ns| libraries.is_alive(pid, start_boot_ns));
                let Some(out) = weak.upgrade() else { return };
                let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns, points };
                if out.blocking_send(Message::Sample(sample)).is_err() {
                    return;
                }
            }
            halt.wait(EVERY);
        }
    };
    thread::Builder::new().name("cuda".to_owned()).spawn(work).map(drop)
}
