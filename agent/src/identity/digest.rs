//! What executables hold: SHA-256, of each file once, and only where a policy asks.
//!
//! It is the file that the process runs, whatever its path leads to by now (`/proc/PID/exe`). A file that is written to
//! while it runs cannot be (`ETXTBSY`), so that what was hashed stays so while its inode and its times stay.

use std::collections::HashMap;

use super::{
    Process,
    procfs::{Processes, Seen},
};
use crate::event::Task;

/// Executables that are remembered; beyond it all are hashed anew.
const MAX_REMEMBERED: usize = 4096;

/// Device, inode, length, and when it was changed last (seconds and nanoseconds of `ctime`).
pub type FileVersion = (u64, u64, u64, i64, i64);

/// Digests of executables.
#[derive(Debug, Default)]
pub struct Digests {
    /// Whether a policy asks.
    pub are_wanted: bool,
    known: HashMap<FileVersion, String>,
}

impl Digests {
    /// The digest of what the process ran when it acted; `None` where it is gone, runs another program by now, or runs one too
    /// large to be hashed while events wait.
    pub fn of(&mut self, task: &Task, process: &Process, proc: &dyn Processes) -> Option<String> {
        let same = |seen: Seen| seen.exe == process.exe && seen.exe_deleted == process.exe_deleted;
        let is_same = || proc.look(task.pid, process.start_boot_ns).is_some_and(same);
        if !is_same() {
            return None;
        }
        let version = proc.exe_version(task.pid, process.start_boot_ns)?;
        // Known or hashed now: what was looked at is what it still runs.
        let digest = match self.known.get(&version) {
            Some(known) => known.clone(),
            None => {
                let digest = proc.exe_sha256(task.pid, version)?;
                if self.known.len() >= MAX_REMEMBERED {
                    self.known.clear();
                }
                self.known.insert(version, digest.clone());
                digest
            }
        };
        is_same().then_some(digest)
    }
}
