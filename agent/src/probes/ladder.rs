//! Climbing the ladders: each hook on the best rung that this kernel takes, and a verdict for each.

use std::{collections::BTreeMap, fs::File, os::unix::fs::MetadataExt as _};

use aya::{
    Ebpf,
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FEntry, FExit, Lsm, ProgramError, RawTracePoint},
};
use thiserror::Error;

use super::{
    btf::Btf,
    hooks::{Attach, HOOKS, Hook, Program, Rung},
    kernel,
    offsets::Resolved,
};

/// How one hook fared.
#[derive(Debug, Clone)]
pub struct HookVerdict {
    pub hook: &'static Hook,
    pub state: State,
    /// The rungs tried before, each with the reason that the kernel or we gave.
    pub refused: Vec<Refusal>,
}

/// Where a hook ended.
#[derive(Debug, Clone, Copy)]
pub enum State {
    Attached(&'static Rung),
    /// Attached, and it does not see what the daemon does before its eyes.
    Silent(&'static Rung),
    /// What it would see, another hook sees already.
    NotNeeded,
    /// This kernel, or the configuration, has no place for any of its rungs.
    Unsupported,
    /// The kernel has the place and refused the program.
    Failed,
}

/// Why a rung was not taken.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub rung: &'static str,
    /// The kernel refused it; otherwise it was known beforehand that it cannot be.
    pub by_kernel: bool,
    pub reason: String,
}

impl HookVerdict {
    pub fn attached(&self) -> Option<&'static Rung> {
        match self.state {
            State::Attached(rung) => Some(rung),
            _ => None,
        }
    }

    /// The hook sees nothing of what it is for, and no other does.
    pub fn is_blind(&self) -> bool {
        matches!(self.state, State::Unsupported | State::Failed | State::Silent(_))
    }

    /// `attached (tp_btf)`, `not needed`, `unsupported: fentry: …` or `failed: fentry: …`.
    pub fn describe(&self) -> String {
        let refused = self
            .refused
            .iter()
            .map(|refusal| format!("{}: {}", refusal.rung, refusal.reason))
            .collect::<Vec<_>>()
            .join("; ");
        match self.state {
            State::Attached(rung) if refused.is_empty() => format!("attached ({})", rung.name),
            State::Attached(rung) => format!("attached ({}); refused {refused}", rung.name),
            State::Silent(rung) => format!("SILENT ({}): attached, but it does not see the canary", rung.name),
            State::NotNeeded => "not needed: another hook sees this".to_owned(),
            State::Unsupported => format!("unsupported: {refused}"),
            State::Failed => format!("failed: {refused}"),
        }
    }
}

/// What the kernel at hand gives and takes.
#[derive(Debug)]
pub(super) struct Ladder<'a> {
    pub(super) ebpf: &'a mut Ebpf,
    pub(super) btf: &'a aya::Btf,
    pub(super) types: &'a Btf,
    pub(super) resolved: &'a Resolved,
    /// Rungs that the configuration insists on, by hook.
    pub(super) forced: BTreeMap<&'a str, &'a str>,
    /// The program at the return of system calls, once a hook uses one.
    at_return: Option<&'static str>,
    /// `1 << program` of the hooks that it works for.
    at_return_bits: u32,
}

/// What climbing gave.
#[derive(Debug)]
pub(super) struct Climbed {
    pub(super) verdicts: Vec<HookVerdict>,
    /// `Control::at_return`.
    pub(super) at_return: u32,
    /// `Control::attached`.
    pub(super) attached: u32,
}

impl<'a> Ladder<'a> {
    pub(super) fn new(
        ebpf: &'a mut Ebpf,
        btf: &'a aya::Btf,
        types: &'a Btf,
        resolved: &'a Resolved,
        forced: BTreeMap<&'a str, &'a str>,
    ) -> Self {
        Self { ebpf, btf, types, resolved, forced, at_return: None, at_return_bits: 0 }
    }

    /// Climbs every hook's ladder, one by one: a hook that fails takes no other down.
    pub(super) fn climb_all(mut self) -> Climbed {
        let verdicts: Vec<HookVerdict> = HOOKS.iter().map(|hook| self.climb(hook)).collect();
        let attached = verdicts.iter().filter(|verdict| verdict.attached().is_some());
        let attached = attached.fold(0, |bits, verdict| bits | 1 << verdict.hook.program);
        Climbed { verdicts, at_return: self.at_return_bits, attached }
    }

    fn climb(&mut self, hook: &'static Hook) -> HookVerdict {
        let mut refused = Vec::new();
        let idle =
            hook.only_for.is_some_and(|programs| programs.iter().all(|number| self.at_return_bits & 1 << number == 0));
        if idle && self.forced.get(hook.name).is_none_or(|&name| name != "off") {
            return HookVerdict { hook, state: State::NotNeeded, refused };
        }
        for rung in hook.rungs {
            let wanted = self.forced.get(hook.name).is_none_or(|&name| name == rung.name);
            let by_us = if wanted { self.precheck(hook, rung) } else { Err("not wanted by `probes.rungs`".to_owned()) };
            let (by_kernel, tried) = match by_us {
                Ok(()) => (true, self.attach(rung)),
                Err(reason) => (false, Err(reason)),
            };
            match tried {
                Ok(()) => {
                    if rung.programs.iter().any(|program| program.attach.is_system_call_return()) {
                        self.at_return_bits |= 1 << hook.program;
                    }
                    return HookVerdict { hook, state: State::Attached(rung), refused };
                }
                Err(reason) => refused.push(Refusal { rung: rung.name, by_kernel, reason }),
            }
        }
        let failed = refused.iter().any(|refusal| refusal.by_kernel);
        HookVerdict { hook, state: if failed { State::Failed } else { State::Unsupported }, refused }
    }

    /// What can be known to fail before the kernel is asked.
    fn precheck(&self, hook: &Hook, rung: &Rung) -> Result<(), String> {
        if let Some(lacks) = self.resolved.lacks(hook.needs).or_else(|| self.resolved.lacks(rung.needs)) {
            return Err(lacks);
        }
        rung.programs
            .iter()
            .filter(|program| !self.is_left_out(program))
            .try_for_each(|program| self.has_place(program))
    }

    /// Whether this kernel does without the program.
    fn is_left_out(&self, program: &Program) -> bool {
        let function = match program.attach {
            Attach::FEntry(name, _) | Attach::FExit(name, _) => self.types.parameters(name),
            _ => Some(0),
        };
        program.optional && function.is_none()
    }

    fn has_place(&self, program: &Program) -> Result<(), String> {
        let arguments = |kind: &str, name: &str, has: Option<usize>, wanted: usize| match has {
            None => Err(format!("this kernel has no {kind} {name}")),
            Some(has) if has < wanted => {
                Err(format!("{kind} {name} takes {has} arguments here, {wanted} were expected"))
            }
            Some(_) => Ok(()),
        };
        match program.attach {
            Attach::Lsm(name, wanted) => {
                kernel::bpf_lsm()?;
                let function = format!("bpf_lsm_{name}");
                arguments("function", &function, self.types.parameters(&function), wanted)
            }
            Attach::FEntry(name, wanted) => arguments("function", name, self.types.parameters(name), wanted),
            // The result comes behind the last argument, so their number must be right.
            Attach::FExit(name, wanted) => match self.types.parameters(name) {
                Some(has) if has != wanted => {
                    Err(format!("function {name} takes {has} arguments here, {wanted} were expected"))
                }
                has => arguments("function", name, has, wanted),
            },
            Attach::BtfTracepoint(name, wanted) => {
                arguments("tracepoint", name, self.types.tracepoint_arguments(name), wanted)
            }
            // A raw tracepoint has the same arguments; without the type nobody knows them.
            Attach::RawTracepoint(name) => arguments("tracepoint", name, self.types.tracepoint_arguments(name), 0),
            Attach::CgroupSockAddr => Ok(()),
        }
    }

    /// Loads and attaches every program of the rung, or none; the reason of the first that fails.
    fn attach(&mut self, rung: &'static Rung) -> Result<(), String> {
        let programs: Vec<&'static Program> =
            rung.programs.iter().filter(|program| !self.is_left_out(program)).collect();
        for (position, program) in programs.iter().enumerate() {
            if program.attach.is_system_call_return() {
                match self.at_return {
                    Some(name) if name == program.name => continue,
                    Some(name) => return Err(format!("{name} is there already; `probes.rungs` mixes two of a kind")),
                    None => {}
                }
            }
            if let Err(error) = attach_one(self.ebpf, program, self.btf) {
                programs[..position].iter().for_each(|program| detach(self.ebpf, program));
                return Err(explain(&error));
            }
            if program.attach.is_system_call_return() {
                self.at_return = Some(program.name);
            }
        }
        Ok(())
    }
}

/// The kernfs inode number of the root of the cgroup v2 hierarchy.
const CGROUP_ROOT_INO: u64 = 1;

fn attach_one(ebpf: &mut Ebpf, program: &Program, btf: &aya::Btf) -> Result<(), AttachError> {
    let loaded = ebpf.program_mut(program.name).ok_or(AttachError::NoProgram)?;
    match program.attach {
        Attach::FEntry(function, _) => {
            let program: &mut FEntry = loaded.try_into()?;
            program.load(function, btf)?;
            program.attach()?;
        }
        Attach::FExit(function, _) => {
            let program: &mut FExit = loaded.try_into()?;
            program.load(function, btf)?;
            program.attach()?;
        }
        Attach::Lsm(hook, _) => {
            let program: &mut Lsm = loaded.try_into()?;
            program.load(hook, btf)?;
            program.attach()?;
        }
        Attach::BtfTracepoint(tracepoint, _) => {
            let program: &mut BtfTracePoint = loaded.try_into()?;
            program.load(tracepoint, btf)?;
            program.attach()?;
        }
        Attach::RawTracepoint(tracepoint) => {
            let program: &mut RawTracePoint = loaded.try_into()?;
            program.load()?;
            program.attach(tracepoint)?;
        }
        Attach::CgroupSockAddr => {
            let root = kernel::cgroup2_root().and_then(File::open).map_err(AttachError::Cgroup)?;
            if root.metadata().map_err(AttachError::Cgroup)?.ino() != CGROUP_ROOT_INO {
                return Err(AttachError::CgroupSubtree);
            }
            let program: &mut CgroupSockAddr = loaded.try_into()?;
            program.load()?;
            program.attach(root, CgroupAttachMode::Single)?;
        }
    }
    Ok(())
}

/// Unloading detaches; a program that was not loaded has nothing to undo.
pub(super) fn detach(ebpf: &mut Ebpf, program: &Program) {
    fn unload<'a, P>(program: Result<&'a mut P, ProgramError>, with: fn(&mut P) -> Result<(), ProgramError>) {
        let _ = program.and_then(|program: &'a mut P| with(program));
    }
    let Some(loaded) = ebpf.program_mut(program.name) else { return };
    match program.attach {
        Attach::FEntry(..) => unload(loaded.try_into(), FEntry::unload),
        Attach::FExit(..) => unload(loaded.try_into(), FExit::unload),
        Attach::Lsm(..) => unload(loaded.try_into(), Lsm::unload),
        Attach::BtfTracepoint(..) => unload(loaded.try_into(), BtfTracePoint::unload),
        Attach::RawTracepoint(_) => unload(loaded.try_into(), RawTracePoint::unload),
        Attach::CgroupSockAddr => unload(loaded.try_into(), CgroupSockAddr::unload),
    }
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
    const MAX_LINE_CHARS: usize = 160;
    match error {
        AttachError::Program(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            // Behind the reason stand the verifier's statistics (kernel/bpf/verifier.c, `print_verification_stats`).
            let is_statistics = |line: &str| {
                ["verification time", "stack depth", "processed "].iter().any(|head| line.starts_with(head))
            };
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty() && !is_statistics(line)).collect();
            // Between them the state of every register may stand.
            let short = |line: &&str| line.chars().take(MAX_LINE_CHARS).collect::<String>();
            let tail: Vec<String> = lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(short).collect();
            let tail = tail.join(" | ");
            if tail.is_empty() { format!("the kernel refused it: {io_error}") } else { format!("{io_error}: {tail}") }
        }
        AttachError::Program(ProgramError::SyscallError(error)) => format!("{}: {}", error.call, error.io_error),
        other => other.to_string(),
    }
}
