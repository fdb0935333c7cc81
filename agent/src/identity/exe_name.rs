//! Whether the path of an executable is a name that policies can rest on.
//!
//! A path leads to what somebody mounts there, and anybody can, in a mount namespace of his own, where user namespaces are allowed.
//! So it counts where it is the host's name of the file, or one in a container, whose names are those of its image. In which mount
//! namespace the file lies is not told by that of the process: it may run one through `/proc/PID/root`, or by a descriptor.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::MetadataExt as _,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, makedev, open, statx};

use super::procfs::without_deleted;
use crate::{
    event::{Exec, FileKey},
    patience::Patience,
    probes::programs::host_file,
};

/// Paths that processes chose are looked up on the host's file systems.
static PATIENCE: Patience = Patience::new(Duration::from_millis(20));

/// In which mount namespace a path is the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    Container,
    Host,
}

/// Whose name it is by which a program began to run; `None` for one that the process may have made itself.
pub fn of_exec(exec: &Exec, is_contained: bool) -> Option<Whose> {
    if exec.mnt_ns != 0 && Some(exec.mnt_ns) == host_mnt_ns() {
        return Some(Whose::Host);
    }
    if is_contained {
        return Some(Whose::Container);
    }
    // Services have mount namespaces of their own, in which the host's names are right for the most part.
    let path = PathBuf::from(OsStr::from_bytes(&exec.exe));
    let on_host = PATIENCE.ask(move || host_file(&path)).ok().flatten();
    (on_host == Some(file(exec.key))).then_some(Whose::Host)
}

/// Device and inode as stat(2) has them, on file systems that have one device.
fn file(key: FileKey) -> (u64, u64) {
    (makedev(key.dev >> 20, key.dev & 0xf_ffff), key.ino)
}

/// What a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub path: Vec<u8>,
    pub ino: u64,
    pub whose: Option<Whose>,
}

/// What the process runs whose directory of `/proc` this is.
pub fn of_running(process: PathBuf, is_contained: bool) -> Option<Running> {
    PATIENCE.ask(move || running(&process, is_contained)).ok().flatten()
}

fn running(process: &Path, is_contained: bool) -> Option<Running> {
    // Path and inode of one file, whatever it runs next; and no more is asked than the kernel knows already.
    let exe = open(process.join("exe"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", exe.as_raw_fd())).ok()?;
    let stat = statx(&exe, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    let path = without_deleted(path.into_os_string().into_vec());
    let run = (makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino);
    let is_the_host_s = host_file(Path::new(OsStr::from_bytes(&path))) == Some(run);
    let whose = if is_the_host_s { Some(Whose::Host) } else { is_contained.then_some(Whose::Container) };
    Some(Running { path, ino: stat.stx_ino, whose })
}

/// The number of the host's mount namespace: that of pid 1, or the daemon's own where it may not look there.
fn host_mnt_ns() -> Option<u32> {
    mnt_ns(1).or_else(|| mnt_ns(std::process::id()))
}

fn mnt_ns(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().and_then(|meta| u32::try_from(meta.ino()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose name `exe` is of this very program, which lies in this mount namespace.
    fn check(exe: &Path, mnt_ns: u32, is_contained: bool, expect: Option<Whose>) {
        let own = fs::metadata("/proc/self/exe").unwrap();
        let dev = rustix::fs::major(own.dev()) << 20 | rustix::fs::minor(own.dev());
        let key = FileKey { dev, ino: own.ino(), generation: 0 };
        let exec = Exec { exe: exe.as_os_str().as_bytes().to_vec(), key, mnt_ns, ..Exec::default() };
        assert_eq!(of_exec(&exec, is_contained), expect, "{exe:?} in {mnt_ns}");
    }

    #[test]
    fn a_name_in_another_mount_namespace_is_the_host_s_where_it_leads_to_the_same_file() {
        let own = std::env::current_exe().unwrap();
        check(Path::new("/anything"), host_mnt_ns().unwrap(), false, Some(Whose::Host));
        check(&own, 2, false, Some(Whose::Host));
        check(&own, 0, false, Some(Whose::Host));
        check(Path::new("/bin/sh"), 2, false, None);
        check(Path::new("/bin/sh"), 2, true, Some(Whose::Container));
    }

    #[test]
    fn what_a_process_runs_is_looked_at_in_one_piece() {
        let own = std::env::current_exe().unwrap();
        let ino = fs::metadata(&own).unwrap().ino();
        let path = own.into_os_string().into_vec();
        let running = of_running("/proc/self".into(), false).unwrap();
        assert_eq!(running, Running { path, ino, whose: Some(Whose::Host) });
        assert_eq!(of_running("/proc/0".into(), false), None);
    }
}
