//! What the kernel tells at once of calls: what went wrong for the first time, and communicators that begin and end; as findings, with the
//! moment.

use std::{collections::HashMap, fs, path::Path};

use aya::maps::{MapData, RingBuf};
use plumbline_ebpf::{
    cuda::UNKNOWN_DEVICE,
    cuda_told::{Record, Told},
};
use plumbline_policy::Severity;
use zerocopy::FromBytes as _;

use super::{
    calls::{CALLS, result as cuda_result},
    libraries::start_boot_ns,
    nccl::{
        account::{name, number, result as nccl_result},
        functions::FUNCTIONS,
    },
};
use crate::event::{Event, Finding, FoundProcess, What};

/// What ends a process's work on its GPU, as `cuda.h` says of these results.
const FATAL: [&str; 12] = [
    "ecc_uncorrectable",
    "nvlink_uncorrectable",
    "illegal_address",
    "launch_timeout",
    "launch_failed",
    "device_unavailable",
    "assert",
    "hardware_stack_error",
    "illegal_instruction",
    "misaligned_address",
    "invalid_address_space",
    "invalid_pc",
];

/// What is an answer to a question, and no failure: of programs that can do without a GPU.
const ANSWERS: [&str; 3] = ["no_device", "insufficient_driver", "not_ready"];

/// Findings from one turn to the next, the grave ones and the others, and of one process: it may begin and end communicators, and fail, as
/// often as it likes.
const MOST_IN_A_TURN: usize = 256;
const MOST_OF_ONE: usize = 16;

/// Records that are taken at once.
const MOST_AT_ONCE: usize = 1024;

/// What is told, and what was too much.
#[derive(Debug, Default)]
pub struct Telling {
    in_this_turn: HashMap<(bool, u32), usize>,
    /// Findings that nobody was told, as there were too many.
    pub withheld: u64,
}

impl Telling {
    pub fn begin_turn(&mut self) {
        self.in_this_turn.clear();
    }

    /// What is in the ring now.
    pub fn take(&mut self, ring: &mut RingBuf<MapData>, proc: &Path) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..MOST_AT_ONCE {
            let Some(item) = ring.next() else { break };
            let Ok(record) = Record::read_from_bytes(&item) else { continue };
            drop(item);
            events.extend(self.event(&record, || name_then(proc, record.pid, record.boot_ns)));
        }
        events
    }

    fn event(&mut self, record: &Record, process: impl FnOnce() -> String) -> Option<Event> {
        let Said { kind, severity, text, evidence } = said(record)?;
        let is_grave = severity >= Severity::High;
        let of_kind = self.in_this_turn.iter().filter(|((grave, _), _)| *grave == is_grave);
        let of_kind: usize = of_kind.map(|(_, count)| count).sum();
        let of_one = self.in_this_turn.entry((is_grave, record.pid)).or_default();
        if of_kind >= MOST_IN_A_TURN || *of_one >= MOST_OF_ONE {
            self.withheld += 1;
            return None;
        }
        *of_one += 1;
        let name = process();
        let text = format!("{name} ({}): {text}", record.pid);
        let evidence = evidence.into_iter().map(|(name, figure)| (name.to_owned(), super::account::float(figure)));
        let process = Some(FoundProcess { pid: record.pid, name });
        let finding =
            Finding { evidence: evidence.collect(), process, ..Finding::new(kind, severity, "node".to_owned(), text) };
        Some(Event { boot_ns: record.boot_ns, origin: None, task: None, what: What::Finding(finding) })
    }
}

/// Of the process that had the number then; another one may have it by now.
fn name_then(proc: &Path, pid: u32, boot_ns: u64) -> String {
    match start_boot_ns(proc, pid) {
        Some(start_boot_ns) if start_boot_ns <= boot_ns => process_name(proc, pid),
        _ => HAS_ENDED.to_owned(),
    }
}

const HAS_ENDED: &str = "a process that has ended";

pub fn process_name(proc: &Path, pid: u32) -> String {
    let name = fs::read(proc.join(pid.to_string()).join("comm")).unwrap_or_default();
    let name = String::from_utf8_lossy(&name);
    if name.is_empty() { HAS_ENDED.to_owned() } else { name.trim_end().to_owned() }
}

/// A record in words.
struct Said {
    kind: &'static str,
    severity: Severity,
    text: String,
    evidence: Vec<(&'static str, u64)>,
}

/// `None` for what is nobody's concern.
fn said(record: &Record) -> Option<Said> {
    const FAILED: u32 = Told::Failed as u32;
    const BEGUN: u32 = Told::Begun as u32;
    const ENDED: u32 = Told::Ended as u32;
    const ERROR: u32 = Told::Error as u32;
    let comm = name(record.hash);
    let member = format!("rank {} of {}", number(record.rank), number(record.ranks));
    let row = usize::try_from(record.call).ok()?;
    let thread = ("tid", u64::from(record.tid));
    Some(match record.what {
        FAILED => {
            let (call, result) = (CALLS.get(row)?, cuda_result(record.result));
            let severity = match &*result {
                result if ANSWERS.contains(&result) => return None,
                result if FATAL.contains(&result) => Severity::High,
                "out_of_memory" => Severity::Medium,
                _ => Severity::Low,
            };
            let device = if record.device == UNKNOWN_DEVICE { "unknown".to_owned() } else { record.device.to_string() };
            let of = if record.bytes > 0 { format!(" of {} bytes", record.bytes) } else { String::new() };
            let text = format!("{}{of} failed on its device {device}: {result}", call.name);
            let bytes = (record.bytes > 0).then_some(("bytes", record.bytes));
            Said { kind: "cuda.failure", severity, text, evidence: [thread].into_iter().chain(bytes).collect() }
        }
        BEGUN => Said {
            kind: "nccl.communicator",
            severity: Severity::Informational,
            text: format!("it is {member} in NCCL's communicator {comm}"),
            evidence: vec![thread],
        },
        ENDED => {
            let function = FUNCTIONS.get(row)?;
            // Of who is done, or of who gives up what hangs.
            let severity = if function.name == "abort" { Severity::Low } else { Severity::Informational };
            let text = format!("it ended NCCL's communicator {comm}, in which it was {member}, by {}", function.symbol);
            Said { kind: "nccl.communicator.end", severity, text, evidence: vec![thread] }
        }
        // Nothing that is asked of the communicator is done any more.
        ERROR => Said {
            kind: "nccl.async_error",
            severity: Severity::High,
            text: format!("NCCL says of communicator {comm}, in which it is {member}: {}", nccl_result(record.result)),
            evidence: vec![thread],
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(what: Told, call: &str) -> Record {
        let place = |at: Option<usize>| at.and_then(|at| u32::try_from(at).ok());
        let row = place(CALLS.iter().position(|row| row.name == call))
            .or(place(FUNCTIONS.iter().position(|row| row.name == call)));
        Record { what: what as u32, call: row.unwrap_or_default(), pid: 7, tid: 9, ..Record::default() }
    }

    #[test]
    fn a_process_is_named_that_was_there_then() {
        let (proc, own) = (Path::new("/proc"), std::process::id());
        assert_eq!(name_then(proc, own, u64::MAX), process_name(proc, own));
        assert_eq!([name_then(proc, own, 0), name_then(proc, u32::MAX, u64::MAX)], [HAS_ENDED; 2]);
    }

    #[track_caller]
    fn check(record: &Record, expect: Option<&str>) {
        let event = Telling::default().event(record, || "python3".to_owned());
        let told = event.map(|event| match event.what {
            What::Finding(finding) => format!("{}: {}", finding.severity.as_str(), finding.text),
            _ => String::new(),
        });
        assert_eq!(told.as_deref(), expect);
    }

    #[test]
    fn a_failure_is_as_grave_as_its_result_and_an_answer_is_none() {
        let failed = |call, result| Record { result, device: UNKNOWN_DEVICE, ..record(Told::Failed, call) };
        check(
            &failed("stream_synchronize", 700),
            Some("high: python3 (7): stream_synchronize failed on its device unknown: illegal_address"),
        );
        let memory = Record { device: 1, bytes: 4096, ..failed("allocate", 2) };
        check(&memory, Some("medium: python3 (7): allocate of 4096 bytes failed on its device 1: out_of_memory"));
        check(&failed("free", 12345), Some("low: python3 (7): free failed on its device unknown: 12345"));
        check(&failed("init", 100), None);
        check(&Record { call: 9999, ..failed("init", 1) }, None);
    }

    #[test]
    fn a_communicator_begins_goes_wrong_and_ends() {
        let of = |what, call| Record { hash: 0xc, rank: 3, ranks: 8, ..record(what, call) };
        check(
            &of(Told::Begun, "init"),
            Some("informational: python3 (7): it is rank 3 of 8 in NCCL's communicator 0xc"),
        );
        check(
            &Record { result: 6, ..of(Told::Error, "async_error") },
            Some("high: python3 (7): NCCL says of communicator 0xc, in which it is rank 3 of 8: remote_error"),
        );
        let ended = "python3 (7): it ended NCCL's communicator 0xc, in which it was rank 3 of 8, by";
        check(&of(Told::Ended, "destroy"), Some(&format!("informational: {ended} ncclCommDestroy")));
        check(&of(Told::Ended, "abort"), Some(&format!("low: {ended} ncclCommAbort")));
        let unknown = Record { hash: 0, rank: u32::MAX, ranks: u32::MAX, ..of(Told::Begun, "init") };
        check(
            &unknown,
            Some("informational: python3 (7): it is rank unknown of unknown in NCCL's communicator unknown"),
        );
        check(&Record { what: 99, ..unknown }, None);
    }

    #[test]
    fn what_is_too_much_is_withheld_and_counted_until_the_next_turn() {
        let mut telling = Telling::default();
        let begun = |pid| Record { pid, ..record(Told::Begun, "init") };
        let tell = |telling: &mut Telling, record: &Record| telling.event(record, String::new).is_some();
        assert_eq!((0..20).filter(|_| tell(&mut telling, &begun(1))).count(), MOST_OF_ONE);
        assert_eq!((2..300).filter(|pid| tell(&mut telling, &begun(*pid))).count(), MOST_IN_A_TURN - MOST_OF_ONE);
        assert_eq!(telling.withheld, 4 + 298 - 240);
        // What is grave has room of its own.
        assert!(tell(&mut telling, &Record { result: 6, ..record(Told::Error, "async_error") }));
        telling.begin_turn();
        assert!(tell(&mut telling, &begun(1)));
    }
}
