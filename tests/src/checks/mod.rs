//! What the kernel programs must see, on every rung and every kernel.
//!
//! Each check has a sentence for a name, does one thing to the kernel, and compares every field of the event with what
//! `/proc`, `stat` and the sockets say.

pub mod container;
mod decide;
pub mod deny;
mod network;
pub mod own;
mod process;
mod uprobes;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use plumbline::{
    event::{Event, FileOpen, Task, What},
    identity::procfs::{Processes as _, Procfs},
    probes::{
        HookVerdict,
        hooks::{HOOKS, Hook, Rung},
    },
};
use plumbline_ebpf::program;

use crate::{
    bench::{Bench, Limits, Outcome},
    bypass,
};

const RING_BYTES: u32 = 1 << 20;

/// How a check ended.
#[derive(Debug)]
pub enum Ended {
    Ok,
    NotOk(String),
    /// The kernel refuses what the check is about.
    Skipped(String),
    /// The machine lacks something that the check needs.
    NotRun(String),
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self::NotOk(why)
    }
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        outcome.map_or_else(Self::NotOk, |()| Self::Ok)
    }
}

/// Runs every check that this kernel allows; `told` hears each name and outcome.
pub fn run(scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    for rung in Hook::find("file_open").map_or(&[][..], |hook| hook.rungs) {
        files(rung, scratch, told);
    }
    connections_and_processes("best rungs", &[], scratch, told);
    let raw: Vec<(&str, &str)> =
        ["tcp_connect", "fork", "exec", "exit"].into_iter().map(|hook| (hook, "raw_tp")).collect();
    connections_and_processes("raw_tp", &raw, scratch, told);
    denying(scratch, told);
    own::run(told);
    bypass::run(&scratch.join("ways"), told);
    for rung in Hook::find("udp_connect").map_or(&[][..], |hook| hook.rungs) {
        udp_sockets(rung, told);
    }
    uprobes::run(told);
}

/// What policies deny.
pub fn denying(scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    told("the kernel denies what the reference says, and nothing else", decide::equals_the_reference().into());
    deny::run(&scratch.join("deny"), told);
}

/// One hook on one rung, and no other: they would only make the start slower, by seconds in an emulated machine.
fn only<'a>(hook: &'a str, rung: &'a Rung) -> Vec<(&'a str, &'a str)> {
    let off = HOOKS.iter().filter(|other| other.name != hook).map(|other| (other.name, "off"));
    off.chain([(hook, rung.name)]).collect()
}

/// Starts the bench with one hook on one rung; what the kernel refuses is skipped with its reason.
fn on_rung(hook: &str, rung: &Rung) -> Result<Bench, Ended> {
    let bench = Bench::start(&only(hook, rung), RING_BYTES, None).map_err(Ended::NotOk)?;
    let verdict = bench.verdicts().iter().find(|verdict| verdict.hook.name == hook);
    match verdict {
        Some(verdict) if verdict.attached().is_none() => {
            let refusal = verdict.refused.iter().find(|refusal| refusal.rung == rung.name);
            Err(Ended::Skipped(refusal.map_or_else(|| "unknown".to_owned(), |refusal| refusal.reason.clone())))
        }
        _ => Ok(bench),
    }
}

fn files(rung: &Rung, scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    let bench = match on_rung("file_open", rung) {
        Ok(bench) => bench,
        Err(ended) => return told(&format!("file opens are told ({})", rung.name), ended),
    };
    let mut tell = |name: &str, outcome: Outcome| told(&format!("{name} ({})", rung.name), outcome.into());
    let mut files = Files { bench, scratch: scratch.join(rung.name) };
    tell("an open below a watched directory is told with who, what and where", files.an_open_is_told());
    tell("an open through a hugging face symlink is told with its blob", files.a_symlink_is_followed());
    tell("a name that is not utf-8 is told byte for byte", files.a_name_that_is_not_utf8());
    tell("a path of forty directories is told whole", files.a_deep_path());
    tell("a file system mounted below a watched directory is watched too", files.a_mount_below());
    tell("an open of a gpu's device node is told", files.a_gpu());
    tell("an open beside a watched directory is not told", files.an_open_elsewhere());
    let scratch = files.scratch.clone();
    drop(files);
    tell("every open is received or counted as lost", every_open_is_accounted_for(rung, &scratch));
    tell("a flood of one cgroup is held back, counted and told", a_flood_is_held_back(rung, &scratch));
}

fn connections_and_processes(which: &str, rungs: &[(&str, &str)], scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    let mut bench = match Bench::start(rungs, RING_BYTES, None) {
        Ok(bench) => bench,
        Err(why) => return told(&format!("the programs load ({which})"), Ended::NotOk(why)),
    };
    for verdict in bench.verdicts() {
        println!("# {}: {}", verdict.hook.name, verdict.describe());
    }
    let mut tell = |name: &str, outcome: Outcome| told(&format!("{name} ({which})"), outcome.into());
    tell("every hook found a rung", every_hook_attached(&bench));
    tell("no program is near the limit of the verifier", far_from_the_limit(&mut bench));
    tell("a tcp connection over ipv4 is told", network::tcp(&mut bench, Ipv4Addr::LOCALHOST.into()));
    tell("a tcp connection over ipv6 is told", network::tcp(&mut bench, Ipv6Addr::LOCALHOST.into()));
    tell("a v4-mapped ipv6 connection is told as ipv4", network::v4_mapped(&mut bench));
    tell("a refused connection is told too", network::refused(&mut bench));
    tell("the end of a connection tells its outcome and the bytes each way", network::bytes_each_way(&mut bench));
    tell("fork, exec and exit are told with lineage", process::life_of_a_process(&mut bench));
    tell(
        "a program without a name is told as such, long arguments are cut and said to be",
        process::a_program_without_a_name(&mut bench),
    );
    tell("the iterator finds this process", process::iterator(&mut bench));
    tell("every hook that a canary can prove tells of it, and rightly", canary(&mut bench, &scratch.join(which)));
    let contained = container::is_told_with_its_pod(&mut bench, &scratch.join("container").join(which));
    let name = "what a container of crun does is told with its pod, its container and its own path";
    told(&format!("{name} ({which})"), contained.err().unwrap_or(Ended::Ok));
}

fn canary(bench: &mut Bench, directory: &Path) -> Outcome {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let found = bench.canary(directory)?;
    let silent = HOOKS.iter().filter(|hook| found.silent & 1 << hook.program != 0).map(|hook| hook.name);
    same("silent", &silent.collect(), &Vec::<&str>::new())?;
    same("wrong", &found.wrong, &BTreeMap::new())
}

fn udp_sockets(rung: &Rung, told: &mut dyn FnMut(&str, Ended)) {
    let name = |ip: &str| format!("a connected udp socket over {ip} is told ({})", rung.name);
    let mut bench = match on_rung("udp_connect", rung) {
        Ok(bench) => bench,
        Err(ended) => return told(&name("ip"), ended),
    };
    told(&name("ipv4"), network::udp(&mut bench, Ipv4Addr::LOCALHOST.into()).into());
    told(&name("ipv6"), network::udp(&mut bench, Ipv6Addr::LOCALHOST.into()).into());
}

/// File checks share the programs and a directory.
struct Files {
    bench: Bench,
    scratch: PathBuf,
}

impl Files {
    /// Watches `models` and nothing else.
    fn watched(&mut self) -> Result<PathBuf, String> {
        let directory = self.scratch.join("models");
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        self.bench.watch(&directory)?;
        Ok(directory)
    }

    fn an_open_is_told(&mut self) -> Outcome {
        let directory = self.watched()?;
        let path = directory.join("llama.safetensors");
        fs::write(&path, vec![7; 12_345]).map_err(|error| error.to_string())?;
        self.bench.drain();
        let _file = File::open(&path).map_err(|error| error.to_string())?;
        let (task, open) = self.bench.expect("the open", own_open)?;
        let meta = fs::metadata(&path).map_err(|error| error.to_string())?;
        same("path", &open.path, &path.as_os_str().as_bytes().to_vec())?;
        same("inode", &open.key.ino, &meta.ino())?;
        same("device", &u64::from(open.key.dev), &kernel_device(meta.dev()))?;
        same("size", &open.size_bytes, &meta.len())?;
        same("links", &u64::from(open.links), &meta.nlink())?;
        same("mode", &open.inode_mode, &meta.mode())?;
        same("access mode", &(open.flags & 3), &0)?;
        let watched = fs::metadata(&directory).map_err(|error| error.to_string())?;
        same("watched inode", &open.watched.ino, &watched.ino())?;
        same("truncated", &open.path_truncated, &false)?;
        this_task(&task)
    }

    fn a_symlink_is_followed(&mut self) -> Outcome {
        let directory = self.watched()?;
        let repository = directory.join("models--org--name");
        let (blobs, snapshot) = (repository.join("blobs"), repository.join("snapshots/0123"));
        fs::create_dir_all(&blobs).and_then(|()| fs::create_dir_all(&snapshot)).map_err(|error| error.to_string())?;
        let blob = blobs.join("5d0f1b2c");
        fs::write(&blob, b"weights").map_err(|error| error.to_string())?;
        let link = snapshot.join("model.safetensors");
        let _ = fs::remove_file(&link);
        symlink("../../blobs/5d0f1b2c", &link).map_err(|error| error.to_string())?;
        self.bench.drain();
        let _file = File::open(&link).map_err(|error| error.to_string())?;
        let (_, open) = self.bench.expect("the open", own_open)?;
        same("path", &open.path, &blob.as_os_str().as_bytes().to_vec())
    }

    fn a_name_that_is_not_utf8(&mut self) -> Outcome {
        let directory = self.watched()?;
        let path = directory.join(std::ffi::OsStr::from_bytes(b"we\xffights\n\x1b[31m.bin"));
        fs::write(&path, b"x").map_err(|error| error.to_string())?;
        self.bench.drain();
        let _file = File::open(&path).map_err(|error| error.to_string())?;
        let (_, open) = self.bench.expect("the open", own_open)?;
        same("path", &open.path, &path.as_os_str().as_bytes().to_vec())
    }

    fn a_deep_path(&mut self) -> Outcome {
        // The kernel program compares 32 directories with the watched ones; the watched one lies within them.
        let deep = (0..15).fold(self.scratch.join("deep"), |path, level| path.join(format!("level-{level}")));
        let watched = deep.join("models");
        let inner = (0..25).fold(watched.clone(), |path, level| path.join(format!("inner-{level}")));
        fs::create_dir_all(&inner).map_err(|error| error.to_string())?;
        self.bench.watch(&watched)?;
        let path = inner.join("x.gguf");
        fs::write(&path, b"x").map_err(|error| error.to_string())?;
        self.bench.drain();
        let _file = File::open(&path).map_err(|error| error.to_string())?;
        let (_, open) = self.bench.expect("the open", own_open)?;
        same("path", &open.path, &path.as_os_str().as_bytes().to_vec())?;
        same("truncated", &open.path_truncated, &false)
    }

    /// A node by the name of a GPU's, which is the null device: any driver's own would need the GPU.
    fn a_gpu(&mut self) -> Outcome {
        self.watched()?;
        let path = self.scratch.join("nvidia0");
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let _ = fs::remove_file(&path);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::CharacterDevice,
            mode,
            rustix::fs::makedev(1, 3),
        )
        .map_err(|error| error.to_string())?;
        self.bench.drain();
        let _device = File::open(&path).map_err(|error| error.to_string())?;
        let wanted = path.as_os_str().as_bytes().to_vec();
        let open = self.bench.expect("the device", |event| match &event.what {
            What::DeviceOpen(open) if open.path == wanted => Some(open.clone()),
            _ => None,
        })?;
        same("kind", &open.kind.as_str(), &"gpu_device")
    }

    fn a_mount_below(&mut self) -> Outcome {
        let directory = self.watched()?;
        let mounted = directory.join("mounted");
        fs::create_dir_all(&mounted).map_err(|error| error.to_string())?;
        rustix::mount::mount("tmpfs", &mounted, "tmpfs", rustix::mount::MountFlags::empty(), None)
            .map_err(|error| error.to_string())?;
        let outcome = (|| {
            let path = mounted.join("x.gguf");
            fs::write(&path, b"x").map_err(|error| error.to_string())?;
            self.bench.drain();
            let _file = File::open(&path).map_err(|error| error.to_string())?;
            let (_, open) = self.bench.expect("the open", own_open)?;
            same("path", &open.path, &path.as_os_str().as_bytes().to_vec())
        })();
        rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::DETACH).map_err(|error| error.to_string())?;
        outcome
    }

    fn an_open_elsewhere(&mut self) -> Outcome {
        let directory = self.watched()?;
        let beside = directory.with_file_name("models-not");
        fs::create_dir_all(&beside).map_err(|error| error.to_string())?;
        fs::write(beside.join("x"), b"x").map_err(|error| error.to_string())?;
        let _directory_itself = File::open(&directory).map_err(|error| error.to_string())?;
        let _file = File::open(beside.join("x")).map_err(|error| error.to_string())?;
        self.bench.expect_none("an open outside", |event| own_open(event).is_some())
    }
}

fn every_open_is_accounted_for(rung: &Rung, scratch: &Path) -> Outcome {
    const OPENS: u64 = 2_000;
    let directory = scratch.join("models");
    let path = directory.join("flood");
    fs::write(&path, b"x").map_err(|error| error.to_string())?;
    // One page holds a dozen records and nobody takes them: most of the flood is lost, and all of that is counted.
    let limits = Limits { ring_bytes: 4096, queue: 1, ..Limits::default() };
    let mut bench = Bench::start_with(&only("file_open", rung), limits, Some(&directory))?;
    bench.drain();
    let before = bench.counted(program::FILE_OPEN)?;
    bench.losses()?;
    for _ in 0..OPENS {
        let _file = File::open(&path).map_err(|error| error.to_string())?;
    }
    let received = bench.drain().iter().filter(|event| own_open(event).is_some()).count() as u64;
    let after = bench.counted(program::FILE_OPEN)?;
    let (generated, lost) = (after.generated - before.generated, after.ring_full - before.ring_full);
    same("generated", &generated, &OPENS)?;
    same("some were lost", &(lost > 0), &true)?;
    same("received and lost", &(received + lost), &OPENS)?;
    let losses = bench.losses()?;
    let of = |place: &str| losses.iter().filter(|loss| loss.place == place).map(|loss| loss.count).sum::<u64>();
    same("told as lost", &of("ring"), &lost)?;
    // The numbers of the records tell of the same holes.
    same("holes that nothing explains", &of("sequence"), &0)
}

fn a_flood_is_held_back(rung: &Rung, scratch: &Path) -> Outcome {
    const OPENS: u64 = 1_000;
    let directory = scratch.join("models");
    let path = directory.join("flood");
    fs::write(&path, b"x").map_err(|error| error.to_string())?;
    let limits = Limits { records_per_second: 50, ..Limits::default() };
    let mut bench = Bench::start_with(&only("file_open", rung), limits, Some(&directory))?;
    bench.drain();
    bench.losses()?;
    for _ in 0..OPENS {
        let _file = File::open(&path).map_err(|error| error.to_string())?;
    }
    let events = bench.drain();
    let received = events.iter().filter(|event| own_open(event).is_some()).count() as u64;
    let losses = bench.losses()?;
    let held_back: u64 = losses.iter().filter(|loss| loss.place == "rate").map(|loss| loss.count).sum();
    same("received and held back", &(received + held_back), &OPENS)?;
    same("some were received", &(received >= 50), &true)?;
    same("some were held back", &(held_back > 0), &true)?;
    let cgroup_id = events.iter().find_map(own_open).map(|(task, _)| task.cgroup_id);
    same("the cgroup is named", &losses.iter().all(|loss| loss.place != "rate" || loss.cgroup_id == cgroup_id), &true)
}

fn every_hook_attached(bench: &Bench) -> Outcome {
    same("hooks", &bench.verdicts().len(), &HOOKS.len())?;
    let off: Vec<String> = bench
        .verdicts()
        .iter()
        .filter(|verdict| verdict.is_blind() && !refused_by_this_machine(verdict))
        .map(|verdict| format!("{}: {}", verdict.hook.name, verdict.describe()))
        .collect();
    if off.is_empty() { Ok(()) } else { Err(off.join("; ")) }
}

/// A program that is nearly too large loads here and not on the kernel of next year.
fn far_from_the_limit(bench: &mut Bench) -> Outcome {
    const LIMIT: u32 = 1_000_000;
    let walked = bench.probes().verified_instructions();
    let most = walked.iter().max_by_key(|(_, count)| **count);
    println!("# the verifier walked {most:?} at most, of {} programs", walked.len());
    let near: Vec<_> = walked.iter().filter(|(_, count)| **count > LIMIT / 2).collect();
    if near.is_empty() { Ok(()) } else { Err(format!("{near:?} of {LIMIT}")) }
}

/// Some machines refuse every program of a type; there is no other way for some hooks.
fn refused_by_this_machine(verdict: &HookVerdict) -> bool {
    verdict.refused.iter().all(|refusal| refusal.by_kernel && refusal.reason.contains("not permitted"))
}

/// The event's file open, when this very thread did it and it was a file.
fn own_open(event: &Event) -> Option<(Task, FileOpen)> {
    match (&event.what, &event.task) {
        (What::FileOpen(open), Some(task)) if is_me(task) => Some((task.clone(), open.clone())),
        _ => None,
    }
}

fn is_me(task: &Task) -> bool {
    task.pid == std::process::id()
}

/// Every field of the task against what `/proc` says of this thread.
fn this_task(task: &Task) -> Outcome {
    same("tid", &u64::from(task.tid), &thread_id())?;
    this_process(task)
}

fn this_process(task: &Task) -> Outcome {
    let seen = Procfs::default().look(task.pid, task.start_boot_ns);
    same("start time against /proc/self/stat", &seen.is_some(), &true)?;
    same("uid", &task.uid, &rustix::process::getuid().as_raw())?;
    same("gid", &task.gid, &rustix::process::getgid().as_raw())?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    same("ppid", &task.ppid, &parent)?;
    for (name, number) in [("mnt", task.namespaces.mnt), ("net", task.namespaces.net), ("pid", task.namespaces.pid)] {
        let meta = fs::metadata(format!("/proc/self/ns/{name}")).map_err(|error| error.to_string())?;
        same(&format!("{name} namespace"), &u64::from(number), &meta.ino())?;
    }
    let root = plumbline::probes::kernel::cgroup2_root().map_err(|error| error.to_string())?;
    let lines = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let path = lines.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no v2 line in /proc/self/cgroup")?;
    let cgroup = fs::metadata(root.join(path)).map_err(|error| error.to_string())?;
    same("cgroup id", &task.cgroup_id, &cgroup.ino())
}

fn thread_id() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs().into()
}

/// `stat`'s device number in the kernel's own encoding.
fn kernel_device(dev: u64) -> u64 {
    u64::from(rustix::fs::major(dev)) << 20 | u64::from(rustix::fs::minor(dev))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}
