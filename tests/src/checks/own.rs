//! Whoever reaches for the daemon itself is told: for its maps, programs and links in the kernel, and for its memory.

use std::process::{Command, ExitCode};

use plumbline::{
    event::{BpfHow, BpfKind, Event, What},
    probes::hooks::{Hook, Rung},
};

use super::{Ended, on_rung, same};
use crate::{
    bench::{Bench, Outcome},
    bpf, bypass,
};

/// One of the daemon's maps, into which an entry of zeros can go and says nothing.
const MAP: &str = "DENY_USERS";

type Check = fn(&mut Bench) -> Outcome;

/// A child that reaches for its parent: `vm-init reach WHAT`.
pub fn reach(what: &str) -> ExitCode {
    let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap_or(0);
    let went = match what {
        "map" => bpf::put_into_maps(MAP).map(drop),
        _ => bypass::read_memory(parent),
    };
    match went {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{what}: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn run(told: &mut dyn FnMut(&str, Ended)) {
    let rungs = |hook: &str| Hook::find(hook).map_or(&[][..], |hook| hook.rungs);
    let checks: [(&str, &str, Check); 2] = [
        ("bpf", "who gets the daemon's map by its number and changes it is told", a_changed_map),
        ("memory", "who reads the daemon's memory is told", read_memory),
    ];
    for (hook, name, check) in checks {
        for rung in rungs(hook) {
            told(&format!("{name} ({})", rung.name), of(hook, rung, check));
        }
    }
}

fn of(hook: &str, rung: &Rung, check: Check) -> Ended {
    match on_rung(hook, rung) {
        Ok(mut bench) => check(&mut bench).into(),
        Err(ended) => ended,
    }
}

/// Runs a child that reaches; its number.
fn child(what: &str) -> Result<u32, String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let child = Command::new(exe).args(["reach", what]).spawn().map_err(|error| error.to_string())?;
    let pid = child.id();
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(pid) } else { Err(format!("the child: {}", output.status)) }
}

fn is_of(event: &Event, pid: u32) -> bool {
    event.task.as_ref().is_some_and(|task| task.pid == pid)
}

fn a_changed_map(bench: &mut Bench) -> Outcome {
    let pid = child("map")?;
    for how in [BpfHow::Open, BpfHow::Change] {
        let access = bench.expect(how.as_str(), |event| match &event.what {
            What::BpfAccess(access) if is_of(event, pid) && access.how == how && access.name == MAP.as_bytes() => {
                Some(access.clone())
            }
            _ => None,
        })?;
        same("kind", &access.kind, &BpfKind::Map)?;
    }
    // The daemon's own doing is not told.
    bench.expect_none("the daemon's own doing", |event| {
        matches!(event.what, What::BpfAccess(_)) && is_of(event, std::process::id())
    })
}

fn read_memory(bench: &mut Bench) -> Outcome {
    let pid = child("memory")?;
    let own = std::process::id();
    bench
        .expect("the reach", |event| match &event.what {
            What::MemoryAccess(access) if is_of(event, pid) && access.target_pid == own => Some(()),
            _ => None,
        })
        .map(drop)
}
