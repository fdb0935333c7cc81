//! Whether the path of an executable is a name that policies can rest on.
//!
//! A path leads to what somebody mounts there, and anybody can, in a mount namespace of his own, where user namespaces are allowed.
//! So it counts where it is the host's name of the file, or one in a container, whose names are those of its image.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use crate::probes::programs::host_file;

/// In which mount namespace a path is the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    Container,
    Host,
}

/// A process that runs a file.
#[derive(Debug, Clone, Copy)]
pub struct Runner {
    pub pid: u32,
    /// The number of its mount namespace.
    pub mnt_ns: u32,
    /// It is a container's, by its cgroup.
    pub is_contained: bool,
}

impl Runner {
    /// Whose name this path is, by which it runs its file; `None` for one that it may have made itself.
    pub fn names(&self, path: &[u8], host_mnt_ns: u32) -> Option<Whose> {
        if self.mnt_ns == host_mnt_ns {
            return Some(Whose::Host);
        }
        // Services have mount namespaces of their own, in which the host's names are right for the most part.
        let run = || fs::metadata(format!("/proc/{}/exe", self.pid)).ok().map(|meta| (meta.dev(), meta.ino()));
        let is_the_host_s = || host_file(Path::new(OsStr::from_bytes(path))).is_some_and(|file| run() == Some(file));
        if is_the_host_s() {
            return Some(Whose::Host);
        }
        self.is_contained.then_some(Whose::Container)
    }
}

/// The number of the host's mount namespace: that of pid 1, or the daemon's own where it may not look there.
pub fn host_mnt_ns() -> Option<u32> {
    mnt_ns(1).or_else(|| mnt_ns(std::process::id()))
}

/// The number of a process's mount namespace.
pub fn mnt_ns(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().and_then(|meta| u32::try_from(meta.ino()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_mount_namespace_of_ones_own_is_the_host_s_where_it_leads_to_the_same_file() {
        let own = std::env::current_exe().unwrap().into_os_string().into_encoded_bytes();
        let names =
            |path: &[u8], mnt_ns, is_contained| Runner { pid: std::process::id(), mnt_ns, is_contained }.names(path, 1);
        assert_eq!(names(b"/anything", 1, false), Some(Whose::Host));
        assert_eq!(names(&own, 2, false), Some(Whose::Host));
        assert_eq!(names(b"/bin/sh", 2, false), None);
        assert_eq!(names(b"/bin/sh", 2, true), Some(Whose::Container));
    }
}
