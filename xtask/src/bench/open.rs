//! Open and close of a file that no policy watches: the price every program on the node pays.
//!
//! Rounds with and without the daemon alternate, and each round compares neighbours in time, so that a machine that grows
//! slower or warmer shifts both sides alike.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use super::Spread;
use super::daemon::Daemon;
use crate::build::Build;
use crate::error::{Error, Result};
use crate::workspace;

const ROUNDS: usize = 8;
const BATCHES: usize = 15;
const OPENS: u32 = 10_000;

pub(super) fn run(build: &Build) -> Result<()> {
    let dir = workspace::target().join("bench");
    let binary = build.binary();
    let (mut bare_ns, mut watched_ns, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut attached = Vec::new();
    for round in 0..ROUNDS {
        let bare = measure(&binary)?;
        let daemon = Daemon::start(&binary, &dir)?;
        let watched = measure(&binary)?;
        attached.clone_from(&daemon.attached);
        drop(daemon);
        println!("round {}: {bare:.0} ns bare, {watched:.0} ns with the daemon", round + 1);
        bare_ns.push(bare);
        watched_ns.push(watched);
        ratios.push(watched / bare);
    }
    let of = |values: &[f64]| Spread::of(values).ok_or_else(|| Error::said("no round was measured"));
    let (bare, watched, ratio) = (of(&bare_ns)?, of(&watched_ns)?, of(&ratios)?);
    println!("\nattached: {}", attached.join("; "));
    println!("bare       {:7.0} ns per open+close ({:.0} to {:.0})", bare.median, bare.least, bare.greatest);
    println!("daemon     {:7.0} ns per open+close ({:.0} to {:.0})", watched.median, watched.least, watched.greatest);
    println!("ratio      {:7.3} median of {ROUNDS} rounds ({:.3} to {:.3})", ratio.median, ratio.least, ratio.greatest);
    Ok(())
}

/// Nanoseconds per open and close, the median of many batches: interruptions fall into few of them.
fn measure(file: &Path) -> Result<f64> {
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..OPENS {
            black_box(File::open(file).map_err(Error::file("open", file))?);
        }
        batches.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(OPENS));
    }
    Spread::of(&batches).map(|spread| spread.median).ok_or_else(|| Error::said("no batch was measured"))
}
