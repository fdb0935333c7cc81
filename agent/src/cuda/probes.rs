//! The programs in the kernel, and their attachments.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, RingBuf},
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
    sys::{Stats, enable_stats},
};
use zerocopy::IntoBytes as _;

use super::{
    account::{self, Hits},
    attention::Whose,
    hooks::{self, Counted, Hook},
    libraries::{FileKey, Libraries, Library},
    nccl,
    part::Part,
    threads::Ended,
    trap::{NOTHING, Prologue, TrapError, Traps},
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
pub struct Probes {
    ebpf: Ebpf,
    told: RingBuf<MapData>,
    traps: Traps,
    /// Of each part: since when it has been looked at without a gap, as the kernel has it, or when it was last.
    watches: [Watch; Part::ALL.len()],
    attached: BTreeMap<FileKey, Attached>,
    /// Files whose functions are not known, with the path that was tried, so that it is said once.
    unreadable: BTreeMap<FileKey, PathBuf>,
    timed: BTreeMap<&'static str, Timed>,
    ended: Ended,
    members: nccl::account::Members,
}

#[derive(Debug, Default)]
struct Watch {
    number: u32,
    is_on: bool,
}

#[derive(Debug)]
struct Attached {
    name: String,
    hooks: Vec<Wanted>,
    /// Nobody maps it any more. While anything is attached to it, its inode is nobody else's.
    is_gone: bool,
}

#[derive(Debug)]
struct Wanted {
    hook: Hook,
    state: State,
    /// Whose calls it is to be at.
    whose: Option<Whose>,
}

impl Wanted {
    /// Whether it is to be attached, and was not tried by this path.
    fn is_lacking(&self, path: &Path) -> bool {
        self.whose.is_some()
            && match &self.state {
                State::Off => true,
                State::On(whose, _) => self.whose != Some(*whose),
                State::Refused(whose, tried) => self.whose != Some(*whose) || tried != path,
            }
    }

    const fn is_off(&self) -> bool {
        matches!(self.state, State::Off)
    }
}

#[derive(Debug)]
enum State {
    Off,
    On(Whose, Vec<(&'static str, UProbeLinkId)>),
    /// By this path, which may have been that of a process that has ended since; not tried again by the same.
    Refused(Whose, PathBuf),
}

#[derive(Debug, Default)]
struct Timed {
    so_far: RunTime,
    /// Of one run, in the last sample with any.
    mean_ns: Option<u64>,
}

/// What the kernel counted of a program, while somebody had it count.
#[derive(Debug, Default, Clone, Copy)]
pub struct RunTime {
    ns: u64,
    runs: u64,
}

impl RunTime {
    pub fn of(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, ProgramError> {
        let info = program(ebpf, name)?.info()?;
        Ok(Self { ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX), runs: info.run_count() })
    }

    pub const fn since(self, before: Self) -> Self {
        Self { ns: self.ns.saturating_sub(before.ns), runs: self.runs.saturating_sub(before.runs) }
    }

    pub const fn mean_ns(self) -> Option<u64> {
        self.ns.checked_div(self.runs)
    }
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
        const TOLD: &str = "TOLD";
        let told = ebpf.take_map(TOLD).ok_or(ProbesError::NoMap(TOLD))?;
        let told = RingBuf::try_from(told).map_err(|error| ProbesError::Map(TOLD, Box::new(error)))?;
        Ok(Self {
            ebpf,
            told,
            traps,
            watches: Default::default(),
            attached: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            timed: BTreeMap::new(),
            ended: Ended::default(),
            members: nccl::account::Members::new(),
        })
    }

    /// Attaches to what is wanted of `libraries`. Of other parts nothing is counted from now on; [`Self::let_one_go`] takes away what is not
    /// wanted.
    pub fn attach(
        &mut self,
        libraries: &BTreeMap<FileKey, Library>,
        whose: impl Fn(Part) -> Option<Whose>,
    ) -> Result<(), String> {
        let watched = Part::ALL.map(|part| whose(part).is_some());
        // What is not wanted any more ends before anything is attached, and what is wanted begins after that.
        let mut ends = Part::ALL.into_iter().filter(|part| !watched[*part as usize]);
        ends.try_for_each(|part| self.watch(part, false))?;
        for (key, attached) in &mut self.attached {
            attached.is_gone = !libraries.contains_key(key);
            let (hooks, is_gone) = (&mut attached.hooks, attached.is_gone);
            hooks.iter_mut().for_each(|wanted| wanted.whose = whose(wanted.hook.part).filter(|_| !is_gone));
        }
        self.unreadable.retain(|key, _| libraries.contains_key(key));
        for (key, library) in libraries {
            let is_lacking = match self.attached.get(key) {
                Some(attached) => attached.hooks.iter().any(|wanted| wanted.is_lacking(&library.path)),
                None => self.unreadable.get(key) != Some(&library.path),
            };
            if !is_lacking {
                continue;
            }
            // What a path leads to is somebody else's, and may be another file by now: this one is parsed, and attached to.
            let Some(file) = File::open(&library.path).ok().filter(|file| FileKey::of(file) == Some(*key)) else {
                continue;
            };
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            if !self.attached.contains_key(key) {
                match hooks::of(library.kind, &path) {
                    Ok(hooks) => {
                        tracing::info!(library = library.name, functions = hooks.len(), "a library's calls are known");
                        let hooks = hooks.into_iter().map(|hook| {
                            let whose = whose(hook.part);
                            Wanted { hook, state: State::Off, whose }
                        });
                        let hooks = hooks.collect();
                        self.attached.insert(*key, Attached { name: library.name.clone(), hooks, is_gone: false });
                    }
                    Err(error) => {
                        tracing::warn!(library = library.name, reason = chain(&error), "its calls are not counted");
                        self.unreadable.insert(*key, library.path.clone());
                    }
                }
            }
            let Some(attached) = self.attached.get_mut(key) else { continue };
            let mut refused = None;
            for wanted in attached.hooks.iter_mut().filter(|wanted| wanted.is_lacking(&library.path)) {
                let Some(whose) = wanted.whose else { continue };
                // Somebody else's until now.
                detach(&mut self.ebpf, &mut wanted.state);
                match attach(&mut self.ebpf, &path, &wanted.hook, whose) {
                    Ok(links) => wanted.state = State::On(whose, links),
                    Err(error) => {
                        wanted.state = State::Refused(whose, library.path.clone());
                        refused.get_or_insert_with(|| chain(&error));
                    }
                }
            }
            if let Some(reason) = refused {
                tracing::warn!(library = library.name, reason, "some of a library's calls are not counted");
            }
        }
        let mut begin = Part::ALL.into_iter().filter(|part| watched[*part as usize]);
        begin.try_for_each(|part| self.watch(part, true))
    }

    fn watch(&mut self, part: Part, is: bool) -> Result<(), String> {
        let watch = &mut self.watches[part as usize];
        watch.number = watch.number.wrapping_add(u32::from(is && !watch.is_on)).max(1);
        watch.is_on = is;
        let number = if is { watch.number } else { 0 };
        let mut watched: Array<_, u32> = account::open(&mut self.ebpf, "WATCHED").map_err(|error| chain(&error))?;
        watched.set(part as u32, number, 0).map_err(|error| chain(&error))
    }

    /// Takes one of what is not wanted away, which takes the kernel a tenth of a second; whether there was one.
    pub fn let_one_go(&mut self) -> bool {
        // Those first that somebody still runs into.
        let mut attached: Vec<&mut Attached> = self.attached.values_mut().collect();
        attached.sort_by_key(|attached| attached.is_gone);
        let hooks = attached.into_iter().flat_map(|attached| &mut attached.hooks);
        let mut unwanted = hooks.filter(|wanted| wanted.whose.is_none() && !wanted.is_off());
        let found = unwanted.next().map(|wanted| &mut wanted.state);
        let was_one = found.is_some();
        if let Some(state) = found {
            detach(&mut self.ebpf, state);
        }
        let is_over = |wanted: &Wanted| wanted.whose.is_none() && wanted.is_off();
        self.attached.retain(|_, attached| {
            let is_over = attached.is_gone && attached.hooks.iter().all(is_over);
            if is_over {
                tracing::info!(library = attached.name, "this library is not looked at any more");
            }
            !is_over
        });
        was_one
    }

    /// What the kernel tells at once.
    pub const fn told(&mut self) -> &mut RingBuf<MapData> {
        &mut self.told
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
            let is_on = |wanted: &&Wanted| wanted.whose.is_some() && matches!(wanted.state, State::On(..));
            let on = attached.hooks.iter().filter(is_on).count();
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
            let now = RunTime::of(&mut self.ebpf, name).map_err(|error| chain(&error))?;
            let timed = self.timed.entry(name).or_default();
            timed.mean_ns = now.since(timed.so_far).mean_ns().or(timed.mean_ns);
            timed.so_far = now;
        }
        Ok(())
    }

    /// What one call costs its thread, of the dearest of the functions that are counted together.
    pub fn cost_ns(&self, counted: Counted) -> (Part, u64) {
        let hooks = self.attached.values().flat_map(|attached| &attached.hooks).map(|wanted| &wanted.hook);
        let of_it = hooks.filter(|hook| hook.counted == counted);
        let costs = of_it.map(|hook| {
            let trap = self.traps.of(hook.place.prologue);
            let trap_ns = if hook.has_return() { trap.entry_and_return } else { trap.entry };
            let programs_ns = hook
                .programs
                .iter()
                .map(|name| self.program_ns(name).map_or(UNTIMED_NS, |ns| ns.saturating_sub(self.traps.timing_ns)));
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
            .filter_map(move |name| Some((name, self.program_ns(name)?)))
            .chain([(NOTHING, self.traps.timing_ns)])
            .map(move |(name, ns)| Point::new(&cuda::PROGRAM_SECONDS, &[name], seconds(ns)));
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
fn attach(
    ebpf: &mut Ebpf,
    path: &Path,
    hook: &Hook,
    whose: Whose,
) -> Result<Vec<(&'static str, UProbeLinkId)>, ProgramError> {
    let scope = match whose {
        Whose::Everybodys => UProbeScope::AllProcesses,
        // The kernel puts its breakpoint into the memory of that process alone, for all of its threads (`uprobe_perf_filter`).
        Whose::Ones(pid) => UProbeScope::OneProcess(pid),
    };
    let mut links = Vec::new();
    for &name in hook.programs {
        match link(ebpf, name, path, hook.place.offset, hook.cookie, scope) {
            Ok(link) => links.push((name, link)),
            Err(error) => {
                detach(ebpf, &mut State::On(whose, links));
                return Err(error);
            }
        }
    }
    Ok(links)
}

/// The last attached first. The kernel waits for all CPUs at each, a tenth of a second, one after the other.
fn detach(ebpf: &mut Ebpf, state: &mut State) {
    let State::On(_, links) = std::mem::replace(state, State::Off) else { return };
    for (name, link) in links.into_iter().rev() {
        // It may be gone with what it was attached to.
        let _ = program(ebpf, name).and_then(|program| program.detach(link));
    }
}
