//! The daemon's own work on its own files, of which nothing is told.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::{
    event::Event,
    verdict::{self, WatchedPaths},
};

/// Who the daemon is, and where it keeps its log, key and cursors.
#[derive(Debug)]
pub struct Upkeep {
    /// The daemon's number, and the pid namespace in which it is that: 0 where nobody knows, which is nobody's.
    own_pid: (u32, u32),
    /// As it is configured, and with its symbolic links resolved: a policy may name it by either.
    state_dir: [PathBuf; 2],
}

impl Upkeep {
    pub fn new(own_pid: (u32, u32), state_dir: &Path) -> Self {
        let resolved = fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_owned());
        Self { own_pid, state_dir: [state_dir.to_owned(), resolved] }
    }

    /// The daemon writes its log, and would write of that into its log.
    ///
    /// A file that was opened before the hooks were there is known by the watched directory above it alone.
    pub fn is(&self, event: &Event, watched: &WatchedPaths) -> bool {
        let is_own = event.task.as_ref().is_some_and(|task| (task.pid, task.namespaces.pid) == self.own_pid);
        let is_below = |path: &[u8]| {
            let path = Path::new(OsStr::from_bytes(path));
            self.state_dir.iter().any(|directory| path.starts_with(directory))
        };
        is_own
            && match verdict::path(event) {
                Some(path) => is_below(path),
                None => {
                    // At the start the kernel may tell of a directory before it is known here which one that is.
                    verdict::is_below_unknown(event, watched)
                        || verdict::directories_above(event, watched).any(is_below)
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Coverage, FileKey, FileRead, Namespaces, Task, Told, What};

    const OWN: (u32, u32) = (7, 4_026_531_836);

    /// A write of this process to a file of this path below a watched directory, told when it was closed.
    #[track_caller]
    fn check(pid: u32, path: Option<&str>, watched: &str, expect: bool) {
        check_in(pid, path, &vec![(KEY, PathBuf::from(watched))], expect);
    }

    const KEY: FileKey = FileKey { dev: 1, ino: 2, generation: 0 };

    #[track_caller]
    fn check_in(pid: u32, path: Option<&str>, watched: &WatchedPaths, expect: bool) {
        let key = KEY;
        let namespaces = Namespaces { pid: OWN.1, ..Namespaces::default() };
        let task = Task { pid, namespaces, ..Task::default() };
        let read = FileRead {
            path: path.map(|path| path.as_bytes().to_vec()),
            key: FileKey { ino: 3, ..key },
            watched: key,
            size_bytes: 0,
            bytes_read: None,
            bytes_faulted: None,
            bytes_written: Some(285),
            coverage: Coverage::default(),
            first_boot_ns: 0,
            last_boot_ns: 0,
            told: Told::Close,
        };
        let event = Event { boot_ns: 1, origin: None, task: Some(task), what: What::FileRead(read) };
        let upkeep = Upkeep::new(OWN, Path::new("/var/lib/plumbline"));
        assert_eq!(upkeep.is(&event, watched), expect);
    }

    #[test]
    fn the_daemon_writes_below_its_own_directory() {
        check(7, Some("/var/lib/plumbline/log/00000000.plog"), "/var/lib/plumbline", true);
        check(7, Some("/models/weights"), "/models", false);
        check(7, Some("/var/lib/plumbline-of-another/log"), "/var/lib", false);
    }

    #[test]
    fn a_file_that_was_opened_before_the_hooks_is_known_by_the_directory() {
        check(7, None, "/var/lib/plumbline", true);
        check(7, None, "/models", false);
    }

    #[test]
    fn what_is_known_of_neither_way_is_its_own_and_of_another_process_is_not() {
        check_in(7, None, &vec![], true);
        check_in(8, None, &vec![], false);
        check_in(7, Some("/models/weights"), &vec![], false);
    }

    #[test]
    fn what_another_does_there_is_told() {
        check(8, Some("/var/lib/plumbline/log/00000000.plog"), "/var/lib/plumbline", false);
        check(8, None, "/var/lib/plumbline", false);
    }
}
