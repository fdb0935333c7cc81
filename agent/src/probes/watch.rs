//! Watched directories and the files below them, by inode, enrolled through the probe itself.
//!
//! `stat` and the kernel's inode disagree on overlay, btrfs, NFS and FUSE. So the daemon opens each directory and each file
//! and takes the key that the file-open program read for that very open; what the program will compare is what it enrolled.
//! A file whose key is known is watched under every name it has, wherever that name lies.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    os::fd::AsFd,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap as KernelMap, MapData};
use plumbline_ebpf::record::{FileId, WatchedFile};
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, makedev, statx};
use thiserror::Error;

use super::{Probes, ProbesError, canary, device, reads};
use crate::event::FileKey;

/// The most directories that can be watched: the size of the kernel map `WATCHED`.
pub const MAX_WATCHED: usize = 1024;

/// The most files that can be watched by their own inode: the size of the kernel map `FILES`.
pub const MAX_FILES: usize = 16_384;

/// The size of the kernel map `DEVICES`.
const MAX_DEVICES: usize = 256;

/// Directories below a watched one that are looked into.
const MAX_DEPTH: usize = 64;

/// How long the program may take to answer an open; it answers in microseconds or never.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the second answer of an open on an overlay may take after the first.
const SECOND_ANSWER_TIMEOUT: Duration = Duration::from_millis(5);

/// How long a fault may take to be told; nothing is awaited from kernels without a hook on faults but on overlays.
const FAULT_ANSWER_TIMEOUT: Duration = Duration::from_millis(50);

/// `statfs.f_type` of overlay (include/uapi/linux/magic.h).
const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;

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
    born: Option<Born>,
}

/// A directory and no other, ever: device and inode, and when it was made.
type Born = (u64, u64, i64, u32);

/// Of a directory, by its path or open with an empty one, where its file system says when it was made.
fn born(at: impl AsFd, path: &Path) -> Option<Born> {
    let asked = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(at, path, AtFlags::EMPTY_PATH, asked).ok()?;
    let is_directory = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
    let says = stat.stx_mask & asked.bits() == asked.bits() && is_directory;
    let dev = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    says.then_some((dev, stat.stx_ino, stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

/// Why one directory or file is not watched.
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
    #[error("more than {MAX_FILES} watched files; those beyond are watched by the directories above them only")]
    TooManyFiles,
    #[error(transparent)]
    Map(#[from] ProbesError),
}

/// What enrolling gave.
#[derive(Debug, Default)]
pub struct Enrolment {
    pub watched: Vec<Watched>,
    /// Files watched by their own inode.
    pub files: usize,
    pub failed: Vec<(PathBuf, EnrolError)>,
    /// Directories that their names lead to no more; they stay watched by inode.
    pub lost_sight_of: Vec<PathBuf>,
    /// Files that lie below several watched directories, by hard links or because one lies in the other, and which.
    pub below_several: Vec<(FileId, Vec<FileKey>)>,
}

/// Files that were enrolled, by what `stat` says of them: asked once each.
#[derive(Debug, Default)]
pub struct EnrolledFiles(HashMap<StatKey, FileId>);

/// Device, inode, and when it was made or last changed its links: numbers are used again.
type StatKey = (u64, u64, i64, i64);

impl Probes {
    /// Replaces the watched directories. New keys are in the map before old ones leave it, so nothing that stays is
    /// uncovered meanwhile. `answers` carries what the sensor decodes.
    ///
    /// `about_to` hears of the directories before any program meets them.
    ///
    /// `keep` is for rounds in which nobody has asked for other directories: one that was watched and is found by its name
    /// no more, because it was renamed or cannot be opened, stays watched by its inode.
    pub fn watch(
        &mut self,
        directories: &[PathBuf],
        answers: &mpsc::Receiver<Enrolled>,
        keep: bool,
        about_to: &mut dyn FnMut(&[Watched]),
    ) -> Result<Enrolment, ProbesError> {
        while answers.try_recv().is_ok() {}
        let mut enrolment = Enrolment::default();
        self.enrol(directories, answers, &mut enrolment)?;
        if keep {
            for before in std::mem::take(&mut self.watched) {
                if enrolment.watched.len() < MAX_WATCHED && enrolment.watched.iter().all(|now| now.key != before.key) {
                    enrolment.lost_sight_of.push(before.asked.clone());
                    enrolment.watched.push(before);
                }
            }
        }
        self.watched.clone_from(&enrolment.watched);
        about_to(&enrolment.watched);
        let mut seen = HashMap::new();
        for watched in enrolment.watched.clone() {
            self.enrol_files(&watched.asked, watched.key, answers, &mut enrolment, &mut seen)?;
        }
        // What is gone is asked anew if it comes back.
        self.files.0.retain(|key, _| seen.contains_key(key));
        enrolment.files = self.files.0.len();
        let below_several = seen.iter().filter(|(_, directories)| directories.len() > 1);
        enrolment.below_several = below_several
            .filter_map(|(stat, directories)| Some((*self.files.0.get(stat)?, directories.clone())))
            .collect();

        let mut keys: KernelMap<&mut MapData, [u64; 2], u32> = self.map_of("WATCHED")?;
        let error = |error| ProbesError::Map("WATCHED", Box::new(error));
        let wanted: HashSet<[u64; 2]> =
            enrolment.watched.iter().map(|watched| reads::words(&id(watched.key))).collect();
        for key in &wanted {
            keys.insert(key, 1, 0).map_err(error)?;
        }
        let stale: Vec<[u64; 2]> = keys.keys().filter_map(Result::ok).filter(|key| !wanted.contains(key)).collect();
        for key in stale {
            keys.remove(&key).map_err(error)?;
        }
        self.forget_unwatched_files(&wanted)?;
        self.watch_devices(&enrolment)?;
        let count = u32::try_from(wanted.len() + usize::from(self.has_canary)).unwrap_or(u32::MAX);
        self.control(|control| control.watched = count)?;
        self.forget_directories()?;
        Ok(enrolment)
    }

    /// Makes the programs look at directories anew: what they remember is at most as old as the last call.
    pub fn forget_directories(&mut self) -> Result<(), ProbesError> {
        let map = self.ebpf.map_mut("EPOCH").ok_or(ProbesError::NoMap("EPOCH"))?;
        let error = |error| ProbesError::Map("EPOCH", Box::new(error));
        let mut epoch: Array<_, u32> = Array::try_from(map).map_err(error)?;
        let now = epoch.get(&0, 0).map_err(error)?;
        epoch.set(0, now.wrapping_add(1), 0).map_err(error)
    }

    fn enrol(
        &mut self,
        directories: &[PathBuf],
        answers: &mpsc::Receiver<Enrolled>,
        enrolment: &mut Enrolment,
    ) -> Result<(), ProbesError> {
        let before: HashMap<PathBuf, Watched> =
            self.watched.iter().map(|watched| (watched.asked.clone(), watched.clone())).collect();
        for directory in directories {
            if enrolment.watched.len() == MAX_WATCHED {
                enrolment.failed.push((directory.clone(), EnrolError::TooMany));
                continue;
            }
            // Opened once, and not in every round.
            let now = born(rustix::fs::CWD, directory);
            if let Some(same) = before.get(directory).filter(|before| now.is_some() && before.born == now) {
                enrolment.watched.push(same.clone());
                continue;
            }
            let opened = self.answered(|| File::open(directory).map_err(EnrolError::Open))?;
            let answer = opened.and_then(|open| {
                let answer = ask(answers)?;
                settle_overlay(&open, answers);
                Ok((answer, open.metadata().is_ok_and(|meta| meta.is_file()), born(&open, Path::new(""))))
            });
            let watched = match answer {
                Ok((answer, is_file, born)) => {
                    // A file that is named itself is its own directory.
                    if is_file {
                        self.watch_file(answer.key, answer.key)?;
                    }
                    Watched {
                        asked: directory.clone(),
                        key: answer.key,
                        path: PathBuf::from(OsStr::from_bytes(&answer.path)),
                        born,
                    }
                }
                // Its answer may still come and must not be taken for another's: the round ends, nothing changes.
                Err(EnrolError::NoAnswer) => return Err(ProbesError::NoAnswer(directory.clone())),
                Err(error) => {
                    enrolment.failed.push((directory.clone(), error));
                    continue;
                }
            };
            enrolment.watched.push(watched);
        }
        Ok(())
    }

    /// Every regular file below the directory, symbolic links not followed; `seen` has the directories of each.
    fn enrol_files(
        &mut self,
        directory: &Path,
        watched: FileKey,
        answers: &mpsc::Receiver<Enrolled>,
        enrolment: &mut Enrolment,
        seen: &mut HashMap<StatKey, Vec<FileKey>>,
    ) -> Result<(), ProbesError> {
        let mut left = vec![(directory.to_owned(), 0)];
        while let Some((directory, depth)) = left.pop() {
            // A directory that vanished, or that we may not read, keeps its watch by inode.
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() && depth < MAX_DEPTH {
                    left.push((entry.path(), depth + 1));
                }
                let Some(meta) = kind.is_file().then(|| entry.metadata().ok()).flatten() else { continue };
                let stat = (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
                let directories = seen.entry(stat).or_default();
                if !directories.contains(&watched) {
                    directories.push(watched);
                }
                if self.files.0.contains_key(&stat) {
                    continue;
                }
                if self.files.0.len() >= MAX_FILES {
                    enrolment.failed.push((entry.path(), EnrolError::TooManyFiles));
                    return Ok(());
                }
                match self.enrol_file(&entry.path(), answers)? {
                    Ok(keys) => {
                        for key in keys {
                            if self.watch_file(key, watched).is_err() {
                                // The map is full, of files that were opened and are gone: those leave first.
                                self.forget_vanished_files()?;
                                if self.watch_file(key, watched).is_err() {
                                    enrolment.failed.push((entry.path(), EnrolError::TooManyFiles));
                                    return Ok(());
                                }
                            }
                            self.files.0.insert(stat, id(key));
                        }
                    }
                    Err(EnrolError::NoAnswer) => return Err(ProbesError::NoAnswer(entry.path())),
                    // Gone, or of a file system that lets root in no further than others.
                    Err(error) => enrolment.failed.push((entry.path(), error)),
                }
            }
        }
        Ok(())
    }

    fn enrol_file(
        &mut self,
        path: &Path,
        answers: &mpsc::Receiver<Enrolled>,
    ) -> Result<Result<Vec<FileKey>, EnrolError>, ProbesError> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        self.enrol_opened(|| OpenOptions::new().read(true).custom_flags(flags).open(path), answers)
    }

    /// Opens a file and waits for the program's answers: its own key and, on an overlay, that of the layer's file, in
    /// which its pages lie.
    pub(super) fn enrol_opened(
        &mut self,
        open: impl FnOnce() -> std::io::Result<File>,
        answers: &mpsc::Receiver<Enrolled>,
    ) -> Result<Result<Vec<FileKey>, EnrolError>, ProbesError> {
        let open = self.answered(open)?;
        let open = match open {
            Ok(open) => open,
            Err(error) => return Ok(Err(EnrolError::Open(error))),
        };
        let mut keys = match ask(answers) {
            Ok(answer) => vec![answer.key],
            Err(error) => return Ok(Err(error)),
        };
        if settle_overlay(&open, answers) && self.answered(|| touch_first_page(&open))? {
            // Without a hook on page faults nobody answers, and nobody counts them either.
            while let Ok(answer) = answers.recv_timeout(FAULT_ANSWER_TIMEOUT) {
                if answer.tid == own_tid() && answer.path.is_empty() && !keys.contains(&answer.key) {
                    keys.push(answer.key);
                    break;
                }
            }
        }
        Ok(Ok(keys))
    }

    /// What is opened or mapped meanwhile is answered by the programs, and nothing else is.
    fn answered<T>(&mut self, done: impl FnOnce() -> T) -> Result<T, ProbesError> {
        self.control(|control| control.enrol_pid = std::process::id())?;
        let result = done();
        self.control(|control| control.enrol_pid = 0)?;
        Ok(result)
    }

    /// The block devices that watched files lie on, and those that these are parts of or lie on in turn.
    fn watch_devices(&mut self, enrolment: &Enrolment) -> Result<(), ProbesError> {
        let mut devices: KernelMap<&mut MapData, u32, u32> = self.map_of("DEVICES")?;
        let of_files: HashSet<u32> = enrolment.watched.iter().map(|watched| watched.key.dev).collect();
        let wanted: HashSet<u32> = of_files.into_iter().flat_map(device::below).collect();
        for device in wanted.iter().take(MAX_DEVICES) {
            devices.insert(device, 1, 0).map_err(|error| ProbesError::Map("DEVICES", Box::new(error)))?;
        }
        let stale: Vec<u32> = devices.keys().filter_map(Result::ok).filter(|key| !wanted.contains(key)).collect();
        for device in stale {
            let _ = devices.remove(&device);
        }
        Ok(())
    }

    /// Enrols the canary's file, which stays enrolled whatever the policies watch.
    pub fn enrol_canary(&mut self, path: &Path, answers: &mpsc::Receiver<Enrolled>) -> Result<FileKey, EnrolError> {
        while answers.try_recv().is_ok() {}
        let keys = self.enrol_file(path, answers)??;
        for key in &keys {
            self.watch_file(*key, canary::NO_DIRECTORY)?;
        }
        self.has_canary = true;
        self.control(|control| control.watched = control.watched.max(1))?;
        keys.first().copied().ok_or(EnrolError::NoAnswer)
    }

    fn watch_file(&mut self, file: FileKey, watched: FileKey) -> Result<(), ProbesError> {
        let mut files: KernelMap<&mut MapData, [u64; 2], [u64; 2]> = self.map_of("FILES")?;
        let value = WatchedFile { watched_ino: watched.ino, watched_dev: watched.dev, generation: file.generation };
        let added = files.insert(reads::words(&id(file)), reads::words::<_, 2>(&value), 0);
        added.map_err(|error| ProbesError::Map("FILES", Box::new(error)))
    }

    /// Makes room: what the programs added and no walk has found since has no name any more.
    fn forget_vanished_files(&mut self) -> Result<(), ProbesError> {
        let known: HashSet<[u64; 2]> = self.files.0.values().map(reads::words).collect();
        let mut files: KernelMap<&mut MapData, [u64; 2], [u64; 2]> = self.map_of("FILES")?;
        let gone: Vec<[u64; 2]> = files
            .iter()
            .filter_map(Result::ok)
            .filter(|(key, value)| {
                let WatchedFile { watched_ino, .. } = zerocopy::transmute!(*value);
                watched_ino != canary::NO_DIRECTORY.ino && !known.contains(key)
            })
            .map(|(key, _)| key)
            .collect();
        for key in gone {
            let _ = files.remove(&key);
        }
        Ok(())
    }

    /// Files whose directory is watched no more are watched no more.
    fn forget_unwatched_files(&mut self, directories: &HashSet<[u64; 2]>) -> Result<(), ProbesError> {
        let mut files: KernelMap<&mut MapData, [u64; 2], [u64; 2]> = self.map_of("FILES")?;
        let stale: Vec<[u64; 2]> = files
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, value)| {
                let WatchedFile { watched_ino, watched_dev, .. } = zerocopy::transmute!(*value);
                watched_ino != canary::NO_DIRECTORY.ino
                    && !directories.contains(&reads::words(&FileId { ino: watched_ino, dev: watched_dev, reserved: 0 }))
            })
            .map(|(key, _)| key)
            .collect();
        for key in stale {
            // The programs add and remove beside us.
            let _ = files.remove(&key);
        }
        Ok(())
    }

    pub(super) fn map_of<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<KernelMap<&mut MapData, K, V>, ProbesError> {
        let map = self.ebpf.map_mut(name).ok_or(ProbesError::NoMap(name))?;
        KernelMap::try_from(map).map_err(|error| ProbesError::Map(name, Box::new(error)))
    }
}

fn id(key: FileKey) -> FileId {
    FileId { ino: key.ino, dev: key.dev, reserved: 0 }
}

/// Maps the first page and reads a byte of it; says whether there is one.
#[expect(unsafe_code, reason = "mmap edge")]
pub(super) fn touch_first_page(file: &File) -> bool {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    if file.metadata().map_or(0, |meta| meta.len()) == 0 {
        return false;
    }
    // SAFETY: a new mapping of one page, unmapped before the function ends. The file holds a byte there; were it cut
    // short this moment, the daemon would get SIGBUS, so only overlay files, which images are made of, are mapped.
    unsafe {
        let page = rustix::param::page_size();
        let Ok(start) = mmap(std::ptr::null_mut(), page, ProtFlags::READ, MapFlags::PRIVATE, file, 0) else {
            return false;
        };
        let _ = start.cast::<u8>().read_volatile();
        let _ = munmap(start, page);
    }
    true
}

fn own_tid() -> u32 {
    u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0)
}

/// Whether the file lies on an overlay. There an open is two, of the overlay's file and of the layer's, and where both are
/// answered the second must not be taken for the answer to the next.
fn settle_overlay(open: &File, answers: &mpsc::Receiver<Enrolled>) -> bool {
    let on_overlay = rustix::fs::fstatfs(open).is_ok_and(|fs| fs.f_type == OVERLAYFS_SUPER_MAGIC);
    if on_overlay {
        while answers.recv_timeout(SECOND_ANSWER_TIMEOUT).is_ok() {}
    }
    on_overlay
}

/// Waits for the program's answer to this thread.
fn ask(answers: &mpsc::Receiver<Enrolled>) -> Result<Enrolled, EnrolError> {
    let tid = own_tid();
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match answers.recv_timeout(left) {
            Ok(answer) if answer.tid == tid => return Ok(answer),
            Ok(_) => {}
            Err(_) => return Err(EnrolError::NoAnswer),
        }
    }
}
