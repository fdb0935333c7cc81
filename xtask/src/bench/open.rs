//! Calls that concern nobody: open and close of a file that no policy watches, `getppid(2)`, and a datagram sent and received
//! over loopback. The price that every program on the node pays.
//!
//! Rounds take turns between the bare machine, the daemon with one watched directory and with a thousand, and what others do
//! for the same purpose; each round compares neighbours in time, so that a machine that grows slower or warmer shifts all
//! sides alike.

use std::fs::{self, File};
use std::hint::black_box;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Spread;
use super::beside::{AuditRule, Bpftrace};
use super::daemon::{Daemon, watch_policy};
use crate::build::Build;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::tools::Tools;
use crate::workspace;

const ROUNDS: usize = 8;
const BATCHES: usize = 15;
const CALLS: u32 = 10_000;
const MANY: usize = 1000;

pub(super) fn run(build: &Build) -> Result<()> {
    let bench = Bench::new(build)?;
    let mut rounds: Vec<Vec<Option<Costs>>> = Vec::new();
    for round in 0..ROUNDS {
        let costs: Vec<Option<Costs>> = STATES.iter().map(|state| bench.measure(state, round == 0)).collect();
        let shown: Vec<String> =
            costs.iter().map(|costs| costs.map_or("-".to_owned(), |costs| format!("{:.0}", costs.0[0]))).collect();
        println!("round {}: {} {} ns", round + 1, CALLED[0], shown.join(", "));
        rounds.push(costs);
    }
    for (call, name) in CALLED.iter().enumerate() {
        let of = |round: &[Option<Costs>], state: usize| round[state].map(|costs| costs.0[call]);
        println!();
        for (state, State { name: which, .. }) in STATES.iter().enumerate() {
            let ns: Vec<f64> = rounds.iter().filter_map(|round| of(round, state)).collect();
            let Some(ns) = Spread::of(&ns) else { continue };
            print!("{name:10} {which:26} {:7.0} ns ({:.0} to {:.0})", ns.median, ns.least, ns.greatest);
            let over: Vec<f64> = rounds.iter().filter_map(|round| Some(of(round, state)? / of(round, 0)?)).collect();
            let over = Spread::of(&over).filter(|_| state != 0);
            println!(
                "{}",
                over.map_or(String::new(), |r| format!("  x {:.3} ({:.3} to {:.3})", r.median, r.least, r.greatest))
            );
        }
        let many: Vec<f64> = rounds.iter().filter_map(|round| Some(of(round, 2)? / of(round, 1)?)).collect();
        if let Some(r) = Spread::of(&many) {
            println!(
                "{name:10} {:26} {:7.3}    ({:.3} to {:.3})",
                "1000 directories over 1", r.median, r.least, r.greatest
            );
        }
    }
    Ok(())
}

const COUNT_OPENS: &str = "tracepoint:syscalls:sys_enter_openat { @[pid] = count(); }";

/// What is switched on while the calls are made.
struct State {
    name: &'static str,
    on: fn(&Bench) -> Result<Box<dyn std::any::Any>>,
}

/// The first is what the others are compared with; the second and third with each other.
const STATES: [State; 5] = [
    State { name: "bare", on: |_| Ok(Box::new(())) },
    State { name: "daemon, 1 directory", on: |bench| bench.daemon(&bench.one, 1) },
    State { name: "daemon, 1000 directories", on: |bench| bench.daemon(&bench.many, MANY) },
    State {
        name: "audit rule elsewhere",
        on: |bench| Ok(Box::new(AuditRule::set(&bench.auditctl, &bench.dir.join("one"))?)),
    },
    State { name: "bpftrace at openat", on: |_| Ok(Box::new(Bpftrace::start(COUNT_OPENS)?)) },
];

struct Bench {
    dir: PathBuf,
    binary: PathBuf,
    one: PathBuf,
    many: PathBuf,
    auditctl: PathBuf,
}

impl Bench {
    fn new(build: &Build) -> Result<Self> {
        let dir = workspace::target().join("bench");
        let (one, many) = (policy(&dir, "one", 1)?, policy(&dir, "many", MANY)?);
        let fetched = Tools::set_up(&Cache::open()?)?.directory().join("auditctl");
        let auditctl = if fetched.exists() { fetched } else { PathBuf::from("auditctl") };
        Ok(Self { dir, binary: build.binary(), one, many, auditctl })
    }

    /// `None` where this machine cannot have the state; said once.
    fn measure(&self, state: &State, says: bool) -> Option<Costs> {
        let outcome = (state.on)(self).and_then(|on| {
            if says && let Some(daemon) = on.downcast_ref::<Daemon>() {
                println!("{}: {}", state.name, daemon.attached.join("; "));
            }
            Costs::measure(&self.binary)
        });
        outcome
            .inspect_err(|why| {
                if says {
                    println!("{}: not run, because {why}", state.name);
                }
            })
            .ok()
    }

    fn daemon(&self, policies: &Path, directories: usize) -> Result<Box<dyn std::any::Any>> {
        Ok(Box::new(start(&self.binary, &self.dir, policies, directories)?))
    }
}

/// Makes so many directories, and a policy that watches them.
fn policy(dir: &Path, name: &str, directories: usize) -> Result<PathBuf> {
    let dir = dir.join(name);
    for number in 0..directories {
        let path = dir.join("models").join(number.to_string());
        fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
    }
    watch_policy(&dir, &dir.join("models/*"))
}

/// Returns when so many directories are watched.
fn start(binary: &Path, dir: &Path, policies: &Path, directories: usize) -> Result<Daemon> {
    let daemon = Daemon::start(binary, dir, &format!("policies: {}\n", policies.display()))?;
    let watched = || daemon.sum("plumbline_watched_directories").unwrap_or(0.0);
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    while watched() < directories as f64 {
        if Instant::now() > deadline {
            return Err(Error::said(format!("{} of {directories} directories are watched", watched())));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(daemon)
}

const CALLED: [&str; 3] = ["open+close", "getppid", "send+recv"];

/// Nanoseconds per call, of each in [`CALLED`].
#[derive(Clone, Copy, Debug)]
struct Costs([f64; 3]);

impl Costs {
    fn measure(file: &Path) -> Result<Self> {
        let said = |error: std::io::Error| Error::said(format!("a datagram over loopback: {error}"));
        let open = per_call(|| {
            black_box(File::open(file).map_err(Error::file("open", file))?);
            Ok(())
        })?;
        let getppid = per_call(|| {
            black_box(rustix::process::getppid());
            Ok(())
        })?;
        let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said)?;
        let to = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said)?;
        from.connect(to.local_addr().map_err(said)?).map_err(said)?;
        let datagram = per_call(|| {
            from.send(&[7; 64]).map_err(said)?;
            to.recv(&mut [0; 64]).map_err(said).map(drop)
        })?;
        Ok(Self([open, getppid, datagram]))
    }
}

/// The median of many batches: interruptions fall into few of them.
fn per_call(mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..CALLS {
            call()?;
        }
        batches.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
    }
    Spread::of(&batches).map(|spread| spread.median).ok_or_else(|| Error::said("no batch was measured"))
}
