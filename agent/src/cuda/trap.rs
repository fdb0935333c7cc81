//! What it costs a thread to be stopped by a probe, before anything is counted.
//!
//! The kernel puts a breakpoint in place of a function's first instruction, and has to do that instruction by other means. A few it does
//! itself (`arch_uprobe_analyze_insn` in `arch/x86/kernel/uprobes.c`: pushes, jumps, calls, `nop`); any other one the thread executes
//! elsewhere, with a second trap behind it. CUDA's driver begins its functions with a comparison of memory, NCCL with a `push`. So there
//! are two classes, and each is measured here, on functions of this program's own.

use std::{
    fs, io,
    path::Path,
    sync::atomic::AtomicU32,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{ProgramError, uprobe::UProbeScope},
    sys::{Stats, enable_stats},
};

use super::probes::{RunTime, link, program};

/// How the kernel gets past a function's first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prologue {
    Emulated,
    Stepped,
}

/// `endbr64`, where indirect calls may land. It does nothing, and is stepped.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Bytes of a function's beginning that say its class.
pub const PROLOGUE_BYTES: usize = 8;

impl Prologue {
    /// By the code that a function begins with; and how many bytes further on a probe is cheaper, where all is still as at the entry.
    /// Newer kernels do more instructions themselves than are known here.
    pub fn of(code: [u8; PROLOGUE_BYTES]) -> (Self, u64) {
        if !cfg!(target_arch = "x86_64") {
            return (Self::Stepped, 0);
        }
        match code.strip_prefix(&ENDBR64) {
            Some(rest) if is_emulated(rest) => (Self::Emulated, ENDBR64.len() as u64),
            _ if is_emulated(&code) => (Self::Emulated, 0),
            _ => (Self::Stepped, 0),
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::Stepped => "stepped",
        }
    }
}

/// Intel's manual, volume 2, appendix A: opcodes of one byte, and those behind `0F`.
fn is_emulated(code: &[u8]) -> bool {
    match code {
        // push, nop, call, jmp, and jumps on a condition
        [0x50..=0x57 | 0x90 | 0xe8 | 0xe9 | 0xeb | 0x70..=0x7f, ..] => true,
        // push r8 to r15; jumps on a condition further away
        [0x41, 0x50..=0x57, ..] | [0x0f, 0x80..=0x8f, ..] => true,
        _ => false,
    }
}

/// Of one call of a function with a program at its entry, or with one at its return as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrapNs {
    pub entry: u64,
    pub entry_and_return: u64,
}

/// What was measured here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traps {
    pub emulated: TrapNs,
    pub stepped: TrapNs,
    /// Of one run of a program that does nothing, as the kernel times it: most of it is the timing, which nobody pays otherwise.
    pub timing_ns: u64,
}

impl Traps {
    pub const fn of(&self, prologue: Prologue) -> TrapNs {
        match prologue {
            Prologue::Emulated => self.emulated,
            Prologue::Stepped => self.stepped,
        }
    }

    /// Takes some 50 ms of the calling thread.
    pub fn measure(ebpf: &mut Ebpf) -> Result<Self, TrapError> {
        let (emulated, stepped) = (one(ebpf, stub::emulated)?, one(ebpf, stub::stepped)?);
        Ok(Self { emulated, stepped, timing_ns: timing_ns(ebpf, stub::emulated)? })
    }
}

/// Why it is not known what a probe costs.
#[derive(Debug, thiserror::Error)]
pub enum TrapError {
    #[error("cannot find this program's own code")]
    Place(#[source] io::Error),
    #[error("cannot attach to this program's own code")]
    Attach(#[from] ProgramError),
}

pub const NOTHING: &str = "nothing";
const NOTHING_RETURN: &str = "nothing_return";

/// Programs that do nothing.
pub const PROGRAMS: [&str; 2] = [NOTHING, NOTHING_RETURN];

/// This program, as the kernel finds it in whatever namespace.
const OWN_PROGRAM: &str = "/proc/self/exe";

fn place(function: extern "C" fn()) -> Result<u64, TrapError> {
    let maps = fs::read_to_string("/proc/self/maps").map_err(TrapError::Place)?;
    offset_of(&maps, function as usize as u64).ok_or_else(|| TrapError::Place(io::ErrorKind::NotFound.into()))
}

/// 0 where the kernel does not time programs; the middle one of some rounds, as others want the CPU too.
fn timing_ns(ebpf: &mut Ebpf, function: extern "C" fn()) -> Result<u64, TrapError> {
    let entry = link(ebpf, NOTHING, Path::new(OWN_PROGRAM), place(function)?, 0, UProbeScope::CallingProcess)?;
    let mut rounds = [0; ROUNDS];
    if let Ok(timing) = enable_stats(Stats::RunTime) {
        for round in &mut rounds {
            let before = RunTime::of(ebpf, NOTHING)?;
            (0..CALLS_A_ROUND).for_each(|_| function());
            *round = RunTime::of(ebpf, NOTHING)?.since(before).mean_ns().unwrap_or(0);
        }
        drop(timing);
    }
    program(ebpf, NOTHING)?.detach(entry)?;
    rounds.sort_unstable();
    Ok(rounds[ROUNDS / 2])
}

fn one(ebpf: &mut Ebpf, function: extern "C" fn()) -> Result<TrapNs, TrapError> {
    let offset = place(function)?;
    let (path, scope) = (Path::new(OWN_PROGRAM), UProbeScope::CallingProcess);
    let bare = call_ns(function);
    let entry = link(ebpf, NOTHING, path, offset, 0, scope)?;
    let with_entry = call_ns(function);
    let with_return = link(ebpf, NOTHING_RETURN, path, offset, 0, scope).map(|link| (call_ns(function), link));
    // Whatever came of it, nothing of it stays.
    program(ebpf, NOTHING)?.detach(entry)?;
    let (with_both, link) = with_return?;
    program(ebpf, NOTHING_RETURN)?.detach(link)?;
    Ok(TrapNs { entry: with_entry.saturating_sub(bare), entry_and_return: with_both.saturating_sub(bare) })
}

const ROUNDS: usize = 9;
const CALLS_A_ROUND: u32 = 200;

/// Of one call, ns: the middle one of some rounds, as others want the CPU too.
fn call_ns(function: extern "C" fn()) -> u64 {
    let mut rounds = [Duration::ZERO; ROUNDS];
    for round in &mut rounds {
        let began = Instant::now();
        (0..CALLS_A_ROUND).for_each(|_| function());
        *round = began.elapsed();
    }
    rounds.sort_unstable();
    u64::try_from(rounds[ROUNDS / 2].as_nanos()).unwrap_or(u64::MAX) / u64::from(CALLS_A_ROUND)
}

/// Where in its file code lies, by a process's memory map (proc_pid_maps(5)).
fn offset_of(maps: &str, address: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let offset = hex(fields.nth(1)?)?;
        let (start, end) = (hex(start)?, hex(end)?);
        (start..end).contains(&address).then(|| address - start + offset)
    })
}

/// The functions that are measured; what they compare is never written.
static NEVER: AtomicU32 = AtomicU32::new(0);

#[cfg(target_arch = "x86_64")]
mod stub {
    use core::arch::naked_asm;

    /// As NCCL's functions begin.
    #[unsafe(naked)]
    pub extern "C" fn emulated() {
        naked_asm!("push rbp", "pop rbp", "ret")
    }

    /// As those of CUDA's driver do since 11.3: a comparison with a word near by, and a jump.
    #[unsafe(naked)]
    pub extern "C" fn stepped() {
        naked_asm!("cmp dword ptr [rip + {never}], 1", "je 2f", "2:", "ret", never = sym super::NEVER)
    }
}

/// Elsewhere nothing is known of first instructions: one class, measured twice.
#[cfg(not(target_arch = "x86_64"))]
mod stub {
    use core::sync::atomic::Ordering;

    #[inline(never)]
    pub extern "C" fn emulated() {
        std::hint::black_box(super::NEVER.load(Ordering::Relaxed));
    }

    #[inline(never)]
    pub extern "C" fn stepped() {
        std::hint::black_box(super::NEVER.load(Ordering::Relaxed) + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, expect: (Prologue, u64)) {
        let mut bytes = [0xcc; PROLOGUE_BYTES];
        for (byte, text) in bytes.iter_mut().zip(code.split(' ')) {
            *byte = u8::from_str_radix(text, 16).unwrap();
        }
        assert_eq!(Prologue::of(bytes), expect, "{code}");
    }

    #[test]
    fn what_the_kernel_does_itself_is_told_from_what_is_stepped() {
        use Prologue::{Emulated, Stepped};
        check("55 48 89 e5", (Emulated, 0));
        check("41 57 41 56", (Emulated, 0));
        check("e9 00 00 00 00", (Emulated, 0));
        check("0f 84 00 00 00 00", (Emulated, 0));
        // cmp dword ptr [rip + 0x1234], 1
        check("83 3d 34 12 00 00 01", (Stepped, 0));
        check("81 3d 34 12 00 00 01 00", (Stepped, 0));
        // sub rsp, 24; mov rax, rdi
        check("48 83 ec 18", (Stepped, 0));
        check("48 89 f8", (Stepped, 0));
        check("41 89 f8", (Stepped, 0));
    }

    #[test]
    fn a_probe_goes_behind_a_landing_place_if_it_is_cheaper_there() {
        check("f3 0f 1e fa 55", (Prologue::Emulated, 4));
        check("f3 0f 1e fa 41 57", (Prologue::Emulated, 4));
        check("f3 0f 1e fa 48 83 ec 18", (Prologue::Stepped, 0));
    }

    #[test]
    fn the_functions_that_are_measured_are_of_their_classes_and_lie_where_the_file_has_them() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let file = fs::read(OWN_PROGRAM).unwrap();
        for (function, class) in
            [(stub::emulated as extern "C" fn(), Prologue::Emulated), (stub::stepped, Prologue::Stepped)]
        {
            function();
            let offset = usize::try_from(offset_of(&maps, function as usize as u64).unwrap()).unwrap();
            let code: [u8; PROLOGUE_BYTES] = file[offset..offset + PROLOGUE_BYTES].try_into().unwrap();
            assert_eq!(Prologue::of(code), (class, 0));
        }
        assert_eq!(offset_of(&maps, 0), None);
        assert_eq!(offset_of("nonsense\n-\n1-2\n", 1), None);
    }
}
