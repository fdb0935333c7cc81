//! Opens denied by fanotify, where the kernel asks no BPF program: it waits for this process to answer (fanotify(7),
//! `FAN_OPEN_PERM`).
//!
//! One thread reads the questions, another answers them; what has waited too long is allowed by the first, and counted: a
//! machine must not stand still because we do. Marks are put on enrolled files, and on the directories that hold them, so that a new
//! file is asked about as well.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::fanotify::{
        EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
    },
};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, StatxAttributes, StatxFlags, fstat, open, statat, statx};

use crate::patience::Patience;

/// How long an open waits for an answer.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// How often the reader looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Directories below a watched one that are marked, and files in all.
const MAX_MARKS: usize = 65_536;

const MAX_DEPTH: usize = 64;

/// Somebody is about to open a file.
#[derive(Debug)]
pub struct Opening {
    pub pid: u32,
    pub stat: Stat,
    /// As this process sees it.
    pub path: PathBuf,
    /// The watched directories that it lies below, as policies named them.
    pub watched: Vec<PathBuf>,
}

/// Decides; what is to be told denies. Asked while whoever opens waits, so that who it is can be looked at.
pub type Decide<T> = Box<dyn FnMut(&Opening) -> Option<T> + Send>;

/// Hears of what was denied, after it was.
pub type Tell<T> = Box<dyn FnMut(T) + Send>;

/// The marks and the two threads.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    group: Fanotify,
    /// Questions that nobody has answered, in the order in which they came: whoever takes one out answers it. Not by their
    /// descriptors, whose numbers are used again.
    waiting: Mutex<HashMap<u64, (FanotifyEvent, Instant)>>,
    marked: Mutex<Marked>,
    /// What is asked about still and lies below no guarded directory any more: its mark could not be taken off.
    left: Mutex<HashSet<(u64, u64)>>,
    is_over: AtomicBool,
    failed_open: AtomicU64,
}

/// Files and directories that are asked about, by device and inode, as stat(2) has them.
type Marked = HashMap<(u64, u64), Mark>;

#[derive(Debug, Clone, Default)]
struct Mark {
    /// By which it was found last.
    path: PathBuf,
    /// The watched directories that it lies below.
    watched: Vec<PathBuf>,
}

impl Mark {
    fn is_below(&mut self, watched: &[PathBuf]) {
        self.watched.extend(watched.iter().filter(|one| !self.watched.contains(one)).cloned().collect::<Vec<_>>());
    }

    fn mask(is_directory: bool) -> MaskFlags {
        let children = if is_directory { MaskFlags::FAN_EVENT_ON_CHILD } else { MaskFlags::empty() };
        MaskFlags::FAN_OPEN_PERM | children
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this kernel asks at all, and may be listened to.
pub fn is_possible() -> Result<(), String> {
    group().map(drop).map_err(|error| format!("fanotify_init: {error}"))
}

fn group() -> nix::Result<Fanotify> {
    let flags = InitFlags::FAN_CLASS_CONTENT
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_NONBLOCK
        | InitFlags::FAN_UNLIMITED_QUEUE
        | InitFlags::FAN_UNLIMITED_MARKS;
    Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC)
}

impl Gate {
    pub fn start<T: 'static>(decide: Decide<T>, tell: Tell<T>) -> Result<Self, String> {
        let group = group().map_err(|error| format!("fanotify_init: {error}"))?;
        let shared = Arc::new(Shared {
            group,
            waiting: Mutex::default(),
            marked: Mutex::default(),
            left: Mutex::default(),
            is_over: AtomicBool::new(false),
            failed_open: AtomicU64::new(0),
        });
        let (questions, asked) = mpsc::channel();
        let (reader, decider) = (Arc::clone(&shared), Arc::clone(&shared));
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| error.to_string())
        };
        let threads = vec![
            spawn("gate-reader", Box::new(move || reader.read(&questions)))?,
            spawn("gate", Box::new(move || decider.decide(&asked, decide, tell)))?,
        ];
        Ok(Self { shared, threads })
    }

    /// Opens that were allowed because nobody had decided in time.
    pub fn failed_open(&self) -> u64 {
        self.shared.failed_open.load(Ordering::Relaxed)
    }

    /// Asks about what lies at or below these directories; what was asked about before and does not is not any more. What
    /// could not be marked is returned.
    pub fn guard(&self, directories: &[PathBuf]) -> Vec<(PathBuf, Errno)> {
        let mut found = Marked::new();
        let mut failed = Vec::new();
        for directory in directories {
            self.guard_one(directory, &mut found, &mut failed);
        }
        let mut before = std::mem::replace(&mut *lock(&self.shared.marked), found.clone());
        before.retain(|inode, _| !found.contains_key(inode));
        let left = self.unmark(&before);
        let mut known = lock(&self.shared.left);
        known.retain(|inode| !found.contains_key(inode));
        known.extend(left.into_iter().take(MAX_MARKS));
        failed
    }

    /// Asks no more; returns what its path does not lead to any more. Marks of what is no more go with their inode.
    fn unmark(&self, marks: &Marked) -> Vec<(u64, u64)> {
        let is_left = |(inode, mark): (&(u64, u64), &Mark)| {
            let meta = fs::symlink_metadata(&mark.path).ok().filter(|meta| (meta.dev(), meta.ino()) == *inode);
            let taken_off = meta.is_some_and(|meta| {
                let (mask, at) = (Mark::mask(meta.is_dir()), rustix::fs::CWD);
                self.shared.group.mark(MarkFlags::FAN_MARK_REMOVE, mask, at, Some(&mark.path)).is_ok()
            });
            (!taken_off).then_some(*inode)
        };
        marks.iter().filter_map(is_left).collect()
    }

    fn guard_one(&self, watched: &Path, found: &mut Marked, failed: &mut Vec<(PathBuf, Errno)>) {
        let mut left = vec![(watched.to_owned(), 0)];
        while let Some((path, depth)) = left.pop() {
            // Named itself it may be a link; what lies below is not followed.
            let meta = if depth == 0 { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
            let Ok(meta) = meta else { continue };
            if (!meta.is_dir() && !meta.is_file()) || depth > MAX_DEPTH || found.len() >= MAX_MARKS {
                continue;
            }
            let mark = found.entry((meta.dev(), meta.ino())).or_default();
            mark.path.clone_from(&path);
            mark.is_below(&[watched.to_owned()]);
            // Known to the decider before the first question, beside what it knows until all have been walked.
            let mut marked = lock(&self.shared.marked);
            let known = marked.entry((meta.dev(), meta.ino())).or_default();
            known.path.clone_from(&path);
            known.is_below(&mark.watched);
            drop(marked);
            let (mask, at) = (Mark::mask(meta.is_dir()), rustix::fs::CWD);
            if let Err(error) = self.shared.group.mark(MarkFlags::FAN_MARK_ADD, mask, at, Some(&path)) {
                failed.push((path.clone(), error));
            }
            if meta.is_dir() {
                let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| (entry.path(), depth + 1)));
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // The reader ends, then the channel is closed and the decider ends; the group's descriptor goes with the last of them, and
        // whatever waits is allowed by the kernel.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn read(&self, questions: &mpsc::Sender<u64>) {
        let mut number = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let next = lock(&self.waiting).values().map(|(_, since)| *since + PATIENCE).min();
            let wait = next.map_or(LOOK_EVERY, |next| next.saturating_duration_since(Instant::now()));
            let timeout = PollTimeout::try_from(wait.min(LOOK_EVERY).max(Duration::from_millis(1)));
            let mut ready = [PollFd::new(self.group.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ready, timeout.unwrap_or(PollTimeout::ZERO));
            loop {
                let events = match self.group.read_events() {
                    Ok(events) => events,
                    Err(Errno::EINTR) => continue,
                    Err(Errno::EAGAIN) => break,
                    // Descriptors or memory run out: what has been asked is asked again.
                    Err(error) => {
                        tracing::error!(%error, "questions about opens cannot be read");
                        std::thread::sleep(Duration::from_millis(1));
                        break;
                    }
                };
                for event in events {
                    number += 1;
                    lock(&self.waiting).insert(number, (event, Instant::now()));
                    if questions.send(number).is_err() {
                        self.answer_in_time();
                    }
                }
            }
            self.answer_in_time();
        }
    }

    /// Allows what has waited too long.
    fn answer_in_time(&self) {
        let now = Instant::now();
        let late: Vec<FanotifyEvent> = {
            let mut waiting = lock(&self.waiting);
            let late: Vec<u64> =
                waiting.iter().filter(|(_, (_, since))| now >= *since + PATIENCE).map(|(number, _)| *number).collect();
            late.iter().filter_map(|number| waiting.remove(number)).map(|(event, _)| event).collect()
        };
        for event in late {
            self.failed_open.fetch_add(1, Ordering::Relaxed);
            self.answer(&event, false);
        }
    }

    fn answer(&self, event: &FanotifyEvent, deny: bool) {
        let Some(fd) = event.fd() else { return };
        let response = if deny { Response::FAN_DENY } else { Response::FAN_ALLOW };
        if let Err(error) = self.group.write_response(FanotifyResponse::new(fd, response)) {
            tracing::error!(%error, "an open could not be answered");
        }
    }

    fn decide<T>(&self, asked: &mpsc::Receiver<u64>, mut decide: Decide<T>, mut tell: Tell<T>) {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        while let Ok(number) = asked.recv() {
            // Looked at without the lock: the file system may be slow, and the reader must go on.
            let question = lock(&self.waiting).get(&number).and_then(|(event, _)| {
                // Whoever must never wait for us is not asked about.
                let is_asked = event.pid() != own && event.pid() > 1;
                is_asked.then(|| Some((event.pid(), event.fd()?.try_clone_to_owned().ok()?))).flatten()
            });
            let opening = question.and_then(|(pid, file)| self.opening(pid, &file));
            let denied = opening.as_ref().and_then(&mut decide);
            let Some((event, _)) = lock(&self.waiting).remove(&number) else { continue };
            self.answer(&event, denied.is_some());
            drop(event);
            denied.into_iter().for_each(&mut tell);
        }
    }

    fn opening(&self, pid: i32, file: &OwnedFd) -> Option<Opening> {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        let stat = fstat(file).ok()?;
        let pid = u32::try_from(pid).ok()?;
        let own = self.watched((stat.st_dev, stat.st_ino));
        let watched = own.or_else(|| self.watched_of_new(pid, file, &path, &stat))?;
        Some(Opening { pid, stat, path, watched })
    }

    fn watched(&self, inode: (u64, u64)) -> Option<Vec<PathBuf>> {
        lock(&self.marked).get(&inode).map(|mark| mark.watched.clone())
    }

    /// A file that is new since the last look is as the directory that it lies in: the one above it on its path, here or where
    /// whoever opens it is. Mounted itself, or in none that is guarded by that path, it may lie in any on its file system, since
    /// somebody's mark made the question.
    fn watched_of_new(&self, pid: u32, file: &OwnedFd, path: &Path, stat: &Stat) -> Option<Vec<PathBuf>> {
        let inode = (stat.st_dev, stat.st_ino);
        if lock(&self.left).contains(&inode) {
            return None;
        }
        let below_root = path.strip_prefix("/").ok().filter(|_| !is_mounted_itself(file)).map(Path::to_owned);
        let found = below_root.and_then(|path| {
            let roots = [PathBuf::from("/"), PathBuf::from(format!("/proc/{pid}/root"))];
            roots.into_iter().find_map(|root| self.watched(directory_of(root.join(&path), inode)?))
        });
        found.or_else(|| {
            let mut any = Mark::default();
            for (_, mark) in lock(&self.marked).iter().filter(|((device, _), _)| *device == stat.st_dev) {
                any.is_below(&mark.watched);
            }
            (!any.watched.is_empty()).then_some(any.watched)
        })
    }
}

/// Paths that processes chose are looked up while they wait, which is not long.
static LOOKS: Patience = Patience::new(Duration::from_millis(5));

/// The directory in which this path names this file, looked at once: its name may lead elsewhere the next moment.
fn directory_of(path: PathBuf, inode: (u64, u64)) -> Option<(u64, u64)> {
    let look = move || {
        let above = open(path.parent()?, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let found = statat(&above, path.file_name()?, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let above = fstat(&above).ok()?;
        ((found.st_dev, found.st_ino) == inode).then_some((above.st_dev, above.st_ino))
    };
    LOOKS.ask(look).ok().flatten()
}

/// What is above it on its path is not then what it lies in.
fn is_mounted_itself(file: &OwnedFd) -> bool {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    // A kernel that does not say is as one that says so.
    statx(file, c"", flags, StatxFlags::empty()).map_or(true, |stat| {
        let asked = StatxAttributes::MOUNT_ROOT;
        !stat.stx_attributes_mask.contains(asked) || stat.stx_attributes.contains(asked)
    })
}
