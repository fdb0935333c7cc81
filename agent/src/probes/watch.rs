//! Watched directories by inode, enrolled through the probe itself.
//!
//! `stat` and the kernel's inode disagree on overlay, btrfs, NFS and FUSE. So the daemon opens each directory and takes
//! the key that the file-open program read for that very open; what the program will compare is what it enrolled.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap};
use thiserror::Error;

use super::{Probes, ProbesError};
use crate::event::FileKey;

/// The most directories that can be watched: the size of the kernel map `WATCHED`.
pub const MAX_WATCHED: usize = 1024;

/// How long the program may take to answer an open; it answers in microseconds or never.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The program's answer to one enrolling open.
#[derive(Debug, Clone)]
pub struct Enrolled {
    pub tid: u32,
    pub key: FileKey,
    pub path: Vec<u8>,
}

/// A directory that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    pub asked: PathBuf,
    pub key: FileKey,
    /// As the kernel spells it, symbolic links resolved.
    pub path: PathBuf,
}

/// Why one directory is not watched.
#[derive(Debug, Error)]
pub enum EnrolError {
    #[error("it cannot be opened: {0}")]
    Open(#[source] std::io::Error),
    #[error(
        "the file-open program did not see the daemon's own open; in a container, the daemon needs the host's pid namespace"
    )]
    NoAnswer,
    #[error("more than {MAX_WATCHED} watched directories")]
    TooMany,
    #[error(transparent)]
    Map(#[from] ProbesError),
}

/// What enrolling gave.
#[derive(Debug, Default)]
pub struct Enrolment {
    pub watched: Vec<Watched>,
    pub failed: Vec<(PathBuf, EnrolError)>,
}

impl Probes {
    /// Replaces the watched directories. New keys are in the map before old ones leave it, so nothing that stays is
    /// uncovered meanwhile. `answers` carries what the sensor decodes.
    pub fn watch(
        &mut self,
        directories: &[PathBuf],
        answers: &mpsc::Receiver<Enrolled>,
    ) -> Result<Enrolment, ProbesError> {
        while answers.try_recv().is_ok() {}
        let mut enrolment = Enrolment::default();
        self.control(|control| control[1] = std::process::id())?;
        for directory in directories {
            if enrolment.watched.len() == MAX_WATCHED {
                enrolment.failed.push((directory.clone(), EnrolError::TooMany));
                continue;
            }
            match ask(directory, answers) {
                Ok(watched) => enrolment.watched.push(watched),
                Err(EnrolError::NoAnswer) => {
                    // Its answer may still come and must not be taken for another's: the round ends, nothing changes.
                    self.control(|control| control[1] = 0)?;
                    return Err(ProbesError::NoAnswer(directory.clone()));
                }
                Err(error) => enrolment.failed.push((directory.clone(), error)),
            }
        }
        self.control(|control| control[1] = 0)?;

        const NAME: &str = "WATCHED";
        let map = self.ebpf.map_mut(NAME).ok_or(ProbesError::NoMap(NAME))?;
        let error = |error| ProbesError::Map(NAME, Box::new(error));
        let mut keys: HashMap<_, [u64; 2], u32> = HashMap::try_from(map).map_err(error)?;
        let wanted: Vec<[u64; 2]> = enrolment.watched.iter().map(|watched| map_key(watched.key)).collect();
        for key in &wanted {
            keys.insert(key, 1, 0).map_err(error)?;
        }
        let stale: Vec<[u64; 2]> = keys.keys().filter_map(Result::ok).filter(|key| !wanted.contains(key)).collect();
        for key in stale {
            keys.remove(&key).map_err(error)?;
        }
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        self.control(|control| control[0] = count)?;
        Ok(enrolment)
    }

    /// Changes the control words: `[watched, enrol_pid]`.
    fn control(&mut self, change: impl FnOnce(&mut [u32; 2])) -> Result<(), ProbesError> {
        const NAME: &str = "CONTROL";
        let map = self.ebpf.map_mut(NAME).ok_or(ProbesError::NoMap(NAME))?;
        let error = |error| ProbesError::Map(NAME, Box::new(error));
        let mut array: Array<_, [u32; 2]> = Array::try_from(map).map_err(error)?;
        let mut control = array.get(&0, 0).map_err(error)?;
        change(&mut control);
        array.set(0, control, 0).map_err(error)
    }
}

/// `WatchKey` as the two words that it is: the inode number, then the device in the lower half.
fn map_key(key: FileKey) -> [u64; 2] {
    let mut words = [key.ino, 0];
    let mut second = [0; 8];
    second[..4].copy_from_slice(&key.dev.to_ne_bytes());
    words[1] = u64::from_ne_bytes(second);
    words
}

/// Opens the directory and waits for the program's answer to this thread.
fn ask(directory: &Path, answers: &mpsc::Receiver<Enrolled>) -> Result<Watched, EnrolError> {
    let tid = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0);
    let _open = File::open(directory).map_err(EnrolError::Open)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match answers.recv_timeout(left) {
            Ok(answer) if answer.tid == tid => {
                let path = PathBuf::from(OsStr::from_bytes(&answer.path));
                return Ok(Watched { asked: directory.to_owned(), key: answer.key, path });
            }
            Ok(_) => {}
            Err(_) => return Err(EnrolError::NoAnswer),
        }
    }
}
