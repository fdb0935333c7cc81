//! `plumbline gpu release`: nobody holds the GPUs' devices, so that a driver can be loaded anew, a GPU reset, MIG changed.
//!
//! The word is a file in the state directory, so that it holds over a restart of the daemon; the worker holds a lock on
//! another for as long as it lives, whatever it is stuck in, so that `release` can wait until the devices are let go.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Who asked for it, and until when it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Seconds since 1970; without it, until `plumbline gpu resume`.
    pub until_unix_seconds: Option<u64>,
    pub by_uid: u32,
    pub why: String,
}

/// The two files.
#[derive(Debug, Clone)]
pub struct ReleaseFiles {
    word: PathBuf,
    lock: PathBuf,
}

impl ReleaseFiles {
    pub fn new(state_dir: &Path) -> Self {
        Self { word: state_dir.join("gpu.release"), lock: state_dir.join("gpu.lock") }
    }

    /// What holds now. A file that cannot be understood releases too: whoever wrote it wanted that.
    pub fn holds(&self, now_unix_seconds: u64) -> Option<Release> {
        let bytes = match fs::read(&self.word) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(Release::unreadable(&error.to_string())),
        };
        let release: Release =
            serde_json::from_slice(&bytes).unwrap_or_else(|error| Release::unreadable(&error.to_string()));
        release.until_unix_seconds.is_none_or(|until| now_unix_seconds < until).then_some(release)
    }

    pub fn release(&self, release: &Release) -> io::Result<()> {
        let new = self.word.with_extension("release.new");
        fs::write(&new, serde_json::to_vec(release)?)?;
        fs::rename(&new, &self.word)
    }

    /// Whether there was something to resume from.
    pub fn resume(&self) -> io::Result<bool> {
        match fs::remove_file(&self.word) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// For a worker to inherit: locked, shared, for as long as any process has it open.
    pub fn hold(&self) -> io::Result<File> {
        File::options().create(true).append(true).mode(0o600).open(&self.lock)?;
        // Read only: the worker has it as its standard output, and what a library prints there must not fill the disk.
        let file = File::open(&self.lock)?;
        // Nobody waits for whoever holds it alone, which only root can.
        match file.try_lock_shared() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::Error::other(format!("{} is locked", self.lock.display()))),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a worker lives.
    pub fn is_held(&self) -> io::Result<bool> {
        let file = match File::options().write(true).open(&self.lock) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Release {
    fn unreadable(why: &str) -> Self {
        Self { until_unix_seconds: None, by_uid: 0, why: format!("the file cannot be understood: {why}") }
    }

    pub fn words(&self) -> String {
        format!("released by uid {}: {}", self.by_uid, if self.why.is_empty() { "no reason given" } else { &self.why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_holds_until_its_time_or_until_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let files = ReleaseFiles::new(dir.path());
        assert_eq!((files.holds(5), files.resume().unwrap()), (None, false));
        let release = Release { until_unix_seconds: Some(10), by_uid: 7, why: "driver 580".to_owned() };
        files.release(&release).unwrap();
        assert_eq!((files.holds(9), files.holds(10)), (Some(release.clone()), None));
        files.release(&Release { until_unix_seconds: None, ..release }).unwrap();
        assert_eq!(files.holds(u64::MAX).unwrap().words(), "released by uid 7: driver 580");
        assert_eq!((files.resume().unwrap(), files.holds(0)), (true, None));
    }

    #[test]
    fn a_file_that_nobody_understands_releases_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let files = ReleaseFiles::new(dir.path());
        fs::write(&files.word, "please").unwrap();
        let words = files.holds(0).unwrap().words();
        assert!(words.starts_with("released by uid 0: the file cannot be understood: expected value"), "{words}");
    }

    #[test]
    fn the_lock_is_held_as_long_as_somebody_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let files = ReleaseFiles::new(dir.path());
        assert!(!files.is_held().unwrap());
        let (one, other) = (files.hold().unwrap(), files.hold().unwrap());
        assert!(files.is_held().unwrap());
        drop(one);
        assert!(files.is_held().unwrap());
        drop(other);
        assert!(!files.is_held().unwrap());
    }
}
