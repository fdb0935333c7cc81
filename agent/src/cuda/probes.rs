//! The programs in the kernel, and their attachments.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
    sys::{Stats, enable_stats},
};
use zerocopy::IntoBytes as _;

use super::{
    account::{self, Hits},
    hooks::{self, Counted, Hook},
    libraries::{FileKey, Libraries, Library},
    nccl,
    part::Part,
    threads::Ended,
    trap::{Prologue, TrapError, Traps},
};
use crate::{
    core::chain,
    probes::{ProbesError, kernel, kernel_types},
    series::{Point, cuda},
};

/// The object with the programs; empty when the agent was built without one.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cuda.bpf.o"));

/// `bpf_get_attach_cookie` for uprobes.
const COOKIES: (u32, u32) = (5, 15);

/// What a program is taken to cost until the kernel has timed it.
const UNTIMED_NS: u64 = 200;

/// Why no call is counted.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    #[error(transparent)]
    Probes(#[from] ProbesError),
    #[error("Linux {}.{} and newer tell a probe which function it is at; this is {}.{}", COOKIES.0, COOKIES.1, .0.0, .0.1)]
    Cookies((u32, u32)),
    #[error("the kernel refused the program {0}")]
    Program(&'static str, #[source] Box<ProgramError>),
    #[error("it cannot be measured what a probe costs here")]
    Trap(#[from] TrapError),
}

/// Dropping it detaches everything.
#[derive(Debug)]
pub struct Probes {
    ebpf: Ebpf,
    traps: Traps,
    attached: BTreeMap<FileKey, Attached>,
    /// Files whose functions are not known, with the path that was tried, so that it is said once.
    unreadable: BTreeMap<FileKey, PathBuf>,
    timed: BTreeMap<&'static str, Timed>,
    ended: Ended,
    members: nccl::account::Members,
}

#[derive(Debug)]
struct Attached {
    name: String,
    hooks: Vec<(Hook, State)>,
}

#[derive(Debug)]
enum State {
    Off,
    On(Vec<(&'static str, UProbeLinkId)>),
    /// By this path, which may have been that of a process that has ended since; not tried again by the same.
    Refused(PathBuf),
}

/// What the kernel counted of a program, while somebody had it count.
#[derive(Debug, Default)]
struct Timed {
    ns: u64,
    runs: u64,
    /// Of one run, in the last sample with any.
    mean_ns: Option<u64>,
}

/// What was counted, in two forms.
#[derive(Debug, Default)]
pub struct Reading {
    pub points: Vec<Point>,
    pub hits: Hits,
}

impl Probes {
    pub fn load() -> Result<Self, CudaError> {
        if OBJECT.is_empty() {
            return Err(ProbesError::NoObject.into());
        }
        if kernel::version() < COOKIES {
            return Err(CudaError::Cookies(kernel::version()));
        }
        let (btf, offsets) = kernel_types()?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("OFFSETS", offsets.as_bytes(), true)
            .load(OBJECT)
            .map_err(|error| ProbesError::Load(Box::new(error)))?;
        for name in hooks::PROGRAMS.into_iter().chain(super::trap::PROGRAMS) {
            let refused = |error| CudaError::Program(name, Box::new(error));
            program(&mut ebpf, name).map_err(refused)?.load().map_err(refused)?;
        }
        let traps = Traps::measure(&mut ebpf)?;
        tracing::info!(?traps, "what a probe costs the thread that it stops, in nanoseconds");
        Ok(Self {
            ebpf,
            traps,
            attached: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            timed: BTreeMap::new(),
            ended: Ended::default(),
            members: nccl::account::Members::new(),
        })
    }

    /// Attaches to what is wanted of `libraries`, and lets go of all else.
    pub fn attach(&mut self, libraries: &BTreeMap<FileKey, Library>, is_wanted: impl Fn(Part) -> bool) {
        let gone: Vec<FileKey> = self.attached.keys().filter(|key| !libraries.contains_key(key)).copied().collect();
        for mut attached in gone.iter().filter_map(|key| self.attached.remove(key)) {
            tracing::info!(library = attached.name, "this library is not looked at any more");
            attached.hooks.iter_mut().for_each(|(_, state)| detach(&mut self.ebpf, state));
        }
        self.unreadable.retain(|key, _| libraries.contains_key(key));
        for (key, library) in libraries {
            if !self.attached.contains_key(key) && self.unreadable.get(key) != Some(&library.path) {
                match hooks::of(library.kind, &library.path) {
                    Ok(hooks) => {
                        tracing::info!(library = library.name, functions = hooks.len(), "a library's calls are known");
                        let hooks = hooks.into_iter().map(|hook| (hook, State::Off)).collect();
                        self.attached.insert(*key, Attached { name: library.name.clone(), hooks });
                    }
                    Err(error) => {
                        tracing::warn!(library = library.name, reason = chain(&error), "its calls are not counted");
                        self.unreadable.insert(*key, library.path.clone());
                    }
                }
            }
            let Some(attached) = self.attached.get_mut(key) else { continue };
            let mut refused = None;
            for (hook, state) in &mut attached.hooks {
                let is_tried = matches!(state, State::Refused(path) if *path == library.path);
                match (is_wanted(hook.part), &state) {
                    (true, State::Off | State::Refused(_)) if !is_tried => {
                        match attach(&mut self.ebpf, &library.path, hook) {
                            Ok(links) => *state = State::On(links),
                            Err(error) => {
                                *state = State::Refused(library.path.clone());
                                refused.get_or_insert_with(|| chain(&error));
                            }
                        }
                    }
                    (false, State::On(_) | State::Refused(_)) => detach(&mut self.ebpf, state),
                    _ => {}
                }
            }
            if let Some(reason) = refused {
                tracing::warn!(library = library.name, reason, "some of a library's calls are not counted");
            }
        }
    }

    /// What was counted so far. Those of processes that have ended are given a last time, and forgotten.
    pub fn account(&mut self, libraries: &Libraries) -> Result<Reading, String> {
        let mut reading = Reading::default();
        account::read(&mut self.ebpf, libraries, &mut self.ended, &mut reading).map_err(|error| chain(&error))?;
        let is_alive = |pid, start_boot_ns| libraries.is_alive(pid, start_boot_ns);
        nccl::account::read(&mut self.ebpf, is_alive, &mut self.members, &mut reading)
            .map_err(|error| chain(&error))?;
        reading.points.extend(nccl::coverage::points(&reading.points));
        // Several files may have one name.
        let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
        for attached in self.attached.values() {
            let on = attached.hooks.iter().filter(|(_, state)| matches!(state, State::On(_))).count();
            *by_name.entry(&attached.name).or_default() += on;
        }
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let probed = by_name.iter().map(|(name, count)| Point::new(&cuda::PROBED_FUNCTIONS, &[name], *count as f64));
        reading.points.extend(probed);
        reading.points.extend(self.costs());
        Ok(reading)
    }

    /// Has the kernel time the programs for as long as `while_timed` takes, which is done in any case: it times those of everybody meanwhile.
    pub fn time(&mut self, while_timed: impl FnOnce()) -> Result<(), String> {
        let timing = enable_stats(Stats::RunTime).map_err(|error| chain(&error));
        while_timed();
        drop(timing?);
        for name in hooks::PROGRAMS {
            let info = program(&mut self.ebpf, name).and_then(|program| program.info());
            let info = info.map_err(|error| chain(&error))?;
            let ns = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
            let timed = self.timed.entry(name).or_default();
            let (more_ns, more_runs) = (ns.saturating_sub(timed.ns), info.run_count().saturating_sub(timed.runs));
            timed.mean_ns = more_ns.checked_div(more_runs).or(timed.mean_ns);
            (timed.ns, timed.runs) = (ns, info.run_count());
        }
        Ok(())
    }

    /// What one call costs its thread, of the dearest of the functions that are counted together.
    pub fn cost_ns(&self, counted: Counted) -> (Part, u64) {
        let hooks = self.attached.values().flat_map(|attached| &attached.hooks).map(|(hook, _)| hook);
        let of_it = hooks.filter(|hook| hook.counted == counted);
        let costs = of_it.map(|hook| {
            let trap = self.traps.of(hook.place.prologue);
            let trap_ns = if hook.has_return() { trap.entry_and_return } else { trap.entry };
            let programs_ns = hook.programs.iter().map(|name| self.program_ns(name).unwrap_or(UNTIMED_NS));
            (hook.part, trap_ns.saturating_add(programs_ns.sum()))
        });
        costs.max_by_key(|(_, ns)| *ns).unwrap_or((Part::Rest, 0))
    }

    fn program_ns(&self, name: &str) -> Option<u64> {
        self.timed.get(name)?.mean_ns
    }

    fn costs(&self) -> impl Iterator<Item = Point> {
        let seconds = |ns: u64| account::float(ns) / 1e9;
        let traps = [Prologue::Emulated, Prologue::Stepped].into_iter().flat_map(move |prologue| {
            let trap = self.traps.of(prologue);
            [("entry", trap.entry), ("entry_and_return", trap.entry_and_return)]
                .map(|(at, ns)| Point::new(&cuda::TRAP_SECONDS, &[prologue.as_str(), at], seconds(ns)))
        });
        let programs = hooks::PROGRAMS
            .into_iter()
            .filter_map(move |name| Some(Point::new(&cuda::PROGRAM_SECONDS, &[name], seconds(self.program_ns(name)?))));
        traps.chain(programs)
    }
}

pub fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut UProbe, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

pub fn link(
    ebpf: &mut Ebpf,
    name: &'static str,
    path: &Path,
    offset: u64,
    cookie: u64,
    scope: UProbeScope,
) -> Result<UProbeLinkId, ProgramError> {
    let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(offset), cookie: Some(cookie) };
    program(ebpf, name)?.attach(point, path, scope)
}

/// All programs of a hook, or none.
fn attach(ebpf: &mut Ebpf, path: &Path, hook: &Hook) -> Result<Vec<(&'static str, UProbeLinkId)>, ProgramError> {
    let mut links = Vec::new();
    for &name in hook.programs {
        match link(ebpf, name, path, hook.place.offset, hook.cookie, UProbeScope::AllProcesses) {
            Ok(link) => links.push((name, link)),
            Err(error) => {
                detach(ebpf, &mut State::On(links));
                return Err(error);
            }
        }
    }
    Ok(links)
}

/// The last attached first. The kernel waits for all CPUs at each, a tenth of a second, one after the other.
fn detach(ebpf: &mut Ebpf, state: &mut State) {
    let State::On(links) = std::mem::replace(state, State::Off) else { return };
    for (name, link) in links.into_iter().rev() {
        // It may be gone with what it was attached to.
        let _ = program(ebpf, name).and_then(|program| program.detach(link));
    }
}
