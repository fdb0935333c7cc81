//! Which files that processes map are CUDA's driver or NCCL, or contain NCCL or CUDA's runtime.
//!
//! `/proc/PID/maps` (proc_pid_maps(5)) names them as the process sees them; what a name leads to is another matter in another mount
//! namespace, or when the file was replaced or removed. So a file is reached through `/proc/PID/map_files`, which leads to what is
//! mapped, and told from others by its device and inode. One driver is usually mounted into every container, and is one file.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{hooks, symbols::SymbolsError};

/// A driver is loaded when it is first needed, which is soon after a start; later its process is looked at again now and then.
const YOUNG_LOOKS: u32 = 12;

/// Processes that map a driver, of one node; what is beyond is not looked at.
const MOST_PROCESSES: usize = 16_384;

/// Different files that are libraries, and different ones that contain them: more than a node of many containers has.
const MOST_FILES: usize = 64;

/// Files of another name that were asked what is inside.
const MOST_ASKED: usize = 8192;

/// Different files that a process maps as code.
const MOST_MAPPED: usize = 8192;

/// Lines of one process's maps.
const MOST_LINES: usize = 65_536;

/// A file that somebody maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    pub key: FileKey,
    /// Leads to it for as long as one of those who map it lives.
    pub path: PathBuf,
    /// As one of its processes sees it.
    pub name: String,
    pub kind: Kind,
}

/// Whose library a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CUDA's driver, or its runtime.
    Cuda,
    Nccl,
    /// Of another name, and with NCCL or CUDA's runtime inside: an executable or a library that was linked with them.
    Container,
}

/// Device and inode as `stat(2)` has them, of what is one file for the kernel's probes.
///
/// Each mount of an overlay has a device of its own, where files of one layer are one file with one inode (Documentation/filesystems/overlayfs.rst,
/// "Inode properties"): there size and time stand for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    device: u64,
    inode: u64,
    overlaid: Option<(u64, i64, i64)>,
}

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAY: i64 = 0x794c_7630;

impl FileKey {
    /// `None` for what is no regular file, or cannot be asked.
    pub fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
        let is_overlaid = rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == OVERLAY);
        let overlaid = is_overlaid.then(|| (metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
        let device = if is_overlaid { 0 } else { metadata.dev() };
        Some(Self { device, inode: metadata.ino(), overlaid })
    }
}

/// Whose maps are read.
#[derive(Debug, Clone, Copy)]
pub enum Look<'a> {
    /// Of young processes, and now and then of the others.
    Around,
    /// Of all.
    Everybody,
    /// Of these, and of those that were not known.
    At(&'a HashSet<u32>),
}

/// What is known of the node's processes.
#[derive(Debug)]
pub struct Libraries {
    proc: PathBuf,
    processes: HashMap<u32, Process>,
    inside: Inside,
    /// Files that are to be asked what is inside, and of whom.
    unasked: HashMap<Box<[u8]>, (PathBuf, u32)>,
    tick_ns: u64,
}

/// What is inside of files of other names, by device and inode as `maps` has them. Who has such a file mapped keeps its inode.
type Inside = HashMap<Box<[u8]>, bool>;

#[derive(Debug)]
struct Process {
    start_ticks: u64,
    looks: u32,
    maps: Vec<Library>,
}

impl Libraries {
    pub fn of(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            processes: HashMap::new(),
            inside: Inside::new(),
            unasked: HashMap::new(),
            tick_ns: tick_ns(),
        }
    }

    /// All libraries that are mapped now, as far as is known.
    pub fn look(&mut self, look: Look<'_>) -> BTreeMap<FileKey, Library> {
        let pids = fs::read_dir(&self.proc).into_iter().flatten().filter_map(Result::ok);
        let pids: HashSet<u32> = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        self.processes.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            let Some(start_ticks) = start_ticks(&self.proc, pid) else {
                self.processes.remove(&pid);
                continue;
            };
            if self.processes.len() >= MOST_PROCESSES && !self.processes.contains_key(&pid) {
                continue;
            }
            let fresh = || Process { start_ticks, looks: 0, maps: Vec::new() };
            let process = self.processes.entry(pid).or_insert_with(fresh);
            if process.start_ticks != start_ticks {
                *process = fresh();
            }
            let is_read = match look {
                Look::Everybody => true,
                Look::At(these) => process.looks == 0 || these.contains(&pid),
                Look::Around => {
                    process.looks += 1;
                    // By number, so that not all old ones are looked at in one turn.
                    process.looks <= YOUNG_LOOKS || (process.looks + pid).is_multiple_of(YOUNG_LOOKS)
                }
            };
            if is_read {
                process.looks = process.looks.max(1);
                process.maps = mapped(&self.proc, pid, &self.inside, &mut self.unasked);
            }
        }
        // Whatever contains a library does not take the place of one.
        let all = |is_container: bool| {
            let all = self.processes.values().flat_map(|process| &process.maps);
            let of_kind = all.filter(move |library| (library.kind == Kind::Container) == is_container);
            let files: BTreeMap<FileKey, Library> = of_kind.map(|library| (library.key, library.clone())).collect();
            files.into_iter().take(MOST_FILES)
        };
        all(false).chain(all(true)).collect()
    }

    /// Asks one file what is inside, which may take a while: whether there was one, and who maps it if it is a library now.
    pub fn ask_one(&mut self) -> Option<Option<u32>> {
        let file = self.unasked.keys().next()?.clone();
        let (path, pid) = self.unasked.remove(&file)?;
        let is_one = match hooks::is_inside(&path) {
            Ok(is) => is,
            // Its process has ended; another may have it.
            Err(SymbolsError::Open(_)) => return Some(None),
            Err(SymbolsError::Elf(_) | SymbolsError::Numbers) => false,
        };
        if self.inside.len() >= MOST_ASKED {
            self.inside.clear();
        }
        self.inside.insert(file, is_one);
        Some(is_one.then_some(pid))
    }

    /// Processes that map NCCL, as far as is known.
    pub fn with_nccl(&self) -> impl Iterator<Item = u32> {
        let has_it = |process: &Process| process.maps.iter().any(|library| library.kind != Kind::Cuda);
        self.processes.iter().filter(move |(_, process)| has_it(process)).map(|(pid, _)| *pid)
    }

    pub fn has_thread(&self, pid: u32, tid: u32) -> bool {
        self.proc.join(format!("{pid}/task/{tid}")).exists()
    }

    /// CPU time of all threads, in user mode and in the kernel's, to the precision of `/proc`.
    pub fn cpu_ns(&self, pid: u32) -> Option<u64> {
        let [user, system] = stat(&self.proc, pid, [14, 15])?;
        Some(user.saturating_add(system).saturating_mul(self.tick_ns))
    }

    /// Whether the process that started then still runs; to the precision of `/proc`.
    pub fn is_alive(&self, pid: u32, start_boot_ns: u64) -> bool {
        let is_it = |start_ticks: u64| (start_ticks * self.tick_ns).abs_diff(start_boot_ns) <= 2 * self.tick_ns;
        // It may have begun since the last look.
        self.processes.get(&pid).is_some_and(|process| is_it(process.start_ticks))
            || start_ticks(&self.proc, pid).is_some_and(is_it)
    }
}

/// Fields of proc_pid_stat(5) by their numbers, from 3 on: after the name, in which there may be blanks and parentheses.
fn stat<const N: usize>(proc: &Path, pid: u32, numbers: [usize; N]) -> Option<[u64; N]> {
    let stat = fs::read(proc.join(pid.to_string()).join("stat")).ok()?;
    let after = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[after + 1..]).ok()?.split_ascii_whitespace().collect();
    let mut found = [0; N];
    for (found, number) in found.iter_mut().zip(numbers) {
        *found = fields.get(number.checked_sub(3)?)?.parse().ok()?;
    }
    Some(found)
}

/// When the process that has the number now started, not later than it did.
pub fn start_boot_ns(proc: &Path, pid: u32) -> Option<u64> {
    start_ticks(proc, pid).map(|ticks| ticks.saturating_mul(tick_ns()))
}

/// Of the times in `/proc`.
fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

fn start_ticks(proc: &Path, pid: u32) -> Option<u64> {
    stat(proc, pid, [22]).map(|[start]| start)
}

fn mapped(proc: &Path, pid: u32, inside: &Inside, unasked: &mut HashMap<Box<[u8]>, (PathBuf, u32)>) -> Vec<Library> {
    let directory = proc.join(pid.to_string());
    let Ok(maps) = File::open(directory.join("maps")) else { return Vec::new() };
    let lines = BufReader::new(maps).split(b'\n').map_while(Result::ok).take(MOST_LINES);
    let mut seen = HashSet::new();
    let is_new = |mapping: &Mapping| seen.len() < MOST_MAPPED && seen.insert(mapping.file.clone());
    let mappings: Vec<Mapping> = lines.filter_map(|line| code(&line)).filter(is_new).collect();
    // Who has NCCL or the runtime inside has loaded the driver.
    let has_driver = mappings.iter().any(|mapping| mapping.kind == Kind::Cuda);
    let mut found: Vec<Library> = Vec::new();
    for Mapping { range, file, name, kind } in mappings {
        let path = directory.join("map_files").join(range);
        match inside.get(&file) {
            _ if kind != Kind::Container => {}
            Some(true) => {}
            None if has_driver && unasked.len() < MOST_ASKED => {
                unasked.insert(file, (path, pid));
                continue;
            }
            _ => continue,
        }
        // Opened, so that what is asked is the file and not the name.
        let Some(key) = File::open(&path).ok().and_then(|file| FileKey::of(&file)) else { continue };
        if found.iter().all(|known| known.key != key) {
            found.push(Library { key, path, name, kind });
        }
    }
    found
}

/// A line of `maps` that is code of a file.
struct Mapping {
    /// As `map_files` spells it.
    range: String,
    /// Device, inode and name, as they stand there.
    file: Box<[u8]>,
    name: String,
    kind: Kind,
}

fn code(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let (range, permissions, _) = (fields.next()?, fields.next()?, fields.next()?);
    let (device, inode) = (fields.next()?, fields.next()?);
    let path = fields.next()?.trim_ascii_start();
    let file = [device, inode, path].join(&b' ').into_boxed_slice();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    if permissions.get(2) != Some(&b'x') || !path.starts_with(b"/") {
        return None;
    }
    let (start, end) = std::str::from_utf8(range).ok()?.split_once('-')?;
    let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).ok());
    Some(Mapping {
        range: format!("{:x}-{:x}", start?, end?),
        file,
        name: String::from_utf8_lossy(path).into_owned(),
        kind: kind(path).unwrap_or(Kind::Container),
    })
}

/// Whose library a path is of, if it is one's.
pub fn kind(path: &[u8]) -> Option<Kind> {
    let name = path.rsplit(|&byte| byte == b'/').next()?;
    let kinds = [(&b"libcuda.so"[..], Kind::Cuda), (b"libcudart.so", Kind::Cuda), (b"libnccl.so", Kind::Nccl)];
    kinds.into_iter().find(|(start, _)| name.starts_with(start)).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expect: Option<(&str, &str)>) {
        let found = code(line.as_bytes()).filter(|mapping| mapping.kind != Kind::Container);
        assert_eq!(found.as_ref().map(|mapping| (mapping.range.as_str(), mapping.name.as_str())), expect);
    }

    #[test]
    fn code_of_a_file_that_is_named_as_the_driver_is_the_drivers() {
        let at = "7f0000001000-7f0000002000";
        let file = "/usr/lib/x86_64-linux-gnu/libcuda.so.570.86";
        check(&format!("{at} r-xp 00001000 fe:01 77    {file}"), Some((at, file)));
        check(&format!("{at} r-xp 00001000 fe:01 77    {file} (deleted)"), Some((at, file)));
        let nccl = "/env/site-packages/nvidia/nccl/lib/libnccl.so.2";
        check(&format!("{at} r-xp 00001000 fe:01 77    {nccl}"), Some((at, nccl)));
        let runtime = "/env/site-packages/nvidia/cuda_runtime/lib/libcudart.so.12";
        check(&format!("{at} r-xp 00001000 fe:01 77    {runtime}"), Some((at, runtime)));
        check(&format!("{at} r-xp 00001000 fe:01 77    /a dir/libcuda.so.1"), Some((at, "/a dir/libcuda.so.1")));
        check("00400000-00401000 r-xp 00000000 fe:01 77 /libcuda.so", Some(("400000-401000", "/libcuda.so")));
    }

    #[test]
    fn what_is_no_code_no_file_or_of_another_name_is_not() {
        let at = "7f0000001000-7f0000002000";
        check(&format!("{at} r--p 00001000 fe:01 77    /usr/lib/libcuda.so.1"), None);
        check(&format!("{at} r-xp 00001000 fe:01 77    /usr/lib/libcublas.so.12"), None);
        check(&format!("{at} r-xp 00001000 fe:01 77    /usr/lib/libcuda.so.1/other"), None);
        check(&format!("{at} r-xp 00000000 00:00 0     libcuda.so"), None);
        check(&format!("{at} r-xp 00000000 00:00 0 "), None);
        check("", None);
        check("x-y r-xp 0 0:0 7 /libcuda.so", None);
    }

    /// A process of a `/proc` of ours, which has this file mapped from now on.
    fn maps(proc: &Path, pid: u32, library: &Path) {
        let directory = proc.join(pid.to_string());
        fs::create_dir_all(directory.join("map_files")).unwrap();
        fs::write(directory.join("stat"), format!("{pid} (x) S{}", " 0".repeat(40))).unwrap();
        let line = format!("1000-2000 r-xp 00001000 fe:01 77    {}\n", library.display());
        fs::write(directory.join("maps"), line).unwrap();
        let _ = fs::remove_file(directory.join("map_files/1000-2000"));
        std::os::unix::fs::symlink(library, directory.join("map_files/1000-2000")).unwrap();
    }

    #[test]
    fn an_old_process_is_looked_at_again_when_it_is_news() {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("libcuda.so.1");
        fs::write(&library, "").unwrap();
        let proc = directory.path().join("proc");
        maps(&proc, 1000, Path::new("/nothing"));
        let mut libraries = Libraries::of(&proc);
        // Up to a look after which it is not its turn.
        for _ in 0..=YOUNG_LOOKS {
            assert!(libraries.look(Look::Around).is_empty());
        }
        maps(&proc, 1000, &library);
        assert!(libraries.look(Look::Around).is_empty());
        assert!(libraries.look(Look::At(&HashSet::from([1001]))).is_empty());
        assert_eq!(libraries.look(Look::At(&HashSet::from([1000]))).len(), 1);
        assert_eq!(libraries.look(Look::Around).len(), 1);
    }

    #[test]
    fn files_that_contain_libraries_are_asked_once_and_do_not_take_the_place_of_one() {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("libcuda.so.1");
        fs::write(&library, "").unwrap();
        let proc = directory.path().join("proc");
        maps(&proc, 1000, &library);
        let mut libraries = Libraries::of(&proc);
        assert_eq!((libraries.look(Look::Around).len(), libraries.ask_one()), (1, None));
        let other = directory.path().join("other");
        fs::write(&other, "no ELF file").unwrap();
        let line = format!("3000-4000 r-xp 00001000 fe:01 78    {}\n", other.display());
        let maps = proc.join("1000/maps");
        fs::write(&maps, fs::read_to_string(&maps).unwrap() + &line).unwrap();
        std::os::unix::fs::symlink(&other, proc.join("1000/map_files/3000-4000")).unwrap();
        libraries.look(Look::Everybody);
        assert_eq!((libraries.ask_one(), libraries.ask_one()), (Some(None), None));
        libraries.look(Look::Everybody);
        assert_eq!(libraries.ask_one(), None);
    }

    #[test]
    fn this_process_is_alive_and_no_other_of_its_number() {
        let mut libraries = Libraries::of(Path::new("/proc"));
        let pid = std::process::id();
        let start_boot_ns = start_boot_ns(Path::new("/proc"), pid).unwrap_or_default();
        for _ in 0..2 {
            assert!(libraries.is_alive(pid, start_boot_ns));
            assert!(!libraries.is_alive(pid, start_boot_ns + 1_000_000_000));
            libraries.look(Look::Around);
        }
    }
}
