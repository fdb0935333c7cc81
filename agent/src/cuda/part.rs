//! What of the calls is looked at, and what is given up first when that costs too much.

use super::config::Detail;

/// Calls that are looked at together or not at all; their numbers are those of the kernel's [`plumbline_ebpf::cuda::PARTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Part {
    /// Of single kernels: tens of thousands in a second.
    Launches = plumbline_ebpf::cuda::LAUNCHES,
    /// What an engine does at each step: launches of graphs, copies, waits. None of them needs another to be understood.
    Steps = plumbline_ebpf::cuda::STEPS,
    /// What adds up over a process's life, of which none may be missed: memory, contexts, captures, and all of NCCL.
    Rest = 2,
}

impl Part {
    pub const ALL: [Self; plumbline_ebpf::cuda::PARTS] = [Self::Launches, Self::Steps, Self::Rest];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Launches => "launches",
            Self::Steps => "steps",
            Self::Rest => "rest",
        }
    }

    /// Whether it is looked at where so much is wanted.
    pub const fn is_of(self, detail: Detail) -> bool {
        match detail {
            Detail::Off => false,
            Detail::Sync => !matches!(self, Self::Launches),
            Detail::Full => true,
        }
    }
}

/// How much is given up: looked at for a moment now and then only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thinned {
    #[default]
    Nothing,
    Launches,
    LaunchesAndSteps,
}

impl Thinned {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Launches, Self::LaunchesAndSteps];

    pub const fn has(self, part: Part) -> bool {
        match part {
            Part::Launches => !matches!(self, Self::Nothing),
            Part::Steps => matches!(self, Self::LaunchesAndSteps),
            Part::Rest => false,
        }
    }
}
