//! The daemon's side of the GPU worker: it starts it, hears it, kills it when it is stuck, lets go of the GPUs when asked to.

mod dcgm;
mod fleet;
mod follow;
mod look;
mod running;
mod sxids;
mod tell;
mod view;
mod xids;

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use plumbline_policy::Severity;
use tokio::sync::{mpsc, watch};

pub use self::{
    fleet::{Fleet, GpuView, SOURCE, State},
    look::look,
    running::{Next, Program, Running},
    tell::WORKER_SOURCE,
    view::View,
    xids::XidCount,
};
use self::{
    running::{Ending, StartError},
    sxids::Sxids,
    xids::Xids,
};
use super::{
    config::GpuConfig,
    held::Held,
    kmsg::{KernelLog, Line},
    nvml,
    raw::events::{MIG_CHANGE, XID},
    release::ReleaseFiles,
    wire::{Frame, Rhythm},
};
use crate::{
    clock,
    event::{Event, Finding, What},
    halt::Halt,
    incident::Incident,
    message::Message,
};

/// How often all GPUs' ages are told, and the release is looked for.
const TICK: Duration = Duration::from_secs(1);

/// When the core takes a message so late, the worker may have had to wait for us.
const LONG_WAIT: Duration = Duration::from_millis(500);

/// Between two looks whether a worker can be started.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Frames that came while we waited for somebody else, and are heard before a tick: more than a socket holds are a habit.
const MOST_WAITING: usize = 256;

/// NVML is opened anew for a lost GPU after the configured pause, then twice that, and so on up to this.
const LONGEST_REOPEN: Duration = Duration::from_secs(16 * 60);

/// A worker whose GPUs are all silent is given this long before it is killed: a driver that loads firmware takes its time.
const KILL_AFTER: Duration = Duration::from_secs(30);

/// Before a worker that died is started anew; doubled each time, up to the pause before NVML is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A worker that ran so long was well: the next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// How long a worker that was killed is waited for at a stop.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);

/// From when on a killed worker counts as stuck; a second one is started beside it then, and no third.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The running keeper.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<()>,
    pub view: watch::Receiver<View>,
}

impl Worker {
    /// Waits for the keeper to end, which it does after a stop; not longer than three seconds.
    pub fn join(self) {
        let began = Instant::now();
        while !self.thread.is_finished() {
            if began.elapsed() >= JOIN_PATIENCE + TICK {
                tracing::warn!("the keeper of the gpu worker is left behind");
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        if self.thread.join().is_err() {
            tracing::error!("the keeper of the gpu worker had panicked");
        }
    }
}

/// Starts the keeper, which starts the worker. It ends at the halt, or when nobody receives any more.
pub fn spawn(
    config: &GpuConfig,
    program: &Path,
    (host, state_dir): (&str, &Path),
    incident: Incident,
    held: watch::Receiver<Arc<Held>>,
    out: mpsc::Sender<Message>,
    halt: Halt,
) -> io::Result<Worker> {
    let (view, seen) = watch::channel(View::default());
    let mut keeper = Keeper {
        program: Program { path: program.to_owned(), library: nvml::library(config) },
        release: ReleaseFiles::new(state_dir),
        rhythms: [config.steady(), config.incident()],
        incident,
        held,
        is_incident: false,
        fleet: Fleet::new(config.dcgm_names.then(|| host.to_owned()), config.steady().light_ms),
        xids: Xids::default(),
        sxids: Sxids::default(),
        kernel_log: open_kernel_log(&config.kernel_log),
        no_events: BTreeMap::new(),
        running: None,
        ending: Vec::new(),
        start_at: Instant::now(),
        pause: FIRST_PAUSE,
        absence: None,
        told_absence: None,
        is_released: false,
        silent_since: None,
        reopen_at: None,
        reopen_after: config.reopen(),
        reopen_pause: config.reopen(),
        driver: None,
        cost: None,
        restarts: [0; RESTARTS.len()],
        view,
        out,
        has_waited: Cell::new(false),
        halt,
    };
    let thread = thread::Builder::new().name("gpu".to_owned()).spawn(move || keeper.run())?;
    Ok(Worker { thread, view: seen })
}

/// A worker that found nobody to ask has done what it was started for.
const ABSENT: &str = "absent";

/// Why a worker ended otherwise, as the series names it.
const RESTARTS: [&str; 5] = ["died", "silent", "gone", "lost", "released"];

struct Keeper {
    program: Program,
    release: ReleaseFiles,
    /// Steady, incident.
    rhythms: [Rhythm; 2],
    incident: Incident,
    held: watch::Receiver<Arc<Held>>,
    is_incident: bool,
    fleet: Fleet,
    xids: Xids,
    sxids: Sxids,
    kernel_log: Result<KernelLog, String>,
    /// GPUs that do not tell their events, by index.
    no_events: BTreeMap<u32, String>,
    running: Option<Running>,
    ending: Vec<Ending>,
    /// Not before this is a worker started.
    start_at: Instant,
    pause: Duration,
    /// Why there is nobody to ask.
    absence: Option<String>,
    told_absence: Option<String>,
    is_released: bool,
    silent_since: Option<Instant>,
    /// While a GPU is lost.
    reopen_at: Option<Instant>,
    /// As configured.
    reopen_after: Duration,
    reopen_pause: Duration,
    driver: Option<String>,
    cost: Option<[f64; 3]>,
    restarts: [u64; RESTARTS.len()],
    view: watch::Sender<View>,
    out: mpsc::Sender<Message>,
    /// Whether the core had us wait since the last tick.
    has_waited: Cell<bool>,
    halt: Halt,
}

impl Keeper {
    fn run(&mut self) {
        let mut next_tick = Instant::now() + TICK;
        while !self.is_stopped() {
            self.start_when_due();
            let patience = next_tick.saturating_duration_since(Instant::now());
            let next = match &mut self.running {
                Some(running) => running.next(&self.halt, patience),
                None => {
                    let until_start = self.start_at.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
                    self.halt.wait(patience.min(until_start));
                    Next::Nothing
                }
            };
            self.next(next);
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                // What was said while we waited for somebody else is no silence; nor is what a worker could not say meanwhile.
                if self.has_waited.take() {
                    self.fleet.pardon(clock::boot_ns());
                }
                for _ in 0..MOST_WAITING {
                    let next = self.running.as_mut().map(|running| running.next(&self.halt, Duration::ZERO));
                    let Some(Next::Frame(frame)) = next else { break };
                    self.frame(frame);
                }
                self.tick();
            }
        }
        self.leave();
    }

    fn next(&mut self, next: Next) {
        match next {
            Next::Frame(frame) => self.frame(frame),
            Next::End if self.fleet.is_open() || self.absence.is_some() => self.end("died"),
            Next::End => {
                self.be_absent("the GPU worker died before NVML was open".to_owned());
                self.end("died");
            }
            Next::Nothing => {}
        }
    }

    fn is_stopped(&self) -> bool {
        self.halt.is_halted() || self.out.is_closed()
    }

    fn rhythm(&self) -> Rhythm {
        self.rhythms[usize::from(self.is_incident)]
    }

    fn start_when_due(&mut self) {
        self.ending.retain_mut(|ending| !ending.is_over());
        // One that is stuck may hold one GPU; two would be a habit.
        let is_in_the_way =
            self.ending.len() > 1 || self.ending.iter().any(|ending| ending.lasts() < STUCK_AFTER || self.is_released);
        if self.running.is_some() || is_in_the_way || Instant::now() < self.start_at {
            return;
        }
        self.follow_release();
        if self.is_released {
            return;
        }
        match Running::start(&self.program, self.rhythm(), Some(&self.release)) {
            Ok(running) => self.running = Some(running),
            Err(StartError::Released) => {}
            Err(StartError::System(error)) => {
                self.be_absent(format!("the GPU worker cannot be started: {error}"));
                self.start_at = Instant::now() + self.reopen_after;
            }
        }
    }

    fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Open { driver, is_simulated, count } => {
                tracing::info!(driver, simulated = is_simulated, gpus = count, "nvml is open");
                (self.absence, self.told_absence) = (None, None);
                self.fleet.open(&driver, count, clock::boot_ns());
                self.no_events.clear();
                self.driver = Some(driver);
            }
            Frame::Listed(identity) => self.fleet.listed(identity, clock::boot_ns()),
            Frame::Nameless { index, reason } => {
                if let Some(reason) = self.fleet.nameless(index, &reason) {
                    self.be_absent(reason);
                    self.end(ABSENT);
                    self.start_at = Instant::now() + self.reopen_after;
                } else {
                    self.reopen_later();
                }
            }
            Frame::Absent { reason } => {
                self.be_absent(reason);
                self.end(ABSENT);
                self.start_at = Instant::now() + self.reopen_after;
            }
            Frame::Reading(reading) => {
                self.follow_holders();
                let samples = self.fleet.reading(reading);
                if self.fleet.has_news() {
                    self.tell();
                }
                for sample in samples {
                    self.send(Message::Sample(sample));
                }
            }
            Frame::Events { index, refused } => {
                if let Some(reason) = &refused {
                    tracing::warn!(reason, "a gpu does not tell its events");
                }
                match refused {
                    Some(reason) => drop(self.no_events.insert(index, reason)),
                    None => drop(self.no_events.remove(&index)),
                }
            }
            Frame::Event { index, boot_ns, kind, data, instances } => self.event(index, boot_ns, kind, data, instances),
            Frame::Lost { index, question } => {
                self.fleet.lost(index, &question);
                self.reopen_later();
            }
            Frame::DriverGone => {
                self.be_absent("the driver is gone, or another than before".to_owned());
                self.end("gone");
            }
            Frame::Cost { cpu_seconds, library_cpu_seconds, resident_bytes } => {
                self.cost = Some([cpu_seconds, library_cpu_seconds, resident_bytes]);
            }
        }
    }

    /// A GPU that stays lost must not cost the others a restart every minute.
    fn reopen_later(&mut self) {
        if self.reopen_at.is_none() {
            self.reopen_at = Some(Instant::now() + self.reopen_pause);
            self.reopen_pause = (self.reopen_pause * 2).min(LONGEST_REOPEN);
        }
    }

    fn event(&mut self, index: u32, boot_ns: u64, kind: u64, data: u64, instances: [Option<u32>; 2]) {
        let Some(gpu) = self.fleet.by_index(index) else { return };
        match kind {
            XID => self.xids.nvml(gpu, u32::try_from(data).unwrap_or(u32::MAX), instances, boot_ns),
            MIG_CHANGE => {
                let uuid = gpu.uuid.clone();
                let text = format!("the MIG configuration of {uuid} was changed");
                self.fleet.find("gpu.mig", Severity::Low, uuid, text);
                // Instances are listed when NVML is opened.
                self.end("gone");
            }
            _ => {}
        }
    }

    /// Errors of the kernel's log, and what was found of them.
    fn read_kernel_log(&mut self) {
        let now_boot_ns = clock::boot_ns();
        if let Ok(log) = &mut self.kernel_log {
            match log.errors() {
                Ok(lines) => {
                    for line in lines {
                        match line {
                            Line::Xid(line) => self.xids.kernel_log(self.fleet.at(line.pci), line, now_boot_ns),
                            Line::Sxid(line) => self.sxids.kernel_log(line),
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the kernel's log is not read any more");
                    self.kernel_log = Err(error.to_string());
                }
            }
        }
        let both = self.kernel_log.is_ok() && self.no_events.is_empty() && self.absence.is_none();
        for finding in self.xids.findings(now_boot_ns, both).into_iter().chain(self.sxids.findings()) {
            tracing::warn!(text = finding.text, kind = finding.kind, "the driver told an error");
            self.find(finding, now_boot_ns);
        }
        for sample in [self.xids.sample(now_boot_ns), self.sxids.sample(now_boot_ns)].into_iter().flatten() {
            self.send(Message::Sample(sample));
        }
    }

    fn find(&self, finding: Finding, now_boot_ns: u64) {
        let event = Event { boot_ns: now_boot_ns, origin: None, task: None, what: What::Finding(finding) };
        self.send(Message::Event(Box::new(event)));
    }

    fn be_absent(&mut self, reason: String) {
        if self.absence.as_ref() != Some(&reason) {
            tracing::warn!(reason, "no gpu is read");
        }
        self.fleet.not_asked(&reason, clock::boot_ns());
        // Each attempt is told, so that its age is that of the last.
        (self.absence, self.told_absence) = (Some(reason), None);
        self.tell();
    }

    /// The worker is killed, if it lives, and another follows after a pause.
    fn end(&mut self, why: &str) {
        let Some(running) = self.running.take() else { return };
        let (pid, lasted) = (running.pid(), running.started.elapsed());
        if why != ABSENT {
            tracing::warn!(pid, why, "the gpu worker ends");
        }
        self.fleet.closed();
        if let Some(count) = RESTARTS.iter().position(|&known| known == why).and_then(|at| self.restarts.get_mut(at)) {
            *count += 1;
        }
        self.ending.push(running.kill());
        self.pause = if lasted >= WELL_AFTER { FIRST_PAUSE } else { self.pause };
        self.start_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(self.reopen_after);
        (self.silent_since, self.reopen_at) = (None, None);
    }

    fn tick(&mut self) {
        self.follow_release();
        self.follow_incident();
        self.follow_holders();
        self.read_kernel_log();
        self.tell();
        let is_silent = self.running.is_some() && (self.fleet.is_stuck() || self.absence.is_some());
        if is_silent {
            let since = *self.silent_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= KILL_AFTER {
                // GPUs that are known are silent or lost, which says more than that nobody asks them.
                if self.fleet.is_empty() {
                    self.be_absent(format!("the driver has not answered for {} s", KILL_AFTER.as_secs()));
                }
                self.end("silent");
            }
        } else {
            self.silent_since = None;
        }
        if self.reopen_at.is_some_and(|at| Instant::now() >= at) {
            self.end("lost");
        } else if self.fleet.is_open() && !self.fleet.has_lost() {
            self.reopen_pause = self.reopen_after;
        }
    }

    /// The core takes messages until the daemon ends; then nobody is there to be told.
    fn send(&self, message: Message) {
        let began = Instant::now();
        let _ = self.out.blocking_send(message);
        if began.elapsed() >= LONG_WAIT {
            self.has_waited.set(true);
        }
    }

    fn leave(&mut self) {
        if let Some(running) = self.running.take() {
            self.ending.push(running.kill());
        }
        let began = Instant::now();
        self.ending.retain_mut(|ending| !ending.is_over());
        while !self.ending.is_empty() && began.elapsed() < JOIN_PATIENCE {
            thread::sleep(Duration::from_millis(10));
            self.ending.retain_mut(|ending| !ending.is_over());
        }
        for ending in &self.ending {
            tracing::warn!(pid = ending.pid(), "the gpu worker is stuck in the driver and is left behind");
        }
    }
}

fn open_kernel_log(path: &Path) -> Result<KernelLog, String> {
    KernelLog::open(path).map_err(|error| format!("{}: {error}", path.display()))
}
