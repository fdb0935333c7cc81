//! Log lines of the kernel programs, with the feature `trace` only: a development aid, polled and not bounded.

use std::{thread, time::Duration};

use aya::Ebpf;
use aya_log::EbpfLogger;

const POLL_EVERY: Duration = Duration::from_millis(100);

/// Forwards the programs' lines to the daemon's own log. Must come before the programs are loaded.
pub fn start(ebpf: &mut Ebpf) {
    match EbpfLogger::init(ebpf) {
        Ok(mut logger) => {
            let poll = move || {
                loop {
                    logger.flush();
                    thread::sleep(POLL_EVERY);
                }
            };
            if let Err(error) = thread::Builder::new().name("bpf-trace".to_owned()).spawn(poll) {
                tracing::warn!(%error, "the kernel programs' log lines are not shown");
            }
        }
        Err(error) => tracing::warn!(%error, "the kernel object has no log lines; build it with --trace"),
    }
}
