//! Open and close of a file that no policy watches, and `getppid(2)`: the price that every program on the node pays.
//!
//! Rounds without the daemon, with one watched directory and with a thousand alternate, and each round compares
//! neighbours in time, so that a machine that grows slower or warmer shifts all sides alike.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Spread;
use super::daemon::{Daemon, watch_policy};
use crate::build::Build;
use crate::error::{Error, Result};
use crate::workspace;

const ROUNDS: usize = 8;
const BATCHES: usize = 15;
const CALLS: u32 = 10_000;
const MANY: usize = 1000;

pub(super) fn run(build: &Build) -> Result<()> {
    let dir = workspace::target().join("bench");
    let binary = build.binary();
    let one = policy(&dir, "one", 1)?;
    let many = policy(&dir, "many", MANY)?;
    let mut rounds = Vec::new();
    let mut attached = Vec::new();
    for round in 0..ROUNDS {
        let bare = Costs::measure(&binary)?;
        let daemon = start(&binary, &dir, &one, 1)?;
        let with_one = Costs::measure(&binary)?;
        attached.clone_from(&daemon.attached);
        drop(daemon);
        let daemon = start(&binary, &dir, &many, MANY)?;
        let with_many = Costs::measure(&binary)?;
        drop(daemon);
        println!("round {}: open+close {:.0}, {:.0}, {:.0} ns", round + 1, bare.open, with_one.open, with_many.open);
        rounds.push([bare, with_one, with_many]);
    }
    println!("\nattached: {}", attached.join("; "));
    for (call, of) in [("open+close", (|costs| costs.open) as fn(&Costs) -> f64), ("getppid", |costs| costs.getppid)] {
        let spread = |value: &dyn Fn(&[Costs; 3]) -> f64| {
            let values: Vec<f64> = rounds.iter().map(value).collect();
            Spread::of(&values).ok_or_else(|| Error::said("no round was measured"))
        };
        for (state, name) in ["bare", "1 directory", "1000 directories"].iter().enumerate() {
            let ns = spread(&|round| of(&round[state]))?;
            println!("{call:10} {name:17} {:7.0} ns ({:.0} to {:.0})", ns.median, ns.least, ns.greatest);
        }
        for (name, above, below) in [("daemon over bare", 1, 0), ("1000 over 1", 2, 1)] {
            let ratio = spread(&|round| of(&round[above]) / of(&round[below]))?;
            println!("{call:10} {name:17} {:7.3}    ({:.3} to {:.3})", ratio.median, ratio.least, ratio.greatest);
        }
    }
    Ok(())
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

/// Nanoseconds per call.
#[derive(Clone, Copy, Debug)]
struct Costs {
    open: f64,
    getppid: f64,
}

impl Costs {
    fn measure(file: &Path) -> Result<Self> {
        let open = per_call(|| {
            black_box(File::open(file).map_err(Error::file("open", file))?);
            Ok(())
        })?;
        let getppid = per_call(|| {
            black_box(rustix::process::getppid());
            Ok(())
        })?;
        Ok(Self { open, getppid })
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
