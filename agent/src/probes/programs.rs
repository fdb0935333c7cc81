//! Programs of the host by their paths: which files they are, as the kernel's programs know them.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::mpsc,
};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};

use super::{Probes, watch::Enrolled};
use crate::event::FileKey;

/// Device, inode, and when it was made or last changed.
type Version = (u64, u64, i64, i64);

/// Paths that were looked for, and which file each was.
#[derive(Debug, Default)]
pub struct LookedFor(HashMap<PathBuf, Version>);

/// The host's root, wherever the daemon itself runs.
fn host_root() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open("/proc/1/root", flags, Mode::empty()).or_else(|_| open("/", flags, Mode::empty()))
}

/// What is a symbolic link, or lies behind one, is another path's.
fn open_below(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Device and inode of what lies behind a path of the host, as stat(2) has them.
pub fn host_file(path: &Path) -> Option<(u64, u64)> {
    let stat = open_below(&host_root().ok()?, path, OFlags::PATH).and_then(fstat).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

impl Probes {
    /// The files behind these paths of the host that are not the ones they were when they were looked for last.
    pub fn programs_of_host<'p>(
        &mut self,
        paths: impl Iterator<Item = &'p Path>,
        looked_for: &mut LookedFor,
        answers: &mpsc::Receiver<Enrolled>,
    ) -> Vec<(FileKey, PathBuf)> {
        while answers.try_recv().is_ok() {}
        let Ok(root) = host_root() else { return Vec::new() };
        let (mut found, mut looked_at) = (Vec::new(), HashMap::new());
        for path in paths {
            let Ok(stat) = open_below(&root, path, OFlags::PATH).and_then(fstat) else { continue };
            let version = (stat.st_dev, stat.st_ino, stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0));
            if looked_for.0.get(path) != Some(&version) {
                let open = || open_below(&root, path, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from);
                let Ok(Ok(keys)) = self.enrol_opened(|| open().map_err(Into::into), answers) else { continue };
                found.extend(keys.first().map(|key| (*key, path.to_owned())));
            }
            looked_at.insert(path.to_owned(), version);
        }
        looked_for.0 = looked_at;
        found
    }
}
