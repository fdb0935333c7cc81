//! What `/proc` says of one process, right now.
//!
//! The process may be gone, or its number may belong to another one by now: the start time is compared, and every
//! answer may be `None`.

use std::{
    fs, io,
    io::Read as _,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use plumbline_ebpf::record::{ARGUMENTS_MAX_BYTES, NO_LOGIN};

use sha2::{Digest as _, Sha256};

use crate::event::Exec;

use super::{
    below,
    cgroup::Cgroup,
    digest::FileVersion,
    dns::resolvers::View,
    exe_name::{self, Whose},
    pod::Pod,
};

/// The questions that identity asks of the sensor.
pub trait Processes {
    /// Facts of process `pid`, if it still is the one that started at `start_boot_ns` (0: whichever it is).
    fn look(&self, pid: u32, start_boot_ns: u64) -> Option<Seen>;

    /// What the process is called and the cgroup that it is in: nothing that waits for the process.
    fn name(&self, pid: u32) -> Option<(Vec<u8>, Option<Cgroup>)> {
        self.look(pid, 0).map(|seen| (seen.comm, seen.cgroup))
    }

    /// The cgroup of this v2 id, which outlives the processes that were in it.
    fn cgroup(&self, id: u64) -> Option<Cgroup>;

    /// What the pod of this uid is called, and its container of this id.
    fn pod(&self, uid: &str, container_id: Option<&str>) -> Option<Pod>;

    /// What the process sees of the file system, while it is in this mount namespace.
    fn view(&self, pid: u32, mnt_ns: u32) -> Option<View>;

    /// A file as the process sees it, while it has this view; `path` is below its root.
    fn read_below(&self, pid: u32, view: View, path: &'static str) -> io::Result<Vec<u8>>;

    /// The host's `/etc/passwd`.
    fn passwd(&self) -> Option<Vec<u8>> {
        None
    }

    /// Whose name it is by which a program began to run.
    fn whose_exec(&self, _exec: &Exec, _is_contained: bool) -> Option<Whose> {
        Some(Whose::Host)
    }

    /// Whose name this path is, if the process runs its program by it.
    fn whose_running(&self, _pid: u32, _exe: &[u8], _is_contained: bool) -> Option<Whose> {
        Some(Whose::Host)
    }

    /// Which file the process runs, in which state.
    fn exe_version(&self, _pid: u32, _start_boot_ns: u64) -> Option<FileVersion> {
        None
    }

    /// SHA-256 of what the process runs, lower-case hexadecimal, if it still is this version.
    fn exe_sha256(&self, _pid: u32, _version: FileVersion) -> Option<String> {
        None
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub ppid: u32,
    pub start_boot_ns: u64,
    pub comm: Vec<u8>,
    pub exe: Option<Vec<u8>>,
    /// Arguments, each ended by a NUL, cut at [`ARGUMENTS_MAX_BYTES`].
    pub arguments: Option<Vec<u8>>,
    pub loginuid: Option<u32>,
    /// What it runs has no name any more.
    pub exe_deleted: bool,
    pub cgroup: Option<Cgroup>,
}

/// The real `/proc`, or a copy of it in tests.
#[derive(Debug, Clone)]
pub struct Procfs {
    root: PathBuf,
    /// Where the kubelet keeps logs.
    logs: PathBuf,
    tick_ns: u64,
}

impl Default for Procfs {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/proc"),
            logs: PathBuf::from("/var/log"),
            tick_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
        }
    }
}

impl Procfs {
    /// With the kubelet's directories of logs below `logs`.
    pub fn with_logs(logs: PathBuf) -> Self {
        Self { logs, ..Self::default() }
    }
}

impl Processes for Procfs {
    fn cgroup(&self, id: u64) -> Option<Cgroup> {
        find_cgroup(&crate::probes::kernel::cgroup2_root().ok()?, id)
    }

    fn pod(&self, uid: &str, container_id: Option<&str>) -> Option<Pod> {
        Pod::find(&self.logs, uid, container_id)
    }

    fn view(&self, pid: u32, mnt_ns: u32) -> Option<View> {
        below::view(&self.root.join(pid.to_string()), mnt_ns)
    }

    fn read_below(&self, pid: u32, view: View, path: &'static str) -> io::Result<Vec<u8>> {
        below::read(self.root.join(pid.to_string()), view, path)
    }

    fn passwd(&self) -> Option<Vec<u8>> {
        // The host's, wherever the daemon itself runs.
        read_head(&self.root.join("1/root/etc/passwd"), MAX_PASSWD_BYTES)
    }

    fn whose_exec(&self, exec: &Exec, is_contained: bool) -> Option<Whose> {
        exe_name::of_exec(exec, is_contained)
    }

    fn whose_running(&self, pid: u32, exe: &[u8], is_contained: bool) -> Option<Whose> {
        let running = exe_name::of_running(self.root.join(pid.to_string()), is_contained)?;
        running.whose.filter(|_| running.path == exe)
    }

    fn exe_version(&self, pid: u32, start_boot_ns: u64) -> Option<FileVersion> {
        self.look(pid, start_boot_ns)?;
        version(&fs::metadata(self.root.join(pid.to_string()).join("exe")).ok()?)
    }

    fn exe_sha256(&self, pid: u32, expected: FileVersion) -> Option<String> {
        let file = fs::File::open(self.root.join(pid.to_string()).join("exe")).ok()?;
        let found = version(&file.metadata().ok()?)?;
        if found != expected {
            return None;
        }
        let mut hasher = Sha256::new();
        io::copy(&mut file.take(MAX_EXECUTABLE_BYTES), &mut HashWriter(&mut hasher)).ok()?;
        Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn name(&self, pid: u32) -> Option<(Vec<u8>, Option<Cgroup>)> {
        let directory = self.root.join(pid.to_string());
        let stat = Stat::parse(&fs::read(directory.join("stat")).ok()?)?;
        let cgroup = fs::read(directory.join("cgroup")).ok().and_then(|file| Cgroup::parse(&file));
        Some((stat.comm, cgroup))
    }

    fn look(&self, pid: u32, start_boot_ns: u64) -> Option<Seen> {
        let directory = self.root.join(pid.to_string());
        let stat = Stat::parse(&fs::read(directory.join("stat")).ok()?)?;
        let start = stat.start_ticks * self.tick_ns;
        if start_boot_ns != 0 && start_boot_ns.abs_diff(start) > 2 * self.tick_ns {
            return None;
        }
        // A name that ends like this says so of itself, and cannot be told from a file that was removed.
        let exe = fs::read_link(directory.join("exe")).ok().map(|path| path.into_os_string().into_vec());
        Some(Seen {
            ppid: stat.ppid,
            start_boot_ns: if start_boot_ns == 0 { start } else { start_boot_ns },
            comm: stat.comm,
            exe_deleted: exe.as_ref().is_some_and(|exe| exe.ends_with(DELETED)),
            exe: exe.map(|exe| exe.strip_suffix(DELETED).unwrap_or(&exe).to_vec()),
            arguments: read_head(&directory.join("cmdline"), ARGUMENTS_MAX_BYTES),
            loginuid: fs::read_to_string(directory.join("loginuid"))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .filter(|uid| *uid != NO_LOGIN),
            cgroup: fs::read(directory.join("cgroup")).ok().and_then(|file| Cgroup::parse(&file)),
        })
    }
}

/// Longer files of users are cut.
const MAX_PASSWD_BYTES: usize = 4 << 20;

/// Longer executables are not hashed: events wait meanwhile.
const MAX_EXECUTABLE_BYTES: u64 = 256 << 20;

fn version(meta: &fs::Metadata) -> Option<FileVersion> {
    let version = (meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
    (meta.is_file() && meta.len() <= MAX_EXECUTABLE_BYTES).then_some(version)
}

struct HashWriter<'h>(&'h mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the kernel puts behind the path of a file without a name (fs/d_path.c).
const DELETED: &[u8] = b" (deleted)";

/// The path of an executable as `/proc` says it, without what the kernel puts behind one that was removed.
pub fn without_deleted(mut path: Vec<u8>) -> Vec<u8> {
    if path.ends_with(DELETED) {
        path.truncate(path.len() - DELETED.len());
    }
    path
}

/// The beginning of a file; `None` for one that is empty or cannot be read.
fn read_head(path: &Path, bytes: usize) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    fs::File::open(path).ok()?.take(u64::try_from(bytes).ok()?).read_to_end(&mut head).ok()?;
    (!head.is_empty()).then_some(head)
}

/// Directories of the cgroup tree that one search visits.
const MAX_CGROUPS: usize = 16_384;

/// Finds the directory whose inode number is `id` (a cgroup's v2 id is its kernfs inode number).
fn find_cgroup(root: &Path, id: u64) -> Option<Cgroup> {
    let mut directories = vec![root.to_owned()];
    for _ in 0..MAX_CGROUPS {
        let directory = directories.pop()?;
        if fs::metadata(&directory).is_ok_and(|meta| meta.ino() == id) {
            let below = directory.strip_prefix(root).ok()?.as_os_str().as_encoded_bytes();
            return Cgroup::parse(&[b"0::/", below].concat());
        }
        let inner = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories
            .extend(inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    None
}

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) that we use: 2 comm, 4 ppid, 22 starttime.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: Vec<u8>,
    ppid: u32,
    start_ticks: u64,
}

impl Stat {
    /// The name stands in brackets and may hold anything, brackets too: the last one ends it.
    fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')')?;
        let comm = line.get(open + 1..close)?.to_vec();
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3);
        Some(Self { comm, ppid: field(4)?.parse().ok()?, start_ticks: field(22)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_brackets_and_spaces() {
        let line = b"42 (a) R 1) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 1\n";
        assert_eq!(Stat::parse(line), Some(Stat { comm: b"a) R 1".to_vec(), ppid: 7, start_ticks: 123_456 }));
        assert_eq!(Stat::parse(b"42 (a"), None);
    }

    #[test]
    fn a_cgroup_is_found_by_its_inode_number() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/vllm.service");
        fs::create_dir_all(&inner).unwrap();
        let id = fs::metadata(&inner).unwrap().ino();
        assert_eq!(find_cgroup(root.path(), id).unwrap().path, b"/system.slice/vllm.service");
        assert_eq!(find_cgroup(root.path(), u64::MAX), None);
    }

    #[test]
    fn this_process_is_found_and_another_start_time_is_not_it() {
        let me = Procfs::default().look(std::process::id(), 0).unwrap();
        assert!(me.exe.is_some() && me.start_boot_ns > 0);
        assert_eq!(Procfs::default().look(std::process::id(), me.start_boot_ns + 3_600_000_000_000), None);
    }
}
