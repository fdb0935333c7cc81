//! Who may open what, decided here where the kernel asks this process (`probes::gate`): by the same rules, and by what
//! `/proc` says of whoever waits.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use plumbline_policy::{Denials, Subject};

use super::{WatchedPaths, place::Place};
use crate::{
    clock,
    event::{DeniedBy, Event, FileKey, FileOpen, Namespaces, Task, What},
    identity::{
        cgroup::Cgroup,
        exe_name,
        procfs::{Processes as _, Procfs},
    },
    probes::{gate::Opening, kernel::cgroup2_root},
};

/// What an opener is judged by. A value of its own, so that nobody who waits waits for a reload.
#[derive(Debug, Default)]
pub struct View {
    pub generation: u32,
    pub denials: Arc<Denials>,
    pub names_of_users: HashMap<u32, Arc<str>>,
    /// What is known of cgroups, by v2 id.
    pub places: HashMap<u64, Place>,
    pub watched: WatchedPaths,
}

/// The view of the policies in force.
#[derive(Debug, Clone, Default)]
pub struct SharedView(Arc<Mutex<Arc<View>>>);

impl SharedView {
    pub fn replace(&self, view: View) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    pub fn now(&self) -> Arc<View> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What `/proc/PID/status` and its neighbours say of a process that waits. What they do not say is not known, and excuses
/// nobody.
#[derive(Default)]
struct Opener {
    uid: Option<u32>,
    gid: Option<u32>,
    /// By a name that counts.
    exe: Option<Vec<u8>>,
    cgroup: Option<Cgroup>,
    cgroup_id: u64,
}

impl Opener {
    /// `None` for a thread of the kernel, which is never denied anything.
    fn look(pid: u32) -> Option<Self> {
        let directory = Path::new("/proc").join(pid.to_string());
        // Names of tasks may be any bytes.
        let status = fs::read(directory.join("status")).unwrap_or_default();
        let field = |name: &[u8]| {
            let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
            std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse::<u32>().ok()
        };
        let is_of_kernel = match field(b"Kthread:") {
            Some(answer) => answer == 1,
            // Kernels before 6.10 do not say: a thread of theirs has no memory, and a process that ends has a state that says so.
            None => {
                !status.is_empty()
                    && !status.windows(7).any(|bytes| bytes == b"\nVmSize")
                    && !status.windows(9).any(|bytes| bytes == b"\nState:\tZ")
            }
        };
        if is_of_kernel {
            return None;
        }
        let cgroup = fs::read(directory.join("cgroup")).unwrap_or_default();
        // Rules of what is denied know the v2 hierarchy only, here as in the kernel.
        let cgroup = cgroup.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"0::")).and_then(Cgroup::parse);
        let directory_of = |cgroup: &Cgroup| {
            let below = OsStr::from_bytes(cgroup.path.strip_prefix(b"/").unwrap_or(&cgroup.path));
            Some(fs::metadata(cgroup2_root().ok()?.join(below)).ok()?.ino())
        };
        let is_contained = cgroup.as_ref().is_some_and(Cgroup::is_contained);
        let running = exe_name::of_running(directory, is_contained);
        let exe = running.filter(|running| running.whose.is_some()).map(|running| running.path);
        let cgroup_id = cgroup.as_ref().and_then(directory_of).unwrap_or(0);
        Some(Self { uid: field(b"Uid:"), gid: field(b"Gid:"), exe, cgroup, cgroup_id })
    }
}

/// What is to be told of an open that is denied; `None` for one that is not.
pub fn decide(view: &View, opening: &Opening) -> Option<Event> {
    let denials = &view.denials;
    let watched: Vec<&[u8]> = opening.watched.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
    let directory = denials.by_directory(&watched);
    if directory.is_nothing() {
        return None;
    }
    let opener = Opener::look(opening.pid)?;
    let place = match &opener.cgroup {
        Some(cgroup) => {
            let known = view.places.get(&opener.cgroup_id).filter(|place| place.cgroup.path == cgroup.path);
            let here = Place { cgroup: cgroup.clone(), pod: None };
            known.unwrap_or(&here).lend(|subject| denials.by_place(subject))
        }
        None => denials.by_place(&Subject::default()),
    };
    let program = denials.by_program(&opener.exe.as_deref().into_iter().collect::<Vec<_>>());
    let name = opener.uid.and_then(|uid| view.names_of_users.get(&uid));
    let user = denials.by_user(opener.uid, name.map(|name| &**name));
    let lane = denials.denied(&[&directory, &place, &program, &user])?;
    let lane = u32::try_from(lane).unwrap_or(u32::MAX);
    Some(event(view, opening, &opener, DeniedBy { generation: view.generation, lane }))
}

fn event(view: &View, opening: &Opening, opener: &Opener, by: DeniedBy) -> Event {
    let seen = Procfs::default().look(opening.pid, 0).unwrap_or_default();
    let namespace = |name: &str| {
        let ino = fs::metadata(format!("/proc/{}/ns/{name}", opening.pid)).map_or(0, |meta| meta.ino());
        u32::try_from(ino).unwrap_or(0)
    };
    let task = Task {
        pid: opening.pid,
        tid: opening.pid,
        ppid: seen.ppid,
        uid: opener.uid.unwrap_or(u32::MAX),
        gid: opener.gid.unwrap_or(u32::MAX),
        start_boot_ns: seen.start_boot_ns,
        cgroup_id: opener.cgroup_id,
        namespaces: Namespaces { mnt: namespace("mnt"), net: namespace("net"), pid: namespace("pid") },
        comm: seen.comm,
    };
    let meta = &opening.stat;
    let watched = view.watched.iter().find(|(_, asked)| opening.watched.contains(asked)).map(|(key, _)| *key);
    let open = FileOpen {
        path: opening.path.clone().into_os_string().into_vec(),
        path_truncated: false,
        known_as: None,
        key: FileKey { dev: kernel_device(meta.st_dev), ino: meta.st_ino, generation: 0 },
        watched: watched.unwrap_or_default(),
        // Not told by fanotify: as for reading.
        flags: 0,
        inode_mode: meta.st_mode,
        size_bytes: u64::try_from(meta.st_size).unwrap_or(0),
        links: u32::try_from(meta.st_nlink).unwrap_or(u32::MAX),
        received: false,
        denied_by: Some(by),
    };
    Event { boot_ns: clock::boot_ns(), origin: None, task: Some(task), what: What::FileOpen(open) }
}

/// A device as the kernel encodes it: `major << 20 | minor`.
fn kernel_device(device: u64) -> u32 {
    rustix::fs::major(device) << 20 | rustix::fs::minor(device) & 0xf_ffff
}
