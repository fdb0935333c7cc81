//! Room for the log: how much is left, and a ballast to throw off for the last words.
//!
//! The ballast is a file of zeros beside the log. When the disk is full it is deleted, and what waits, the record that
//! says so and a checkpoint get its room; then events are only counted, until there is room again. Nothing that was
//! recorded is deleted to make room, unless the configuration says that shipped segments may be pruned.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

use crate::{
    config::{DiskConfig, WhenCritical},
    event::{Disk, DiskState},
};

/// Its name in the log directory.
const BALLAST: &str = "ballast";

/// A ballast takes no more of the whole file system than this part.
const LARGEST_PART: u64 = 16;

/// How often the file system is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Deletes the ballast of a log that is not open; whether there was one.
pub fn remove_ballast(log_dir: &Path) -> bool {
    fs::remove_file(log_dir.join(BALLAST)).is_ok()
}

#[derive(Debug)]
pub struct Room {
    dir: PathBuf,
    config: DiskConfig,
    state: DiskState,
    /// The state that was last told.
    told: DiskState,
    free_bytes: u64,
    looked: Option<Duration>,
    has_ballast: bool,
}

impl Room {
    pub fn new(dir: &Path, config: &DiskConfig) -> Self {
        let dir = dir.to_owned();
        let mut room = Self {
            dir,
            config: config.clone(),
            state: DiskState::Enough,
            told: DiskState::Enough,
            free_bytes: 0,
            looked: None,
            has_ballast: false,
        };
        room.free_bytes = room.ask().map_or(0, |(_, free)| free);
        room.take_ballast();
        room
    }

    pub fn state(&self) -> DiskState {
        self.state
    }

    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    pub fn when_critical(&self) -> WhenCritical {
        self.config.when_critical
    }

    /// Looks again; an event when the state changed.
    pub fn look(&mut self, now: Duration) -> Option<Disk> {
        if self.looked.is_some_and(|looked| now.saturating_sub(looked) < LOOK_EVERY) {
            return None;
        }
        self.looked = Some(now);
        let (_, free) = self.ask().ok()?;
        self.free_bytes = free;
        // Full ends only when the ballast is back: else the next record would fill the disk again.
        if !self.has_ballast && free > 2 * self.ballast_bytes() {
            self.take_ballast();
        }
        if self.state != DiskState::Full || self.has_ballast {
            self.state = self.by_thresholds(free);
        }
        (std::mem::replace(&mut self.told, self.state) != self.state).then(|| self.event())
    }

    /// Deletes the ballast; whether there was one. From now on there is no room.
    pub fn give_up_ballast(&mut self) -> bool {
        self.state = DiskState::Full;
        self.looked = None;
        let had = std::mem::take(&mut self.has_ballast);
        had && remove_ballast(&self.dir)
    }

    fn by_thresholds(&self, free: u64) -> DiskState {
        match free {
            free if free < self.config.critical_bytes() => DiskState::Critical,
            free if free < self.config.low_bytes() => DiskState::Low,
            _ => DiskState::Enough,
        }
    }

    fn event(&self) -> Disk {
        let action = match (self.state, self.config.when_critical) {
            (DiskState::Enough | DiskState::Low, _) => "everything is recorded",
            (DiskState::Critical, WhenCritical::Record) => "everything is recorded until the disk is full",
            (DiskState::Critical, WhenCritical::DropLow) => "events below severity high are counted, not recorded",
            (DiskState::Critical, WhenCritical::PruneShipped) => "the oldest segments that were shipped are pruned",
            (DiskState::Full, _) => "events are counted, not recorded; the log's own records go on",
        };
        Disk { state: self.state, free_bytes: self.free_bytes, action }
    }

    /// Whole size and free bytes, for this user, of the log's file system.
    fn ask(&self) -> io::Result<(u64, u64)> {
        let answer = statvfs(&self.dir)?;
        Ok((answer.f_blocks * answer.f_frsize, answer.f_bavail * answer.f_frsize))
    }

    fn ballast_bytes(&self) -> u64 {
        let whole = self.ask().map_or(0, |(whole, _)| whole);
        self.config.ballast_bytes().min(whole / LARGEST_PART)
    }

    fn take_ballast(&mut self) {
        let bytes = self.ballast_bytes();
        let path = self.dir.join(BALLAST);
        let taken =
            File::create(&path).and_then(|mut file| match fallocate(&file, FallocateFlags::empty(), 0, bytes.max(1)) {
                // Where space cannot be reserved, it is written; sparse, the file would hold no room at all.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => io::copy(&mut io::repeat(0).take(bytes), &mut file).map(drop),
                reserved => reserved.map_err(io::Error::from),
            });
        self.has_ballast = taken.is_ok();
        if let Err(error) = taken {
            tracing::warn!(%error, path = %path.display(), "there is no ballast for the audit log");
            let _ = fs::remove_file(path);
        }
    }
}
