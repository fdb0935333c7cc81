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

/// Different files that are drivers: more than a node of many containers with drivers of their own has.
const MOST_FILES: usize = 64;

/// Files of another name that were asked what is inside.
const MOST_ASKED: usize = 8192;

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

/// Device and inode as `stat(2)` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    pub device: u64,
    pub inode: u64,
}

/// What is known of the node's processes.
#[derive(Debug)]
pub struct Libraries {
    proc: PathBuf,
    processes: HashMap<u32, Process>,
    inside: Inside,
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
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        Self { proc: proc.to_owned(), processes: HashMap::new(), inside: Inside::new(), tick_ns }
    }

    /// All drivers that are mapped now, as far as is known.
    pub fn look(&mut self) -> BTreeMap<FileKey, Library> {
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
            process.looks += 1;
            // By number, so that not all old ones are looked at in one turn.
            if process.looks <= YOUNG_LOOKS || (process.looks + pid).is_multiple_of(YOUNG_LOOKS) {
                process.maps = mapped(&self.proc, pid, &mut self.inside);
            }
        }
        let all = self.processes.values().flat_map(|process| &process.maps);
        let mut files: BTreeMap<FileKey, Library> = all.map(|library| (library.key, library.clone())).collect();
        while files.len() > MOST_FILES {
            files.pop_last();
        }
        files
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

fn start_ticks(proc: &Path, pid: u32) -> Option<u64> {
    stat(proc, pid, [22]).map(|[start]| start)
}

fn mapped(proc: &Path, pid: u32, inside: &mut Inside) -> Vec<Library> {
    let directory = proc.join(pid.to_string());
    let Ok(maps) = File::open(directory.join("maps")) else { return Vec::new() };
    let lines = BufReader::new(maps).split(b'\n').map_while(Result::ok).take(MOST_LINES);
    let mappings: Vec<Mapping> = lines.filter_map(|line| code(&line)).collect();
    // Who has NCCL or the runtime inside has loaded the driver.
    let has_driver = mappings.iter().any(|mapping| mapping.kind == Kind::Cuda);
    let mut found: Vec<Library> = Vec::new();
    for Mapping { range, file, name, kind } in mappings {
        let path = directory.join("map_files").join(range);
        if kind == Kind::Container && !(has_driver && is_container(&path, file, inside)) {
            continue;
        }
        // Opened, so that what is asked is the file and not the name.
        let Ok(file) = File::open(&path).and_then(|file| file.metadata()) else { continue };
        let key = FileKey { device: file.dev(), inode: file.ino() };
        if file.is_file() && found.iter().all(|known| known.key != key) {
            found.push(Library { key, path, name, kind });
        }
    }
    found
}

/// Asked once for each file, as long as it can be read.
fn is_container(path: &Path, file: Box<[u8]>, inside: &mut Inside) -> bool {
    if let Some(known) = inside.get(&file) {
        return *known;
    }
    if inside.len() >= MOST_ASKED {
        inside.clear();
    }
    let is = match hooks::is_inside(path) {
        Ok(is) => is,
        Err(SymbolsError::Open(_)) => return false,
        Err(SymbolsError::Elf(_)) => false,
    };
    inside.insert(file, is);
    is
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

    #[test]
    fn this_process_is_alive_and_no_other_of_its_number() {
        let mut libraries = Libraries::of(Path::new("/proc"));
        let pid = std::process::id();
        let start_boot_ns = start_ticks(Path::new("/proc"), pid).map_or(0, |ticks| ticks * libraries.tick_ns);
        for _ in 0..2 {
            assert!(libraries.is_alive(pid, start_boot_ns));
            assert!(!libraries.is_alive(pid, start_boot_ns + 1_000_000_000));
            libraries.look();
        }
    }
}
