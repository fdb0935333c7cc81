//! Calls of libraries, with the part of the daemon that counts them and nothing else of it: the programs load, ranks are told apart, and who
//! was late is told in the right order, by the library's own clock.

use std::path::{Path, PathBuf};

use plumbline::{
    cuda::{self, CudaConfig},
    halt::Halt,
    message::Message,
    series::{Point, Series, cuda as calls, nccl},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::Ended;
use crate::caller::{COMM, Caller};

/// The kernel tells a probe which function it is at.
const COOKIES: (u32, u32) = (5, 15);

/// So far apart that an emulated machine does not change who comes first.
const TURNS: usize = 5;
const PERIOD_NS: u64 = 1_000_000_000;
const LATE_NS: [u64; 3] = [100_000_000, 0, 300_000_000];

/// Samples come every five seconds.
const SAMPLES: usize = 24;

pub(super) fn run(told: &mut dyn FnMut(&str, Ended)) {
    told("ranks are told apart and who is late is told in the right order", ranks());
}

fn ranks() -> Ended {
    if plumbline::probes::kernel::version() < COOKIES {
        let (major, minor) = COOKIES;
        return Ended::NotRun(format!("Linux {major}.{minor} and newer tell a probe which function it is at"));
    }
    match beside("nccl-caller").zip(beside("libfake_nccl.so")) {
        Some((caller, library)) => who_is_late(&caller, &library).into(),
        None => Ended::NotRun("nccl-caller or libfake_nccl.so is not built".to_owned()),
    }
}

fn beside(name: &str) -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.with_file_name(name)).filter(|path| path.exists())
}

fn who_is_late(caller: &Path, built: &Path) -> Result<(), String> {
    // By its name it is known; a link would be followed to another.
    let directory = std::env::temp_dir().join(format!("plumbline-nccl-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let library = directory.join("libnccl.so.2");
    std::fs::copy(built, &library).map_err(|error| error.to_string())?;
    let start = || Caller::start("nccl-caller", caller, &library);
    let mut ranks = [start()?, start()?, start()?];
    let (_end, halt) = Halt::pair().map_err(|error| error.to_string())?;
    let (out, inbox) = mpsc::channel(64);
    let _control = cuda::spawn(&CudaConfig::default(), &out, halt).map_err(|error| error.to_string())?;
    let mut samples = Samples(inbox);
    samples.wait(&calls::PROBED_FUNCTIONS, &[&library.display().to_string()], |functions| functions > 15.0)?;

    for (rank, caller) in ranks.iter_mut().enumerate() {
        caller.call(&format!("init ncclCommInitRank 3 {rank} 0"), "ok")?;
    }
    let now = clock_gettime(ClockId::Monotonic);
    let start_ns = (u64::try_from(now.tv_sec).unwrap_or(0) + 2) * 1_000_000_000;
    for (caller, late_ns) in ranks.iter_mut().zip(LATE_NS) {
        caller.order(&format!("run {TURNS} {start_ns} {PERIOD_NS} {late_ns}"))?;
    }
    let mut arrivals: Vec<Vec<u64>> = Vec::new();
    for caller in &mut ranks {
        let of_rank: Vec<u64> = caller.answer()?.split(' ').filter_map(|time| time.parse().ok()).collect();
        if of_rank.len() != TURNS {
            return Err(format!("{} arrivals instead of {TURNS}", of_rank.len()));
        }
        arrivals.push(of_rank);
    }
    // By the library's own clock.
    let first = |turn: usize| arrivals.iter().map(|of_rank| of_rank[turn]).min().unwrap_or_default();
    for (rank, of_rank) in arrivals.iter().enumerate() {
        let late_ns: u64 = of_rank.iter().enumerate().map(|(turn, arrival)| arrival - first(turn)).sum();
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let late_seconds = late_ns as f64 / 1e9;
        let last = if rank == 2 { TURNS as f64 } else { 0.0 };
        let labels = [COMM, &rank.to_string()];
        samples.wait(&nccl::LAST_ARRIVALS_TOTAL, &labels, |found| (found - last).abs() < 0.5)?;
        // An emulated clock goes as it likes between the probe and the function: a tenth of what tells the ranks apart.
        let is_near = |found: f64| (found - late_seconds).abs() < 0.01 * TURNS as f64;
        samples.wait(&nccl::LATENESS_SECONDS_TOTAL, &labels, is_near)?;
    }
    let _ = std::fs::remove_dir_all(directory);
    Ok(())
}

struct Samples(mpsc::Receiver<Message>);

impl Samples {
    /// Until a sample has this series with these labels, and what is wanted of it.
    fn wait(&mut self, series: &Series, labels: &[&str], wanted: impl Fn(f64) -> bool) -> Result<(), String> {
        let mut last = None;
        for _ in 0..SAMPLES {
            let message = self.0.blocking_recv().ok_or("nothing is counted; why is in the log above")?;
            let Message::Sample(sample) = message else { continue };
            let points = sample.points?;
            let is_it = |point: &&Point| *point.series == *series && point.labels.iter().eq(labels);
            last = points.iter().find(is_it).and_then(Point::number).or(last);
            if last.is_some_and(&wanted) {
                return Ok(());
            }
        }
        Err(format!("{} {labels:?} did not come to what was expected; it is {last:?}", series.name))
    }
}
