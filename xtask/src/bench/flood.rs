//! Opens of one watched file at growing rates: how many a second reach the log, and where every one of them went.
//!
//! Each open becomes a signed record. The rate is raised until records are lost, and then the greatest that lost none is
//! kept for a minute. The account must be exact in every step: opens made = events + losses told.

use std::fs::{self, File};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, watch_policy};
use crate::build::Build;
use crate::error::{Error, Result};
use crate::workspace;

const RATES: [u32; 7] = [2_500, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000];
const STEP: Duration = Duration::from_secs(10);
const KEPT: Duration = Duration::from_secs(60);
/// Losses are told at most a second later; the core may have a queue to take.
const SETTLED: Duration = Duration::from_secs(15);

pub(super) fn run(build: &Build) -> Result<()> {
    let dir = workspace::target().join("bench");
    let models = dir.join("flood/models");
    fs::create_dir_all(&models).map_err(Error::file("create", &models))?;
    let file = models.join("model.safetensors");
    fs::write(&file, "weights").map_err(Error::file("write", &file))?;
    let policies = watch_policy(&dir.join("flood"), &models)?;
    let config = format!("policies: {}\nprobes: {{ records_per_second: 0 }}\n", policies.display());
    let daemon = Daemon::start(&build.binary(), &dir, &config)?;
    let mut kept = None;
    for rate in RATES {
        let step = flood(&daemon, &file, rate, STEP)?;
        println!("{step}");
        step.balance()?;
        if step.lost + step.shed > 0.0 || step.reached() < f64::from(rate) * 0.95 {
            break;
        }
        kept = Some(rate);
    }
    if let Some(rate) = kept {
        let minute = flood(&daemon, &file, rate, KEPT)?;
        println!("for a minute:\n{minute}");
        minute.balance()?;
    }
    Ok(())
}

/// What one flood came to.
#[derive(Debug)]
struct Step {
    rate: u32,
    opens: u64,
    seconds: f64,
    generated: f64,
    events: f64,
    lost: f64,
    /// Of the events, those that the log had no room for.
    shed: f64,
    log_bytes: u64,
}

impl Step {
    fn reached(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let opens = self.opens as f64;
        opens / self.seconds
    }

    /// Records of the daemon's own opens: the canary's, and those that enrol.
    fn own(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let opens = self.opens as f64;
        self.generated - opens
    }

    /// Every open became an event or was told as lost; of what was lost, some may be the daemon's own.
    fn balance(&self) -> Result<()> {
        let Self { opens, generated, events, lost, .. } = self;
        let own_lost = events + lost - (generated - self.own());
        // Sums of whole numbers: a half is more than any error of theirs.
        let most = if *lost > 0.0 { self.own() } else { 0.0 };
        if (-0.5..=most + 0.5).contains(&own_lost) {
            return Ok(());
        }
        Err(Error::said(format!(
            "the account is wrong: {opens} opens, {generated} generated, {events} events, {lost} lost"
        )))
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let per_event = self.log_bytes as f64 / self.events.max(1.0);
        write!(
            f,
            "{:6} opens/s asked, {:6.0} made; {} opens and {:.0} of the daemon's own = {:.0} generated; {:.0} events + {:.0} lost; {:.0} not logged; \
             {per_event:.0} bytes of log per event",
            self.rate,
            self.reached(),
            self.opens,
            self.own(),
            self.generated,
            self.events,
            self.lost,
            self.shed
        )
    }
}

/// Opens the file at this rate, and waits until all of it is accounted for.
fn flood(daemon: &Daemon, file: &Path, rate: u32, time: Duration) -> Result<Step> {
    let counted = || -> Option<[f64; 4]> {
        Some([
            daemon.sum("plumbline_kernel_records_total{program=\"file_open\"}")?,
            daemon.sum("plumbline_events_total{kind=\"file_open\"}")?,
            daemon.sum("plumbline_lost_total{place=\"ring\",what=\"file_open\"}")?,
            // Events that had no room in the log.
            daemon.sum("plumbline_lost_total{place=\"log\"")?,
        ])
    };
    let unread = || Error::said("the daemon's page cannot be read");
    let before = counted().ok_or_else(unread)?;
    let log_before = daemon.log_bytes();
    let start = Instant::now();
    let mut opens = 0_u64;
    while start.elapsed() < time {
        // In slices of a millisecond; what a slice was too slow for, the next one makes up.
        let due = start.elapsed().as_secs_f64() * f64::from(rate);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of opens")]
        while opens < due as u64 && start.elapsed() < time {
            drop(File::open(file).map_err(Error::file("open", file))?);
            opens += 1;
        }
        sleep(Duration::from_millis(1));
    }
    let seconds = start.elapsed().as_secs_f64();
    let deadline = Instant::now() + SETTLED;
    let mut last = before;
    loop {
        sleep(Duration::from_secs(2));
        let now = counted().ok_or_else(unread)?;
        // Twice the same: nothing is on its way any more.
        let quiet = now.iter().zip(&last).all(|(now, last)| (now - last).abs() < 0.5);
        last = now;
        if quiet || Instant::now() > deadline {
            break;
        }
    }
    let [generated, events, lost, shed] = [0, 1, 2, 3].map(|at| last[at] - before[at]);
    Ok(Step { rate, opens, seconds, generated, events, lost, shed, log_bytes: daemon.log_bytes() - log_before })
}
