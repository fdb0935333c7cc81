//! The kernel programs from the agent's side: loading, the ladder of rungs, and the verdict per hook.
//!
//! Programs are loaded and attached one by one; one that fails never takes another down, and says why. Dropping
//! [`Probes`] detaches everything.

pub mod btf;
pub mod decode;
pub mod hooks;
pub mod kernel;
pub mod ntp;
mod offsets;
pub mod sensor;
mod tasks;
#[cfg(feature = "trace")]
mod trace;
pub mod watch;

use std::{
    collections::BTreeMap, fs, fs::File, os::fd::AsFd as _, os::fd::AsRawFd as _, os::unix::fs::MetadataExt as _,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FEntry, Lsm, ProgramError, RawTracePoint},
};
use plumbline_ebpf::program;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zerocopy::IntoBytes as _;

use self::{
    btf::Btf,
    hooks::{Attach, HOOKS, Hook, Rung},
    kernel::KernelFacts,
};

/// The object with every kernel program; empty when the agent was built without one.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/plumbline.bpf.o"));

/// What the user may say about the kernel programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbesConfig {
    /// Size of the ring for opens and connections, bytes; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Rungs to use instead of the best that works, by hook: `file_open: tp_btf`, or `off`.
    pub rungs: BTreeMap<String, String>,
}

/// 4 MiB hold about 20,000 opens with their paths: a second of a busy loader, while the log waits for its disk.
const DEFAULT_RING_BYTES: u32 = 4 << 20;

/// One page.
const MIN_RING_BYTES: u32 = 4096;

impl Default for ProbesConfig {
    fn default() -> Self {
        Self { ring_bytes: DEFAULT_RING_BYTES, rungs: BTreeMap::new() }
    }
}

/// Why no kernel program runs at all.
#[derive(Debug, Error)]
pub enum ProbesError {
    #[error("this binary was built without kernel programs; build it with `cargo xtask build`")]
    NoObject,
    #[error("the kernel's type information is not readable ({0}); the offsets of its fields are unknown without it")]
    NoBtf(String),
    #[error("the kernel refused the programs' maps")]
    Load(#[source] Box<aya::EbpfError>),
    #[error("map {0} is missing from the object")]
    NoMap(&'static str),
    #[error("map {0} cannot be used")]
    Map(&'static str, #[source] Box<aya::maps::MapError>),
    #[error(
        "the file-open program did not see the daemon's own open of {}; in a container, the daemon needs the host's pid \
         namespace", .0.display()
    )]
    NoAnswer(std::path::PathBuf),
    #[error("`probes.ring_bytes` is {0}; expected a power of two, at least {MIN_RING_BYTES}")]
    RingBytes(u32),
    #[error("unknown hook or rung in `probes.rungs`: {0}")]
    UnknownRung(String),
}

/// How one hook fared.
#[derive(Debug, Clone)]
pub struct HookVerdict {
    pub hook: &'static Hook,
    pub attached: Option<&'static Rung>,
    /// The rungs tried before, each with the reason that the kernel or we gave.
    pub refused: Vec<(&'static str, String)>,
}

impl HookVerdict {
    /// `attached (tp_btf)` or `off: fentry: …; tp_btf: …`.
    pub fn describe(&self) -> String {
        let refused =
            self.refused.iter().map(|(rung, reason)| format!("{rung}: {reason}")).collect::<Vec<_>>().join("; ");
        match self.attached {
            Some(rung) if refused.is_empty() => format!("attached ({})", rung.name),
            Some(rung) => format!("attached ({}); refused {refused}", rung.name),
            None => format!("off: {refused}"),
        }
    }
}

/// The loaded object and its attachments.
#[derive(Debug)]
pub struct Probes {
    ebpf: Ebpf,
    pub verdicts: Vec<HookVerdict>,
    btf: aya::Btf,
}

/// What the kernel counted for one program on one CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub generated: u64,
    pub ring_full: u64,
}

impl Probes {
    /// Loads the object and climbs every hook's ladder.
    pub fn load(config: &ProbesConfig, facts: &KernelFacts) -> Result<Self, ProbesError> {
        if OBJECT.is_empty() {
            return Err(ProbesError::NoObject);
        }
        let forced = forced_rungs(config)?;
        if !config.ring_bytes.is_power_of_two() || config.ring_bytes < MIN_RING_BYTES {
            return Err(ProbesError::RingBytes(config.ring_bytes));
        }
        let bytes = fs::read(btf::VMLINUX).map_err(|error| ProbesError::NoBtf(error.to_string()))?;
        let types = Btf::parse(bytes).map_err(|error| ProbesError::NoBtf(error.to_string()))?;
        let resolved = offsets::resolve(&types);
        let btf = aya::Btf::from_sys_fs().map_err(|error| ProbesError::NoBtf(error.to_string()))?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("OFFSETS", resolved.offsets.as_bytes(), true)
            .map_max_entries("EVENTS", config.ring_bytes)
            .load(OBJECT)
            .map_err(|error| ProbesError::Load(Box::new(error)))?;

        #[cfg(feature = "trace")]
        trace::start(&mut ebpf);
        let verdicts = HOOKS
            .iter()
            .map(|hook| {
                let mut verdict = HookVerdict { hook, attached: None, refused: Vec::new() };
                for rung in hook.rungs {
                    let wanted = forced.get(hook.name).is_none_or(|&name| name == rung.name);
                    let tried = if wanted {
                        precheck(hook, rung, &types, &resolved, facts).and_then(|()| attach(&mut ebpf, rung, &btf))
                    } else {
                        Err("not wanted by `probes.rungs`".to_owned())
                    };
                    match tried {
                        Ok(()) => {
                            verdict.attached = Some(rung);
                            break;
                        }
                        Err(reason) => verdict.refused.push((rung.name, reason)),
                    }
                }
                verdict
            })
            .collect();
        Ok(Self { ebpf, verdicts, btf })
    }

    /// Nothing attached: there is nothing to wait for.
    pub fn is_useless(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.attached.is_none())
    }

    /// Takes a ring out; it can be taken once.
    fn take_ring(&mut self, name: &'static str) -> Result<RingBuf<MapData>, ProbesError> {
        let map = self.ebpf.take_map(name).ok_or(ProbesError::NoMap(name))?;
        RingBuf::try_from(map).map_err(|error| ProbesError::Map(name, Box::new(error)))
    }

    /// The kernel's counters, per program and CPU.
    pub fn counted(&self) -> Result<Vec<Vec<Counted>>, ProbesError> {
        const NAME: &str = "COUNTERS";
        let error = |error| ProbesError::Map(NAME, Box::new(error));
        let map = self.ebpf.map(NAME).ok_or(ProbesError::NoMap(NAME))?;
        let array: PerCpuArray<_, [u64; 2]> = PerCpuArray::try_from(map).map_err(error)?;
        (0..program::COUNT)
            .map(|number| {
                let values = array.get(&number, 0).map_err(error)?;
                Ok(values.iter().map(|&[generated, ring_full]| Counted { generated, ring_full }).collect())
            })
            .collect()
    }

    /// Times that the kernel skipped an attached program because it was running already on that CPU, from
    /// `recursion_misses` of `/proc/self/fdinfo` (5.12 and later; 0 before). Per hook.
    pub fn recursion_misses(&self) -> Vec<(&'static Hook, u64)> {
        let misses = |name: &str| -> Option<u64> {
            let fd = self.ebpf.program(name)?.fd().ok()?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
        };
        self.verdicts
            .iter()
            .filter_map(|verdict| Some((verdict.hook, verdict.attached?)))
            .map(|(hook, rung)| (hook, rung.programs.iter().filter_map(|name| misses(name)).sum()))
            .collect()
    }
}

fn forced_rungs(config: &ProbesConfig) -> Result<BTreeMap<&str, &str>, ProbesError> {
    for (name, rung) in &config.rungs {
        let known = Hook::find(name).is_some_and(|hook| rung == "off" || hook.rungs.iter().any(|row| row.name == rung));
        if !known {
            return Err(ProbesError::UnknownRung(format!("{name}: {rung}")));
        }
    }
    Ok(config.rungs.iter().map(|(hook, rung)| (hook.as_str(), rung.as_str())).collect())
}

/// The kernfs inode number of the root of the cgroup v2 hierarchy.
const CGROUP_ROOT_INO: u64 = 1;

/// What can be known to fail before the kernel is asked.
fn precheck(
    hook: &Hook,
    rung: &Rung,
    types: &Btf,
    resolved: &offsets::Resolved,
    facts: &KernelFacts,
) -> Result<(), String> {
    if let Some(lacks) = resolved.lacks(hook.needs).or_else(|| resolved.lacks(rung.needs)) {
        return Err(lacks);
    }
    let arguments = |kind: &str, name: &str, has: Option<usize>, wanted: usize| match has {
        None => Err(format!("this kernel has no {kind} {name}")),
        Some(has) if has < wanted => Err(format!("{kind} {name} takes {has} arguments here, {wanted} were expected")),
        Some(_) => Ok(()),
    };
    match rung.attach {
        Attach::FEntry(name, wanted) => arguments("function", name, types.parameters(name), wanted),
        Attach::BtfTracepoint(name, wanted) => arguments("tracepoint", name, types.tracepoint_arguments(name), wanted),
        Attach::Lsm(_) => match &facts.lsm {
            Ok(list) if list.split(',').any(|name| name == "bpf") => Ok(()),
            Ok(list) => Err(format!("`bpf` is not among the active security modules ({list}); boot with lsm=…,bpf")),
            Err(reason) => Err(format!("cannot tell whether BPF LSM is active: {reason}")),
        },
        Attach::RawTracepoint(_) | Attach::CgroupSockAddr => Ok(()),
    }
}

/// Loads and attaches every program of the rung; the reason of the first that fails.
fn attach(ebpf: &mut Ebpf, rung: &Rung, btf: &aya::Btf) -> Result<(), String> {
    let attached = rung.programs.iter().try_for_each(|name| attach_one(ebpf, name, rung.attach, btf));
    attached.map_err(|error| {
        // All of them or none. Only the cgroup rung has several programs; unloading detaches.
        for name in rung.programs {
            if let Some(Ok(program)) = ebpf.program_mut(name).map(<&mut CgroupSockAddr>::try_from) {
                let _ = program.unload();
            }
        }
        explain(&error)
    })
}

fn attach_one(ebpf: &mut Ebpf, name: &str, attach: Attach, btf: &aya::Btf) -> Result<(), AttachError> {
    let program = ebpf.program_mut(name).ok_or(AttachError::NoProgram)?;
    match attach {
        Attach::FEntry(function, _) => {
            let program: &mut FEntry = program.try_into()?;
            program.load(function, btf)?;
            program.attach()?;
        }
        Attach::Lsm(hook) => {
            let program: &mut Lsm = program.try_into()?;
            program.load(hook, btf)?;
            program.attach()?;
        }
        Attach::BtfTracepoint(tracepoint, _) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(tracepoint, btf)?;
            program.attach()?;
        }
        Attach::RawTracepoint(tracepoint) => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(tracepoint)?;
        }
        Attach::CgroupSockAddr => {
            let root = kernel::cgroup2_root().and_then(File::open).map_err(AttachError::Cgroup)?;
            if root.metadata().map_err(AttachError::Cgroup)?.ino() != CGROUP_ROOT_INO {
                return Err(AttachError::CgroupSubtree);
            }
            let program: &mut CgroupSockAddr = program.try_into()?;
            program.load()?;
            program.attach(root, CgroupAttachMode::Single)?;
        }
    }
    Ok(())
}

#[derive(Debug, Error)]
enum AttachError {
    #[error("the object holds no such program")]
    NoProgram,
    #[error("the root of the cgroup v2 hierarchy cannot be opened: {0}")]
    Cgroup(#[source] std::io::Error),
    #[error("the cgroup v2 mount shows a subtree only; the daemon needs the host's cgroup namespace")]
    CgroupSubtree,
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// The kernel's reason, with the end of the verifier's log, where the reason stands.
fn explain(error: &AttachError) -> String {
    const TAIL_LINES: usize = 3;
    match error {
        AttachError::Program(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join(" | ");
            if tail.is_empty() { format!("the kernel refused it: {io_error}") } else { format!("{io_error}: {tail}") }
        }
        AttachError::Program(ProgramError::SyscallError(error)) => format!("{}: {}", error.call, error.io_error),
        other => other.to_string(),
    }
}
