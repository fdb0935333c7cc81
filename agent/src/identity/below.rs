//! A small file of another process's mount namespace, which its owner may have laid out as a trap.
//!
//! No link leads out of the root of that process, nothing but a regular file is opened, no more than a little is read, and a
//! file system that does not answer (one in user space can do that for ever) costs a thread and not the daemon.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// The answer is waited for so long.
const PATIENCE: Duration = Duration::from_millis(100);

/// Threads that wait for file systems that do not answer; beyond it nobody is asked.
const MAX_WAITING: usize = 8;

const MAX_BYTES: u64 = 65_536;

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Reads `path`, relative to the root of the process whose `/proc` directory is given, while it is in this mount namespace.
/// `NotFound` says that the process has no such file; all else, that it could not be asked.
pub fn read(process: PathBuf, mnt_ns: u32, path: &'static str) -> io::Result<Vec<u8>> {
    if WAITING.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        return Err(io::Error::other("too many file systems do not answer"));
    }
    let (told, answer) = mpsc::sync_channel(1);
    let reader = thread::Builder::new().name("read-below".to_owned()).spawn(move || {
        // Nobody listens any more when it took too long.
        let _ = told.send(read_now(&process, mnt_ns, path));
        WAITING.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = reader {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        return Err(error);
    }
    answer.recv_timeout(PATIENCE).map_err(io::Error::other)?
}

fn read_now(process: &Path, mnt_ns: u32, path: &str) -> io::Result<Vec<u8>> {
    let gone = |error: rustix::io::Errno| io::Error::other(error);
    let root = rustix::fs::open(process.join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(gone)?;
    let namespace = std::fs::metadata(process.join("ns/mnt")).map_err(io::Error::other)?;
    if namespace.ino() != u64::from(mnt_ns) {
        return Err(io::Error::other("the process is in another mount namespace by now"));
    }
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place.as_fd())))
        .map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A process directory whose root has `lay_out` in it; what is read at `etc/resolv.conf`.
    fn check(lay_out: impl FnOnce(&Path)) -> io::Result<Vec<u8>> {
        let process = tempfile::tempdir().unwrap();
        let root = process.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir(process.path().join("ns")).unwrap();
        std::fs::write(process.path().join("ns/mnt"), "").unwrap();
        let mnt_ns = std::fs::metadata(process.path().join("ns/mnt")).unwrap().ino();
        lay_out(&root);
        read_now(process.path(), u32::try_from(mnt_ns).unwrap(), "etc/resolv.conf")
    }

    #[test]
    fn links_stay_below_the_root() {
        let read = check(|root| {
            std::fs::create_dir(root.join("run")).unwrap();
            std::fs::write(root.join("run/stub"), "inside").unwrap();
            symlink("/run/stub", root.join("etc/resolv.conf")).unwrap();
        });
        assert_eq!(read.unwrap(), b"inside");
        let read = check(|root| symlink("../../../../../../../etc/passwd", root.join("etc/resolv.conf")).unwrap());
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_regular_files_are_opened_and_little_is_read() {
        let read = check(|root| {
            let path = root.join("etc/resolv.conf");
            rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::Other);
        let read = check(|root| {
            let file = File::create(root.join("etc/resolv.conf")).unwrap();
            file.set_len(1 << 40).unwrap();
        });
        assert_eq!(read.unwrap().len() as u64, MAX_BYTES);
    }

    #[test]
    fn another_mount_namespace_is_not_read() {
        let own = std::fs::metadata("/proc/self/ns/mnt").unwrap().ino();
        let me = PathBuf::from("/proc/self");
        let other = u32::try_from(own).unwrap() + 1;
        assert_eq!(read(me, other, "etc/resolv.conf").unwrap_err().kind(), io::ErrorKind::Other);
    }
}
