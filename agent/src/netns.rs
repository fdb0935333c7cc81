//! Network namespaces of others.
//!
//! A socket belongs for ever to the namespace of the thread that made it (`setns(2)`, `net/socket.c` `sock_create`).

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Of `/proc/PID/ns`, or where such a file is bound to.
    pub path: PathBuf,
    /// What it must be; a process id may have gone to another process meanwhile.
    pub inode: Option<u64>,
}

/// Why a thread is not in another one.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("entering the network namespace {} (needs CAP_SYS_ADMIN, and CAP_SYS_PTRACE for a process's)", path.display())]
    Enter { path: PathBuf, source: io::Error },
    #[error("{} is another network namespace by now", path.display())]
    Another { path: PathBuf },
}

impl Network {
    /// The thread is in it from now on, and is of no use to anybody who wants to be elsewhere.
    pub fn enter(&self) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::Enter { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(failed)?;
        let inode = file.metadata().map_err(failed)?.ino();
        if self.inode.is_some_and(|expected| expected != inode) {
            return Err(NetworkError::Another { path: self.path.clone() });
        }
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|errno| failed(errno.into()))
    }
}
