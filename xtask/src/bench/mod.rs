//! `cargo xtask bench`: what a thing costs with the daemon and without, measured in turns on this machine.
//!
//! One file per benchmark, one line in [`ALL`].

mod audit;
mod beside;
mod daemon;
mod engines;
mod flood;
mod gpu;
mod instructions;
mod open;
mod policies;
mod scrape;
mod timeline;
mod uprobes;

use clap::Args;

use crate::build::Build;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::privilege;

struct Benchmark {
    name: &'static str,
    about: &'static str,
    run: fn(&Build) -> Result<()>,
}

const ALL: [Benchmark; 10] = [
    Benchmark {
        name: "open",
        about: "calls that concern nobody: bare, with the daemon, beside an audit rule and bpftrace",
        run: open::run,
    },
    Benchmark {
        name: "instructions",
        about: "the same calls on every rung, in instructions of an emulated machine",
        run: instructions::run,
    },
    Benchmark {
        name: "flood",
        about: "opens of a watched file at growing rates, until some are lost; the account of every one",
        run: flood::run,
    },
    Benchmark {
        name: "audit",
        about: "the audit log: group commit, verifying and proofs, beside the same work done bare",
        run: audit::run,
    },
    Benchmark {
        name: "policies",
        about: "a thousand policies beside one: checking, reading, and asking them about an event",
        run: policies::run,
    },
    Benchmark {
        name: "gpu",
        about: "eight simulated GPUs: the worker and the daemon, steady and in an incident; memory over a million samples",
        run: gpu::run,
    },
    Benchmark { name: "scrape", about: "an engine's page: parsing it, and mapping it", run: scrape::run },
    Benchmark {
        name: "engines",
        about: "64 engines once a second: the daemon beside Prometheus and VictoriaMetrics, in CPU time per scrape",
        run: engines::run,
    },
    Benchmark {
        name: "timeline",
        about: "a node's last hour: memory and time for 64 engines and 16 GPUs in parts",
        run: timeline::run,
    },
    Benchmark {
        name: "uprobes",
        about: "calls of CUDA's driver: bare, with an empty probe, the daemon's and bpftrace's; floods, and ranks that decode",
        run: uprobes::run,
    },
];

/// Measure what the daemon costs; without a name, list the benchmarks.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench open")]
pub(crate) struct Bench {
    name: Option<String>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        let Some(name) = &self.name else {
            for benchmark in &ALL {
                println!("{:10} {}", benchmark.name, benchmark.about);
            }
            return Ok(());
        };
        let found = ALL.iter().find(|benchmark| benchmark.name == name);
        let known = || ALL.iter().map(|benchmark| benchmark.name).collect::<Vec<_>>().join(", ");
        let benchmark = found.ok_or_else(|| Error::said(format!("no benchmark `{name}`; there are: {}", known())))?;
        if !privilege::is_root() {
            return Err(Error::said(
                "not run, because the daemon must be started and stopped as root: `sudo cargo xtask bench …`",
            ));
        }
        let build = Build { release: true, ..Build::default() };
        build.run(&Cache::open()?)?;
        (benchmark.run)(&build)
    }
}

/// Middle, least and greatest of measured ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    /// None of no values.
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) };
        Some(Self { median, least: *sorted.first()?, greatest: *sorted.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_between_its_extremes() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, greatest: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, least: 1.0, greatest: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }
}
