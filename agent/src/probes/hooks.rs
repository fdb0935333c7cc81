//! The table of hooks: for each logical program its ladder of rungs, best first.
//!
//! Adding a probe is its kernel program, its number in `plumbline_ebpf::program`, and one row of `table`; a test fails
//! when a program has no row.

use plumbline_ebpf::offsets::Group;

mod table;

/// One logical program and the ways to attach it.
#[derive(Debug)]
pub struct Hook {
    pub name: &'static str,
    pub program: u32,
    /// Kernel fields that every rung reads.
    pub needs: &'static [Group],
    /// Best first; the first that attaches is taken.
    pub rungs: &'static [Rung],
    /// What the node does not see without it.
    pub sees: &'static str,
    /// It has work to do only while one of these is done at the return of system calls.
    pub only_for: Option<&'static [u32]>,
}

/// One way to attach a hook.
#[derive(Debug)]
pub struct Rung {
    /// As shown by `doctor` and accepted by `probes.rungs` in the configuration.
    pub name: &'static str,
    /// All of them or none, but for those that this kernel has no place for and can do without.
    pub programs: &'static [Program],
    /// Kernel fields that only this rung reads.
    pub needs: &'static [Group],
    /// What it costs, in words; measured figures are in docs/journal.
    pub cost: &'static str,
    /// What it cannot see.
    pub blind: &'static str,
}

/// A kernel program and its place.
#[derive(Debug)]
pub struct Program {
    pub name: &'static str,
    pub attach: Attach,
    /// Kernels without the place do the same elsewhere.
    pub optional: bool,
}

/// What a program attaches to. The number is how many arguments it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    FEntry(&'static str, usize),
    FExit(&'static str, usize),
    /// A hook of the security modules, whose answer counts; of the function `bpf_lsm_…`.
    Lsm(&'static str, usize),
    BtfTracepoint(&'static str, usize),
    RawTracepoint(&'static str),
    /// The root of the cgroup v2 hierarchy.
    CgroupSockAddr,
}

impl Attach {
    /// Whether this is the return of every system call, where one program does the work of several hooks.
    pub fn is_system_call_return(self) -> bool {
        matches!(self, Self::BtfTracepoint("sys_exit", _) | Self::RawTracepoint("sys_exit"))
    }
}

impl Hook {
    pub fn find(name: &str) -> Option<&'static Self> {
        HOOKS.iter().find(|hook| hook.name == name)
    }

    pub fn rung(&self, name: &str) -> Option<&'static Rung> {
        self.rungs.iter().find(|rung| rung.name == name)
    }
}

pub use table::HOOKS;

#[cfg(test)]
mod tests {
    use plumbline_ebpf::program;

    use super::*;

    #[test]
    fn every_program_has_exactly_one_row_of_its_name() {
        for (number, name) in program::NAMES.iter().enumerate() {
            let rows: Vec<_> = HOOKS.iter().filter(|hook| hook.program as usize == number).collect();
            assert_eq!(rows.len(), 1, "program {name}");
            assert_eq!(rows[0].name, *name);
        }
    }

    #[test]
    fn what_a_hook_works_for_is_attached_before_it() {
        for (position, hook) in HOOKS.iter().enumerate() {
            for wanted in hook.only_for.unwrap_or_default() {
                let found = HOOKS.iter().position(|other| other.program == *wanted);
                assert!(found.is_some_and(|found| found < position), "{}", hook.name);
            }
        }
    }
}
