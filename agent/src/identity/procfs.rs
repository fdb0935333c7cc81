//! What `/proc` says of one process, right now.
//!
//! The process may be gone, or its number may belong to another one by now: the start time is compared, and every
//! answer may be `None`.

use std::{fs, os::unix::ffi::OsStringExt as _, path::PathBuf};

use super::cgroup::Cgroup;

/// The questions that identity asks of the sensor.
pub trait Processes {
    /// Facts of process `pid`, if it still is the one that started at `start_boot_ns` (0: whichever it is).
    fn look(&self, pid: u32, start_boot_ns: u64) -> Option<Seen>;
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub ppid: u32,
    pub start_boot_ns: u64,
    pub comm: Vec<u8>,
    pub exe: Option<Vec<u8>>,
    pub cgroup: Option<Cgroup>,
}

/// The real `/proc`, or a copy of it in tests.
#[derive(Debug, Clone)]
pub struct Procfs {
    root: PathBuf,
    tick_ns: u64,
}

impl Default for Procfs {
    fn default() -> Self {
        Self { root: PathBuf::from("/proc"), tick_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1) }
    }
}

impl Processes for Procfs {
    fn look(&self, pid: u32, start_boot_ns: u64) -> Option<Seen> {
        let directory = self.root.join(pid.to_string());
        let stat = Stat::parse(&fs::read(directory.join("stat")).ok()?)?;
        let start = stat.start_ticks * self.tick_ns;
        if start_boot_ns != 0 && start_boot_ns.abs_diff(start) > 2 * self.tick_ns {
            return None;
        }
        Some(Seen {
            ppid: stat.ppid,
            start_boot_ns: if start_boot_ns == 0 { start } else { start_boot_ns },
            comm: stat.comm,
            exe: fs::read_link(directory.join("exe")).ok().map(|path| path.into_os_string().into_vec()),
            cgroup: fs::read(directory.join("cgroup")).ok().and_then(|file| Cgroup::parse(&file)),
        })
    }
}

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) that we use: 2 comm, 4 ppid, 22 starttime.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: Vec<u8>,
    ppid: u32,
    start_ticks: u64,
}

impl Stat {
    /// The name stands in brackets and may hold anything, brackets too: the last one ends it.
    fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')')?;
        let comm = line.get(open + 1..close)?.to_vec();
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3);
        Some(Self { comm, ppid: field(4)?.parse().ok()?, start_ticks: field(22)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_brackets_and_spaces() {
        let line = b"42 (a) R 1) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 1\n";
        assert_eq!(Stat::parse(line), Some(Stat { comm: b"a) R 1".to_vec(), ppid: 7, start_ticks: 123_456 }));
        assert_eq!(Stat::parse(b"42 (a"), None);
    }

    #[test]
    fn this_process_is_found_and_another_start_time_is_not_it() {
        let me = Procfs::default().look(std::process::id(), 0).unwrap();
        assert!(me.exe.is_some() && me.start_boot_ns > 0);
        assert_eq!(Procfs::default().look(std::process::id(), me.start_boot_ns + 3_600_000_000_000), None);
    }
}
