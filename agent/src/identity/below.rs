//! A small file of another process's mount namespace, which its owner may have laid out as a trap.
//!
//! No link leads out of the root of that process, nothing but a regular file is opened, no more than a little is read, and a
//! file system that does not answer (one in user space can do that for ever) costs a thread and not the daemon.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};

use super::dns::resolvers::View;
use crate::patience::Patience;

const MAX_BYTES: u64 = 65_536;

static PATIENCE: Patience = Patience::new(Duration::from_millis(20));

/// What the process whose `/proc` directory is given sees, while it is in this mount namespace. Its file system is not asked
/// for more than the kernel knows already.
pub fn view(process: &Path, mnt_ns: u32) -> Option<View> {
    let root = rustix::fs::open(process.join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(&root, "", flags, StatxFlags::INO).ok()?;
    let namespace = std::fs::metadata(process.join("ns/mnt")).ok()?;
    let root_dev = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
    (namespace.ino() == u64::from(mnt_ns)).then_some(View { mnt_ns, root_dev, root_ino: found.stx_ino })
}

/// Reads `path`, relative to the root of the process whose `/proc` directory is given, while it has this view. `NotFound` says
/// that there is no such file; all else, that it could not be asked.
pub fn read(process: PathBuf, expected: View, path: &'static str) -> io::Result<Vec<u8>> {
    PATIENCE.ask(move || read_now(&process, expected, path))?
}

fn read_now(process: &Path, expected: View, path: &str) -> io::Result<Vec<u8>> {
    let root = rustix::fs::open(process.join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(io::Error::other)?;
    if view(process, expected.mnt_ns) != Some(expected) {
        return Err(io::Error::other("the process sees something else by now"));
    }
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    // Files that a process has leased, and some of /proc, are not waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("/proc/self/fd/{}", place.as_raw_fd()), flags, Mode::empty());
    let mut bytes = Vec::new();
    File::from(file.map_err(io::Error::other)?).take(MAX_BYTES).read_to_end(&mut bytes).map_err(io::Error::other)?;
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
        let view = view(process.path(), u32::try_from(mnt_ns).unwrap()).unwrap();
        read_now(process.path(), view, "etc/resolv.conf")
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
    fn another_mount_namespace_or_root_is_not_read() {
        let own = u32::try_from(std::fs::metadata("/proc/self/ns/mnt").unwrap().ino()).unwrap();
        let me = Path::new("/proc/self");
        assert_eq!(view(me, own + 1), None);
        let view = view(me, own).unwrap();
        assert_eq!(view.root_ino, std::fs::metadata("/").unwrap().ino());
        let elsewhere = View { root_ino: view.root_ino + 1, ..view };
        assert_eq!(read(me.to_owned(), elsewhere, "etc/resolv.conf").unwrap_err().kind(), io::ErrorKind::Other);
    }
}
