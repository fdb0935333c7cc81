//! The programs in the kernel, and what they are attached to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
};
use plumbline_ebpf::{cuda::Action, nccl::Action as NcclAction};
use zerocopy::IntoBytes as _;

use super::{
    account,
    calls::{Call, SUFFIXES},
    config::Detail,
    libraries::{FileKey, Kind, Library},
    nccl::{self, Machine, functions::Function},
    symbols,
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

const COUNT: &str = "cuda_count";
const ENTER: &str = "cuda_enter";
const RETURN: &str = "cuda_return";
const NCCL_INIT_ENTER: &str = "nccl_init_enter";
const NCCL_INIT_RETURN: &str = "nccl_init_return";
const NCCL_END: &str = "nccl_end";
const NCCL_CALL: &str = "nccl_call";
const NCCL_GROUP: &str = "nccl_group";

const PROGRAMS: [&str; 8] = [COUNT, ENTER, RETURN, NCCL_INIT_ENTER, NCCL_INIT_RETURN, NCCL_END, NCCL_CALL, NCCL_GROUP];

/// Why no call is counted.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    #[error(transparent)]
    Probes(#[from] ProbesError),
    #[error("Linux {}.{} and newer tell a probe which function it is at; this is {}.{}", COOKIES.0, COOKIES.1, .0.0, .0.1)]
    Cookies((u32, u32)),
    #[error("the kernel refused the program {0}")]
    Program(&'static str, #[source] Box<aya::programs::ProgramError>),
}

/// Dropping it detaches everything.
#[derive(Debug)]
pub struct Probes {
    ebpf: Ebpf,
    detail: Detail,
    attached: BTreeMap<FileKey, Attached>,
    /// Files whose functions are not known, so that it is said once.
    unreadable: BTreeSet<FileKey>,
}

#[derive(Debug)]
struct Attached {
    name: String,
    functions: usize,
    links: Vec<(&'static str, UProbeLinkId)>,
}

/// A program at a place.
struct Wanted {
    program: &'static str,
    offset: u64,
    cookie: u64,
}

impl Probes {
    pub fn load(detail: Detail) -> Result<Self, CudaError> {
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
        for name in PROGRAMS {
            let refused = |error| CudaError::Program(name, Box::new(error));
            program(&mut ebpf, name).map_err(refused)?.load().map_err(refused)?;
        }
        Ok(Self { ebpf, detail, attached: BTreeMap::new(), unreadable: BTreeSet::new() })
    }

    /// Attaches to what is new among `libraries`, and lets go of what nobody maps any more.
    pub fn attach(&mut self, libraries: &BTreeMap<FileKey, Library>) {
        let gone: Vec<FileKey> = self.attached.keys().filter(|key| !libraries.contains_key(key)).copied().collect();
        for attached in gone.iter().filter_map(|key| self.attached.remove(key)) {
            tracing::info!(library = attached.name, "nobody has this library any more");
            for (name, link) in attached.links {
                // It may be gone with what it was attached to.
                let _ = program(&mut self.ebpf, name).and_then(|program| program.detach(link));
            }
        }
        self.unreadable.retain(|key| libraries.contains_key(key));
        for (key, library) in libraries {
            if self.attached.contains_key(key) || self.unreadable.contains(key) {
                continue;
            }
            let wanted = match library.kind {
                Kind::Cuda => wanted_of_driver(&library.path, self.detail),
                Kind::Nccl => wanted_of_nccl(&library.path),
            };
            match wanted {
                Ok(wanted) => {
                    let attached = self.attach_one(library, wanted);
                    self.attached.insert(*key, attached);
                }
                Err(error) => {
                    tracing::warn!(library = library.name, reason = chain(&error), "its calls are not counted");
                    self.unreadable.insert(*key);
                }
            }
        }
    }

    fn attach_one(&mut self, library: &Library, wanted: Vec<Wanted>) -> Attached {
        let mut links = Vec::new();
        let mut functions = BTreeSet::new();
        let mut refused = None;
        for Wanted { program: name, offset, cookie } in wanted {
            let point =
                UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(offset), cookie: Some(cookie) };
            let linked = program(&mut self.ebpf, name)
                .and_then(|program| program.attach(point, &library.path, UProbeScope::AllProcesses));
            match linked {
                Ok(link) => {
                    links.push((name, link));
                    functions.insert(offset);
                }
                Err(error) => drop(refused.get_or_insert_with(|| chain(&error))),
            }
        }
        if let Some(reason) = refused {
            tracing::warn!(library = library.name, reason, "some of a library's calls are not counted");
        }
        tracing::info!(library = library.name, functions = functions.len(), "counting a library's calls");
        Attached { name: library.name.clone(), functions: functions.len(), links }
    }

    /// What was counted so far. Those of processes that have ended are given a last time, and forgotten.
    pub fn account(&mut self, is_alive: impl Fn(u32, u64) -> bool) -> Result<Vec<Point>, String> {
        let mut points = account::read(&mut self.ebpf, &is_alive).map_err(|error| chain(&error))?;
        points.extend(nccl::account::read(&mut self.ebpf, is_alive).map_err(|error| chain(&error))?);
        // Several files may have one name.
        let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
        for attached in self.attached.values() {
            *by_name.entry(&attached.name).or_default() += attached.functions;
        }
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        points.extend(by_name.iter().map(|(name, count)| Point::new(&cuda::PROBED_FUNCTIONS, &[name], *count as f64)));
        Ok(points)
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut UProbe, aya::programs::ProgramError> {
    let missing = aya::programs::ProgramError::NotLoaded;
    ebpf.program_mut(name).ok_or(missing)?.try_into()
}

/// What is to be attached in the file. Names that are one function get one attachment: it would be counted twice.
fn wanted_of_driver(path: &Path, detail: Detail) -> Result<Vec<Wanted>, symbols::SymbolsError> {
    let names: HashMap<String, (u8, &Call, u8)> = Call::numbered()
        .filter(|(_, call)| detail == Detail::Full || !call.is_launch)
        .flat_map(|(number, call)| call.functions.iter().map(move |(name, argument)| (number, call, *name, *argument)))
        .flat_map(|(number, call, name, argument)| {
            SUFFIXES.iter().map(move |suffix| (format!("{name}{suffix}"), (number, call, argument)))
        })
        .collect();
    let offsets: BTreeMap<u64, (u8, &Call, u8)> = symbols::offsets(path, |name| names.contains_key(name))?
        .into_iter()
        .filter_map(|(name, offset)| Some((offset, *names.get(&name)?)))
        .collect();
    let wanted = offsets.into_iter().flat_map(|(offset, (number, call, argument))| {
        let cookie = call.cookie(number, argument).to_bits();
        let programs: &[&'static str] = if call.action == Action::Count { &[COUNT] } else { &[RETURN, ENTER] };
        programs.iter().map(move |&program| Wanted { program, offset, cookie })
    });
    Ok(wanted.collect())
}

/// The same of NCCL, whose functions have two names each.
fn wanted_of_nccl(path: &Path) -> Result<Vec<Wanted>, symbols::SymbolsError> {
    let find = |name: &str| {
        let name = name.strip_prefix('p').unwrap_or(name);
        Function::numbered().find(|(_, function)| function.symbol == name)
    };
    let offsets: BTreeMap<u64, (u8, &Function)> = symbols::offsets(path, |name| find(name).is_some())?
        .into_iter()
        .filter_map(|(name, offset)| Some((offset, find(&name)?)))
        .collect();
    let wanted = offsets.into_iter().flat_map(|(offset, (number, function))| {
        let cookie = function.cookie(number, Machine::HERE).to_bits();
        let programs: &[&'static str] = match function.action {
            NcclAction::InitByValue | NcclAction::InitByPointer | NcclAction::InitAll | NcclAction::InitUnknown => {
                &[NCCL_INIT_RETURN, NCCL_INIT_ENTER]
            }
            NcclAction::End => &[NCCL_END],
            NcclAction::Collective | NcclAction::PointToPoint => &[NCCL_CALL],
            NcclAction::GroupStart | NcclAction::GroupEnd => &[NCCL_GROUP],
        };
        programs.iter().map(move |&program| Wanted { program, offset, cookie })
    });
    Ok(wanted.collect())
}
