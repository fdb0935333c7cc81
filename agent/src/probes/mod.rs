//! The kernel programs from the agent's side: loading, the ladder of rungs, and the verdict per hook.
//!
//! Programs are loaded and attached one by one; one that fails never takes another down, and says why. Dropping
//! [`Probes`] detaches everything.

pub mod btf;
pub mod canary;
pub mod decode;
pub mod deny;
mod device;
pub mod gate;
pub mod hooks;
pub mod kernel;
mod ladder;
pub mod loss;
pub mod memory;
pub mod ntp;
mod offsets;
mod own;
mod pages;
pub mod programs;
pub mod reads;
pub mod sensor;
mod tasks;
#[cfg(feature = "trace")]
mod trace;
pub mod watch;
pub mod ways;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use plumbline_ebpf::{
    offsets::{Group, Offsets},
    program,
    record::Control,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zerocopy::{FromBytes as _, IntoBytes as _};

pub use self::ladder::{HookVerdict, Refusal, State};
use self::{btf::Btf, hooks::Hook, ladder::Ladder, offsets::Resolved, watch::EnrolledFiles};

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
    /// Records of one kind that one cgroup may have in a second; beyond, they are counted and told as lost. 0 for no limit.
    pub records_per_second: u32,
}

/// 4 MiB hold about 20,000 opens with their paths: a second of a busy loader, while the log waits for its disk.
const DEFAULT_RING_BYTES: u32 = 4 << 20;

/// A third of what one core of a small server drafts and signs in a second.
const DEFAULT_RECORDS_PER_SECOND: u32 = 10_000;

/// One page.
const MIN_RING_BYTES: u32 = 4096;

impl Default for ProbesConfig {
    fn default() -> Self {
        Self { ring_bytes: DEFAULT_RING_BYTES, rungs: BTreeMap::new(), records_per_second: DEFAULT_RECORDS_PER_SECOND }
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

/// The loaded object and its attachments.
#[derive(Debug)]
pub struct Probes {
    ebpf: Ebpf,
    pub verdicts: Vec<HookVerdict>,
    btf: aya::Btf,
    files: EnrolledFiles,
    watched: Vec<watch::Watched>,
    has_canary: bool,
}

/// What the kernel counted for one program on one CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub generated: u64,
    pub ring_full: u64,
    /// Reads that found the table of reads full.
    pub table_full: u64,
}

impl Probes {
    /// Loads the object and climbs every hook's ladder.
    pub fn load(config: &ProbesConfig) -> Result<Self, ProbesError> {
        if OBJECT.is_empty() {
            return Err(ProbesError::NoObject);
        }
        let forced = forced_rungs(config)?;
        if !config.ring_bytes.is_power_of_two() || config.ring_bytes < MIN_RING_BYTES {
            return Err(ProbesError::RingBytes(config.ring_bytes));
        }
        let (btf, types, resolved) = types()?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("OFFSETS", resolved.offsets.as_bytes(), true)
            .map_max_entries("EVENTS", config.ring_bytes)
            .load(OBJECT)
            .map_err(|error| ProbesError::Load(Box::new(error)))?;

        #[cfg(feature = "trace")]
        trace::start(&mut ebpf);
        let climbed = Ladder::new(&mut ebpf, &btf, &types, &resolved, forced).climb_all();
        let mut probes = Self {
            ebpf,
            verdicts: climbed.verdicts,
            btf,
            files: EnrolledFiles::default(),
            watched: Vec::new(),
            has_canary: false,
        };
        let rungs = probes.verdicts.iter().filter_map(HookVerdict::attached);
        let reads_pages = rungs.into_iter().any(|rung| rung.needs.contains(&Group::Pages));
        probes.control(|control| {
            control.at_return = climbed.at_return;
            control.attached = climbed.attached;
            control.own_pid = std::process::id();
            control.records_per_second = config.records_per_second;
            control.page_shift = rustix::param::page_size().trailing_zeros();
            if let (true, Ok(pages)) = (reads_pages, resolved.pages) {
                control.page_bytes = pages.page_bytes;
                control.vmemmap_base_at = pages.vmemmap_base_at;
                control.page_offset_base_at = pages.page_offset_base_at;
            }
            control.maps_folios = u32::from(kernel::version() >= kernel::MAPS_FOLIOS);
        })?;
        probes.know_own_objects()?;
        Ok(probes)
    }

    /// Nothing attached: there is nothing to wait for.
    pub fn is_useless(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.attached().is_none())
    }

    /// Takes a map out; it can be taken once.
    fn take_map(&mut self, name: &'static str) -> Result<aya::maps::Map, ProbesError> {
        self.ebpf.take_map(name).ok_or(ProbesError::NoMap(name))
    }

    fn take_ring(&mut self, name: &'static str) -> Result<RingBuf<MapData>, ProbesError> {
        RingBuf::try_from(self.take_map(name)?).map_err(|error| ProbesError::Map(name, Box::new(error)))
    }

    /// The kernel's counters, per program and CPU.
    pub fn counted(&self) -> Result<Vec<Vec<Counted>>, ProbesError> {
        const NAME: &str = "COUNTERS";
        let error = |error| ProbesError::Map(NAME, Box::new(error));
        let map = self.ebpf.map(NAME).ok_or(ProbesError::NoMap(NAME))?;
        let array: PerCpuArray<_, [u64; 3]> = PerCpuArray::try_from(map).map_err(error)?;
        (0..program::COUNT)
            .map(|number| {
                let values = array.get(&number, 0).map_err(error)?;
                Ok(values
                    .iter()
                    .map(|&[generated, ring_full, table_full]| Counted { generated, ring_full, table_full })
                    .collect())
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
        // A program that works for several hooks is counted with the first.
        let mut seen = HashSet::new();
        self.verdicts
            .iter()
            .filter_map(|verdict| Some((verdict.hook, verdict.attached()?)))
            .map(|(hook, rung)| {
                let own = rung.programs.iter().filter(|program| seen.insert(program.name));
                (hook, own.filter_map(|program| misses(program.name)).sum())
            })
            .collect()
    }

    /// Instructions that the kernel's verifier walked for each attached program, where it says (5.16): it gives up after a
    /// million.
    pub fn verified_instructions(&self) -> BTreeMap<&'static str, u32> {
        let rungs = self.verdicts.iter().filter_map(HookVerdict::attached);
        let programs = rungs.flat_map(|rung| rung.programs);
        let walked = |name: &str| self.ebpf.program(name)?.info().ok()?.verified_instruction_count();
        programs.filter_map(|program| Some((program.name, walked(program.name)?))).collect()
    }

    /// Takes a hook out that told what is not so: better blind, and said, than wrong.
    pub fn disarm(&mut self, number: u32, reason: &str) -> Result<(), ProbesError> {
        let Some(verdict) = self.verdicts.iter_mut().find(|verdict| verdict.hook.program == number) else {
            return Ok(());
        };
        let Some(rung) = verdict.attached() else { return Ok(()) };
        verdict.state = State::Failed;
        verdict.refused.push(Refusal { rung: rung.name, by_kernel: false, reason: format!("self-test: {reason}") });
        for program in rung.programs.iter().filter(|program| !program.attach.is_system_call_return()) {
            ladder::detach(&mut self.ebpf, program);
        }
        self.control(|control| {
            control.at_return &= !(1 << number);
            control.attached &= !(1 << number);
        })
    }

    /// Changes what the programs are told.
    fn control(&mut self, change: impl FnOnce(&mut Control)) -> Result<(), ProbesError> {
        const NAME: &str = "CONTROL";
        let map = self.ebpf.map_mut(NAME).ok_or(ProbesError::NoMap(NAME))?;
        let error = |error| ProbesError::Map(NAME, Box::new(error));
        let mut array: Array<_, ControlWords> = Array::try_from(map).map_err(error)?;
        let words = array.get(&0, 0).map_err(error)?;
        let mut control = Control::read_from_bytes(words.as_bytes()).unwrap_or_default();
        change(&mut control);
        let words: ControlWords = zerocopy::transmute!(control);
        array.set(0, words, 0).map_err(error)
    }
}

/// The kernel's types, and what the programs read of them.
fn types() -> Result<(aya::Btf, Btf, Resolved), ProbesError> {
    let bytes = fs::read(btf::VMLINUX).map_err(|error| ProbesError::NoBtf(error.to_string()))?;
    let types = Btf::parse(bytes).map_err(|error| ProbesError::NoBtf(error.to_string()))?;
    let resolved = offsets::resolve(&types);
    let btf = aya::Btf::from_sys_fs().map_err(|error| ProbesError::NoBtf(error.to_string()))?;
    Ok((btf, types, resolved))
}

/// For another object: the kernel's types, and where the fields are that every program reads.
pub fn kernel_types() -> Result<(aya::Btf, Offsets), ProbesError> {
    let (btf, _, resolved) = types()?;
    match resolved.lacks(&[Group::Task]) {
        Some(why) => Err(ProbesError::NoBtf(why)),
        None => Ok((btf, resolved.offsets)),
    }
}

/// [`Control`] as words, which aya's maps take.
type ControlWords = [u32; size_of::<Control>() / 4];

fn forced_rungs(config: &ProbesConfig) -> Result<BTreeMap<&str, &str>, ProbesError> {
    for (name, rung) in &config.rungs {
        let known = Hook::find(name).is_some_and(|hook| rung == "off" || hook.rung(rung).is_some());
        if !known {
            return Err(ProbesError::UnknownRung(format!("{name}: {rung}")));
        }
    }
    Ok(config.rungs.iter().map(|(hook, rung)| (hook.as_str(), rung.as_str())).collect())
}
