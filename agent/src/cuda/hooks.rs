//! What is to be attached to a file: where, which program, and what it counts.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use plumbline_ebpf::{cuda::Action, nccl::Action as NcclAction};

use super::{
    calls::{Call, SUFFIXES},
    libraries::Kind,
    nccl::{Machine, functions::Function},
    part::Part,
    symbols::{self, Place, Symbols, SymbolsError},
};

pub const LAUNCH: &str = "cuda_launch";
pub const LAUNCH_GRAPH: &str = "cuda_launch_graph";
pub const ENTER: &str = "cuda_enter";
pub const RETURN: &str = "cuda_return";
pub const NCCL_INIT_ENTER: &str = "nccl_init_enter";
pub const NCCL_INIT_RETURN: &str = "nccl_init_return";
pub const NCCL_SPLIT_ENTER: &str = "nccl_split_enter";
pub const NCCL_ASK_ENTER: &str = "nccl_ask_enter";
pub const NCCL_ASK_RETURN: &str = "nccl_ask_return";
pub const NCCL_END: &str = "nccl_end";
pub const NCCL_CALL: &str = "nccl_call";
pub const NCCL_GROUP: &str = "nccl_group";

/// Programs that count.
pub const PROGRAMS: [&str; 12] = [
    LAUNCH,
    LAUNCH_GRAPH,
    ENTER,
    RETURN,
    NCCL_INIT_ENTER,
    NCCL_SPLIT_ENTER,
    NCCL_INIT_RETURN,
    NCCL_ASK_ENTER,
    NCCL_ASK_RETURN,
    NCCL_END,
    NCCL_CALL,
    NCCL_GROUP,
];

/// What the kernel counts together: a row of one of the tables, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counted {
    Cuda(u8),
    Nccl(u8),
}

/// One function of a file.
#[derive(Debug)]
pub struct Hook {
    pub counted: Counted,
    pub part: Part,
    pub place: Place,
    pub cookie: u64,
    /// In the order in which they are attached. A return is never looked at whose entry is not: what was remembered of an earlier entry
    /// would be taken for it.
    pub programs: &'static [&'static str],
}

impl Hook {
    pub const fn has_return(&self) -> bool {
        self.programs.len() > 1
    }
}

pub fn of(kind: Kind, path: &Path) -> Result<Vec<Hook>, SymbolsError> {
    match kind {
        Kind::Cuda => of_driver(path),
        Kind::Nccl => Ok(of_nccl(symbols::places(path, Symbols::Exported, is_nccl)?)),
        Kind::Container => {
            // Who only calls a library of NCCL's that is loaded later has functions of its names, but each under one name.
            let places = symbols::places(path, Symbols::All, is_nccl)?;
            let has_both = |(name, place): &(&String, &Place)| {
                let other = name.strip_prefix('p').map_or_else(|| format!("p{name}"), str::to_owned);
                places.get(&other) == Some(*place)
            };
            let nccl = places.iter().filter(has_both).map(|(name, place)| (name.clone(), *place)).collect();
            let mut hooks = of_nccl(nccl);
            hooks.extend(of_runtime(path)?);
            Ok(hooks)
        }
    }
}

/// Whether there is anything of [`Kind::Container`] in a file.
pub fn is_inside(path: &Path) -> Result<bool, SymbolsError> {
    Ok(!of(Kind::Container, path)?.is_empty())
}

fn is_nccl(name: &str) -> bool {
    of_name(name).is_some()
}

/// Of CUDA's runtime, which many executables contain. Who puts themselves between a program and its driver has functions of the driver's
/// names, and calls it: those inside of other files are not looked at.
const RUNTIME: [&str; 2] = ["cudaSetDevice", "cudaDeviceReset"];

fn of_runtime(path: &Path) -> Result<Vec<Hook>, SymbolsError> {
    of_calls(path, Symbols::All, |name| RUNTIME.contains(&name))
}

fn of_driver(path: &Path) -> Result<Vec<Hook>, SymbolsError> {
    of_calls(path, Symbols::Exported, |_| true)
}

/// Names that are one function get one hook: it would be counted twice.
fn of_calls(path: &Path, symbols: Symbols, wanted: impl Fn(&str) -> bool) -> Result<Vec<Hook>, SymbolsError> {
    let names: HashMap<String, (u8, &Call, u8)> = Call::numbered()
        .flat_map(|(number, call)| call.functions.iter().map(move |(name, argument)| (number, call, *name, *argument)))
        .flat_map(|(number, call, name, argument)| {
            SUFFIXES.iter().map(move |suffix| (format!("{name}{suffix}"), (number, call, argument)))
        })
        .collect();
    let places: BTreeMap<Place, (u8, &Call, u8)> =
        symbols::places(path, symbols, |name| wanted(name) && names.contains_key(name))?
            .into_iter()
            .filter_map(|(name, place)| Some((place, *names.get(&name)?)))
            .collect();
    let hooks = places.into_iter().map(|(place, (number, call, argument))| Hook {
        counted: Counted::Cuda(number),
        part: call.part(),
        place,
        cookie: call.cookie(number, argument).to_bits(),
        programs: match call.action {
            Action::Launch => &[LAUNCH],
            Action::LaunchGraph => &[LAUNCH_GRAPH],
            _ => &[ENTER, RETURN],
        },
    });
    Ok(hooks.collect())
}

/// The same of NCCL, whose functions have two names each.
fn of_nccl(places: HashMap<String, Place>) -> Vec<Hook> {
    let places: BTreeMap<Place, (u8, &Function)> =
        places.into_iter().filter_map(|(name, place)| Some((place, of_name(&name)?))).collect();
    let mut places: Vec<_> = places.into_iter().collect();
    // A communicator whose beginning is seen is one of which all else is seen.
    places.sort_by_key(|(_, (_, function))| function.is_init());
    let hooks = places.into_iter().map(|(place, (number, function))| Hook {
        counted: Counted::Nccl(number),
        part: function.part(),
        place,
        cookie: function.cookie(number, Machine::HERE).to_bits(),
        programs: match function.action {
            NcclAction::InitByValue | NcclAction::InitByPointer | NcclAction::InitAll => {
                &[NCCL_INIT_ENTER, NCCL_INIT_RETURN]
            }
            NcclAction::Split | NcclAction::Shrink | NcclAction::Grow => &[NCCL_SPLIT_ENTER, NCCL_INIT_RETURN],
            NcclAction::TellRank | NcclAction::TellRanks | NcclAction::TellError => &[NCCL_ASK_ENTER, NCCL_ASK_RETURN],
            NcclAction::End => &[NCCL_END],
            NcclAction::Collective | NcclAction::PointToPoint => &[NCCL_CALL],
            NcclAction::GroupStart | NcclAction::GroupEnd => &[NCCL_GROUP],
        },
    });
    hooks.collect()
}

fn of_name(name: &str) -> Option<(u8, &'static Function)> {
    let name = name.strip_prefix('p').unwrap_or(name);
    if !name.starts_with("nccl") {
        return None;
    }
    Function::numbered().find(|(_, function)| function.symbol == name)
}
