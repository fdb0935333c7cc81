//! Calls of CUDA's driver: bare, with an empty probe, with the daemon's, and with the same count by bpftrace.
//!
//! The library has the interface of the driver and nothing behind it. Two of its functions begin as the two classes do that the kernel
//! tells apart (`agent/src/cuda/trap.rs`). Rounds take turns, so that a machine that grows slower shifts all sides alike.

use std::any::Any;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use super::Spread;
use super::beside::Bpftrace;
use super::daemon::Daemon;
use crate::build::Build;
use crate::cmd;
use crate::error::{Error, Result};
use crate::workspace;

const ROUNDS: usize = 6;
const BATCHES: &str = "25";

/// Functions and the classes of their first instructions.
const FUNCTIONS: [(&str, &str); 2] = [("cuLaunchKernel", "stepped"), ("cuLaunchKernel_ptsz", "emulated")];

const FLOOD_THREADS: [u64; 3] = [1, 2, 4];
const FLOOD_SECONDS: u64 = 5;

const PROGRAM_ROUNDS: usize = 5;

const RANKS: usize = 8;
/// Until all have loaded their libraries and are members.
const RANKS_START: Duration = Duration::from_secs(3);
const GRAPHS_A_SECOND: u64 = 200;
const PACE_SECONDS: u64 = 10;
const PACE_ROUNDS: usize = 3;

/// A probe on an instruction that is stepped, Intel, bare metal: 1.07 million a second in the kernel's own `bench uprobe`, by the author of
/// its optimisation on the kernel's mailing list. Not measured here.
const BARE_METAL_STEPPED_NS: f64 = 936.0;
const LAUNCHES_A_SECOND: f64 = 20_000.0;

/// What is switched on while the calls are made; the first is what the others are compared with, the second what the rest is.
struct State {
    name: &'static str,
    on: fn(&Bench) -> Result<Box<dyn Any>>,
}

const STATES: [State; 4] = [
    State { name: "bare", on: |_| Ok(Box::new(())) },
    State { name: "empty probe", on: |bench| Ok(Box::new(Bpftrace::start(&bench.at_both("{ 1 }"))?)) },
    State { name: "daemon", on: |bench| Ok(Box::new(bench.daemon("full")?)) },
    State {
        name: "bpftrace count()",
        on: |bench| Ok(Box::new(Bpftrace::start(&bench.at_both("{ @[pid] = count(); }"))?)),
    },
];

pub(super) fn run(build: &Build) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root()).args([
        "build",
        "--release",
        "--package",
        "fake-cuda",
        "--package",
        "fake-nccl",
    ]);
    cargo.args(["--package", "plumbline-tests", "--bin", "bench-uprobes", "--bin", "cuda-caller", "--lib"]);
    cmd::run(&mut cargo)?;
    let bench = Bench::new(build)?;
    bench.calls();
    bench.flood()?;
    bench.ranks()
}

struct Bench {
    dir: PathBuf,
    library: PathBuf,
    binary: PathBuf,
    caller: PathBuf,
    /// Have the libraries, so that there is something to be attached to.
    holders: Vec<Child>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

impl Bench {
    fn new(build: &Build) -> Result<Self> {
        let (dir, release) = (workspace::target().join("bench"), workspace::target().join("release"));
        fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
        let library = dir.join("libcuda.so.1");
        let caller = release.join("bench-uprobes");
        let mut bench = Self { dir, library, binary: build.binary(), caller, holders: Vec::new() };
        bench.hold("libfake_cuda.so", &bench.library.clone())?;
        bench.hold("libfake_nccl.so", &bench.library.with_file_name("libnccl.so.2"))?;
        Ok(bench)
    }

    /// Has a process load the library, from this path.
    fn hold(&mut self, built: &str, library: &Path) -> Result<()> {
        let release = workspace::target().join("release");
        fs::copy(release.join(built), library).map_err(Error::file("write", library))?;
        let mut holder = Command::new(release.join("cuda-caller"));
        holder.arg(library).stdin(Stdio::piped()).stdout(Stdio::null());
        let started = holder.spawn();
        self.holders.push(started.map_err(|source| Error::Start { program: cmd::line(&holder), source })?);
        Ok(())
    }

    fn at_both(&self, action: &str) -> String {
        let at = |(function, _)| format!("uprobe:{}:{function} {action}", self.library.display());
        FUNCTIONS.map(at).join(" ")
    }

    /// Returns when the library's functions are looked at, and the first sample is over.
    fn daemon(&self, detail: &str) -> Result<Daemon> {
        let config = format!("cuda: {{ detail: {detail}, budget_percent: 100 }}\n");
        let daemon = Daemon::start(&self.binary, &self.dir, &config)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while daemon.sum("plumbline_cuda_watched_seconds_total{part=\"rest\"}").unwrap_or(0.0) < 1.0 {
            if Instant::now() > deadline {
                return Err(Error::said("the daemon does not look at the library"));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    fn called(&self, function: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.caller);
        command.arg(&self.library).arg(function).args(arguments);
        command
    }

    /// One thread, one call after the other.
    fn calls(&self) {
        // By round, state and function.
        let mut rounds: Vec<Vec<[Option<f64>; 2]>> = Vec::new();
        for round in 0..ROUNDS {
            let of_state = |state: &State| {
                let on = (state.on)(self);
                let failed = on.as_ref().err().map(ToString::to_string);
                if let (0, Some(why)) = (round, failed) {
                    println!("{}: not run, because {why}", state.name);
                }
                FUNCTIONS.map(|(function, _)| {
                    on.as_ref().ok()?;
                    number(&cmd::output(&mut self.called(function, &["batches", BATCHES])).ok()?)
                })
            };
            rounds.push(STATES.iter().map(of_state).collect());
        }
        for (function, (name, class)) in FUNCTIONS.iter().enumerate() {
            println!("\n{name}, {class}");
            for (state, State { name, .. }) in STATES.iter().enumerate() {
                let of = |round: &Vec<[Option<f64>; 2]>, state: usize| round[state][function];
                let ns: Vec<f64> = rounds.iter().filter_map(|round| of(round, state)).collect();
                let over: Vec<f64> =
                    rounds.iter().filter_map(|round| Some(of(round, state)? / of(round, 1)?)).collect();
                let (Some(ns), over) = (Spread::of(&ns), Spread::of(&over)) else { continue };
                print!("  {name:18} {:8.0} ns ({:.0} to {:.0})", ns.median, ns.least, ns.greatest);
                let over = over.filter(|_| state > 1);
                let words =
                    |r: Spread| format!("  x {:.3} of an empty one ({:.3} to {:.3})", r.median, r.least, r.greatest);
                println!("{}", over.map(words).unwrap_or_default());
            }
        }
    }

    /// What the program at a launch takes, and one that does nothing, as the kernel times them. The flood is there before the daemon is, so that
    /// its first sample finds the program at work.
    fn program_ns(&self, function: &str) -> Result<[f64; 2]> {
        let mut early = self.called(function, &["flood", "1", "12"]);
        let started = early.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut early = started.map_err(|source| Error::Start { program: "bench-uprobes".to_owned(), source })?;
        let daemon = self.daemon("full")?;
        let _ = early.wait();
        sleep(Duration::from_secs(6));
        let took = |program: &str| {
            let series = format!("plumbline_cuda_program_seconds{{program=\"{program}\"}}");
            1e9 * daemon.sum(&series).unwrap_or(f64::NAN)
        };
        Ok([took("cuda_launch"), took("nothing")])
    }

    /// As fast as several threads can: what is counted is what was called.
    fn flood(&self) -> Result<()> {
        println!();
        let seconds = FLOOD_SECONDS.to_string();
        let mut programs = Vec::new();
        for (function, class) in FUNCTIONS {
            let one = || self.program_ns(function);
            let rounds = (0..PROGRAM_ROUNDS).map(|_| one()).collect::<Result<Vec<[f64; 2]>>>()?;
            let [timed, nothing] =
                [0, 1].map(|at| Spread::of(&rounds.iter().map(|round| round[at]).collect::<Vec<_>>()));
            let (Some(timed), Some(nothing)) = (timed, nothing) else { continue };
            println!(
                "launch program, {class}: {:.0} ns a run ({:.0} to {:.0}), as the kernel times it; one that does nothing, \
                 elsewhere: {:.0} ns",
                timed.median, timed.least, timed.greatest, nothing.median
            );
            programs.push(timed.median - nothing.median);
        }
        let program_ns = programs.first().copied().unwrap_or(f64::NAN);
        let (stepped, _) = FUNCTIONS[0];
        let daemon = self.daemon("full")?;
        for threads in FLOOD_THREADS {
            let mut flood = self.called(stepped, &["flood", &threads.to_string(), &seconds]);
            let flood = flood.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let mut flood = flood.map_err(|source| Error::Start { program: "bench-uprobes".to_owned(), source })?;
            let mut said = String::new();
            let line = flood.stdout.take().and_then(|stdout| BufReader::new(stdout).read_line(&mut said).ok());
            let calls = line.and_then(|_| number(&said)).unwrap_or(f64::NAN);
            sleep(Duration::from_secs(6));
            let of_it = format!("plumbline_cuda_calls_total{{pid=\"{}\"", flood.id());
            let [found, lost] = [&*of_it, "plumbline_cuda_lost_total{"].map(|it| daemon.sum(it).unwrap_or(f64::NAN));
            drop(flood.stdin.take());
            let _ = flood.wait();
            #[expect(clippy::cast_precision_loss, reason = "seconds")]
            let rate = calls / FLOOD_SECONDS as f64;
            println!("{threads} threads: {rate:.0} launches/s, {calls} called, {found} counted, {lost} lost");
        }
        let share = LAUNCHES_A_SECOND * (BARE_METAL_STEPPED_NS + program_ns) / 1e7;
        println!(
            "derived, not measured: {LAUNCHES_A_SECOND} launches/s on bare metal would cost {share:.1} % of a core, at \
             {BARE_METAL_STEPPED_NS} ns a trap (published) and the program's time here"
        );
        Ok(())
    }

    /// The ranks' CPU time, of the middle one, and how many launches were compared and how many were not.
    fn paced(&self, daemon: Option<&Daemon>) -> Result<(f64, Option<[f64; 2]>)> {
        let (rate, seconds) = (GRAPHS_A_SECOND.to_string(), PACE_SECONDS.to_string());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let start_ms = (now + RANKS_START).as_millis().to_string();
        let start = |rank: usize| {
            let (ranks, rank) = (RANKS.to_string(), rank.to_string());
            let mut command = self.called("cuGraphLaunch", &["pace", &rate, &seconds, &ranks, &rank, &start_ms]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        };
        let mut ranks: Vec<Child> = (0..RANKS).filter_map(|rank| start(rank).ok()).collect();
        let ns = ranks.iter_mut().filter_map(|rank| {
            let mut said = String::new();
            BufReader::new(rank.stdout.take()?).read_line(&mut said).ok()?;
            number(&said)
        });
        let ns = Spread::of(&ns.collect::<Vec<_>>()).map(|ns| ns.median);
        let compared = daemon.map(|daemon| {
            sleep(Duration::from_secs(6));
            let sum = |series: &str| daemon.sum(&format!("plumbline_nccl_graph_launch_{series}{{")).unwrap_or(f64::NAN);
            [sum("skew_seconds_count"), sum("mismatched_total")]
        });
        for mut rank in ranks {
            drop(rank.stdin.take());
            let _ = rank.wait();
        }
        Ok((ns.ok_or_else(|| Error::said("no rank said anything"))?, compared))
    }

    /// Engines that decode with graphs: what the probes of the default detail cost each rank's thread.
    fn ranks(&self) -> Result<()> {
        println!("\n{RANKS} ranks of a communicator, {GRAPHS_A_SECOND} graph launches/s each");
        let mut shares = Vec::new();
        for _ in 0..PACE_ROUNDS {
            let (bare_ns, _) = self.paced(None)?;
            let daemon = self.daemon("sync")?;
            let (ns, compared) = self.paced(Some(&daemon))?;
            #[expect(clippy::cast_precision_loss, reason = "seconds")]
            shares.push((ns - bare_ns) / (PACE_SECONDS as f64 * 1e9) * 100.0);
            let [compared, not] = compared.unwrap_or([f64::NAN; 2]);
            println!("{compared} launches compared, {not} not");
        }
        if let Some(share) = Spread::of(&shares) {
            println!("{:.2} % of a thread ({:.2} to {:.2})", share.median, share.least, share.greatest);
        }
        Ok(())
    }
}

fn number(said: &str) -> Option<f64> {
    said.trim().parse().ok()
}
