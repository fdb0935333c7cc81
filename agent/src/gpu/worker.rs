//! The thread that alone opens NVML: a round of questions every interval, one [`Sample`] per round.
//!
//! A getter may block in the driver for good, when a GPU is sick. The thread therefore holds nothing that the daemon
//! waits for: it sends through a weak handle, and [`Worker::join`] leaves it behind after a while.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::mpsc as std_mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::nvml::{self, Identity, NvmlUnavailable, Session};
use crate::{
    clock,
    config::GpuConfig,
    core::chain,
    message::Message,
    series::{Point, Sample},
};

/// What samples of this role are called.
const SOURCE: &str = "gpu";

/// When NVML is opened again, if there is none or a GPU has fallen silent.
const REOPEN_AFTER: Duration = Duration::from_secs(60);

/// How soon a stop is noticed between rounds.
const STOP_POLL: Duration = Duration::from_millis(100);

/// How long a thread that is stuck in the driver is waited for.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);

/// How long `plumbline doctor` waits for the driver.
const DESCRIBE_PATIENCE: Duration = Duration::from_secs(10);

/// The running worker.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<()>,
    /// Keeps the channel open for the thread, which has but a weak handle.
    _out: mpsc::Sender<Message>,
}

/// Starts the worker. It ends when `stop` turns true or nobody receives any more.
pub fn spawn(config: &GpuConfig, out: mpsc::Sender<Message>, stop: watch::Receiver<bool>) -> io::Result<Worker> {
    let interval = Duration::from_secs(config.interval_seconds.max(1));
    let mut rounds = Rounds::new(nvml::library(config));
    let weak = out.downgrade();
    let work = move || {
        while !is_stopped(&stop) {
            let began = Instant::now();
            let taken_boot_ns = clock::boot_ns();
            let points = rounds.next(began);
            let pause = if points.is_ok() { interval } else { REOPEN_AFTER };
            let points = points.map_err(|reason| format!("absent ({reason})"));
            let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns, points };
            let Some(out) = weak.upgrade() else { return };
            if out.blocking_send(Message::Sample(sample)).is_err() {
                return;
            }
            drop(out);
            while !is_stopped(&stop) && began.elapsed() < pause {
                thread::sleep(STOP_POLL.min(pause.saturating_sub(began.elapsed())));
            }
        }
    };
    Ok(Worker { thread: thread::Builder::new().name("gpu".to_owned()).spawn(work)?, _out: out })
}

impl Worker {
    /// Waits for the thread to end, which it does after a stop; not longer than two seconds.
    pub fn join(self) {
        let began = Instant::now();
        while !self.thread.is_finished() {
            if began.elapsed() >= JOIN_PATIENCE {
                tracing::warn!("the gpu worker is stuck in the driver and is left behind");
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if self.thread.join().is_err() {
            tracing::error!("the gpu worker had panicked");
        }
    }
}

fn is_stopped(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

/// What is remembered from round to round.
struct Rounds {
    library: PathBuf,
    session: Option<Session>,
    opened: Instant,
    /// Every GPU that was ever listed, by UUID: one that falls silent is down, not forgotten.
    known: BTreeMap<String, Identity>,
    /// Those that did not answer in the last round, so that each silence is logged once.
    down: Vec<String>,
    /// The last reason for which there was nobody to ask, so that it is logged once.
    absence: Option<String>,
}

impl Rounds {
    fn new(library: PathBuf) -> Self {
        Self { library, session: None, opened: Instant::now(), known: BTreeMap::new(), down: Vec::new(), absence: None }
    }

    /// Asks all GPUs everything, or says why there is nobody to ask.
    fn next(&mut self, now: Instant) -> Result<Vec<Point>, String> {
        let points = self.ask(now).map_err(|error| {
            self.session = None;
            chain(&error)
        });
        let absence = points.as_ref().err();
        if let Some(reason) = absence.filter(|&reason| self.absence.as_ref() != Some(reason)) {
            tracing::warn!(reason, "no gpu is read");
        }
        self.absence = absence.cloned();
        points
    }

    fn ask(&mut self, now: Instant) -> Result<Vec<Point>, NvmlUnavailable> {
        let session = match &mut self.session {
            Some(session) => session,
            closed => {
                let session = Session::open(&self.library)?;
                tracing::info!(driver = session.driver, simulated = session.is_simulated, "nvml is open");
                self.opened = now;
                closed.insert(session)
            }
        };
        let mut points = Vec::new();
        let mut up = Vec::new();
        for (identity, reading) in session.read()? {
            let uuid = identity.entity.uuid.clone();
            if !reading.measures.is_empty() {
                points.extend(identity.points(true));
                points.extend(reading.measures.iter().map(|measure| identity.entity.point(measure)));
                up.push(uuid.clone());
            }
            self.known.insert(uuid, identity);
        }
        if self.known.is_empty() {
            return Err(NvmlUnavailable::NoGpu);
        }
        let mut down = Vec::new();
        for (uuid, identity) in self.known.iter().filter(|(uuid, _)| !up.contains(uuid)) {
            points.extend(identity.points(false));
            if !self.down.contains(uuid) {
                tracing::error!(gpu = uuid, index = identity.index, "a gpu has fallen silent");
            }
            down.push(uuid.clone());
        }
        self.down = down;
        // A GPU that comes back after a reset is seen only by an NVML that was opened after it.
        if !self.down.is_empty() && now.saturating_duration_since(self.opened) >= REOPEN_AFTER {
            self.session = None;
        }
        Ok(points)
    }
}

/// For `plumbline doctor`: how many GPUs of which name there are, or why there is none.
pub fn describe(config: &GpuConfig) -> Result<String, String> {
    let library = nvml::library(config);
    let (answer, answered) = std_mpsc::channel();
    let ask = move || {
        let described = Session::open(&library).and_then(|mut session| {
            let gpus: Vec<Identity> = session.read()?.into_iter().map(|(identity, _)| identity).collect();
            words(&gpus).ok_or(NvmlUnavailable::NoGpu)
        });
        // Nobody listens any more when the driver took too long.
        let _ = answer.send(described.map_err(|error| chain(&error)));
    };
    thread::Builder::new().name("gpu".to_owned()).spawn(ask).map_err(|error| error.to_string())?;
    let late = |_| format!("the driver has not answered within {} s", DESCRIBE_PATIENCE.as_secs());
    answered.recv_timeout(DESCRIBE_PATIENCE).map_err(late)?
}

/// `None` when there is no GPU.
fn words(gpus: &[Identity]) -> Option<String> {
    let first = gpus.first()?;
    let mut names: Vec<&str> = gpus.iter().map(|gpu| gpu.name.as_str()).collect();
    names.dedup();
    let count = if gpus.len() == 1 { "1 GPU".to_owned() } else { format!("{} GPUs", gpus.len()) };
    let simulated = if first.entity.is_simulated { " (simulated)" } else { "" };
    Some(format!("{count}: {}, driver {}{simulated}", names.join(", "), first.driver))
}
