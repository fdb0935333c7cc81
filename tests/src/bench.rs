//! Load the programs, do something, expect its event.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use plumbline::{
    event::{DeniedBy, Event, FileKey, Loss, What},
    identity::procfs::Procfs,
    message::Message,
    probes::{
        Counted, HookVerdict, Probes, ProbesConfig,
        canary::{Canary, Finding, Proof},
        deny::DenyTables,
        loss::{Holes, LossAccount},
        sensor::{self, Taps},
        watch::{Enrolled, Watched},
    },
    verdict::deny::Denier,
};
use plumbline_policy::PolicySet;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};

/// Emulated machines are slow; a real one answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long silence must last to count as silence.
const SILENCE: Duration = Duration::from_millis(300);

/// The programs, attached, with one watched directory.
#[derive(Debug)]
pub struct Bench {
    runtime: Runtime,
    probes: Probes,
    events: mpsc::Receiver<Message>,
    answers: std_mpsc::Receiver<Enrolled>,
    holes: Arc<Holes>,
    proof: Arc<Proof>,
    account: LossAccount,
    stop: watch::Sender<bool>,
    denier: Option<Denier>,
    policies: Option<PolicySet>,
    watched: Vec<Watched>,
}

/// What a bench can be short of.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub ring_bytes: u32,
    /// Length of the queue behind the rings: a short one makes the drain wait, and the ring fill.
    pub queue: usize,
    /// Of one cgroup; 0 for no limit.
    pub records_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ring_bytes: 1 << 20, queue: 65_536, records_per_second: 0 }
    }
}

/// A check's outcome: what was wrong, in words.
pub type Outcome = Result<(), String>;

impl Bench {
    /// Loads with the given hooks on the given rungs, everything else on its best.
    pub fn start(rungs: &[(&str, &str)], ring_bytes: u32, watch_directory: Option<&Path>) -> Result<Self, String> {
        Self::start_with(rungs, Limits { ring_bytes, ..Limits::default() }, watch_directory)
    }

    pub fn start_with(rungs: &[(&str, &str)], limits: Limits, watch_directory: Option<&Path>) -> Result<Self, String> {
        let Limits { ring_bytes, queue, records_per_second } = limits;
        let config = ProbesConfig {
            ring_bytes,
            records_per_second,
            rungs: rungs.iter().map(|&(hook, rung)| (hook.to_owned(), rung.to_owned())).collect(),
        };
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let mut probes = Probes::load(&config).map_err(|error| format!("{error:?}"))?;
        let (out, events) = mpsc::channel(queue);
        let (enrolled, answers) = std_mpsc::channel();
        let (stop, stopped) = watch::channel(false);
        let taps = Taps::new(enrolled);
        let (holes, proof) = (Arc::clone(&taps.holes), Arc::clone(&taps.canary));
        {
            let _entered = runtime.enter();
            let started = sensor::start(&mut probes, &out, &taps, &stopped);
            drop(started.map_err(|error| error.to_string())?);
        }
        let mut bench = Self {
            runtime,
            probes,
            events,
            answers,
            holes,
            proof,
            account: LossAccount::default(),
            stop,
            denier: None,
            policies: None,
            watched: Vec::new(),
        };
        if let Some(directory) = watch_directory {
            bench.watch(directory)?;
        }
        Ok(bench)
    }

    /// Watches this directory and no other.
    pub fn watch(&mut self, directory: &Path) -> Outcome {
        let asked = [PathBuf::from(directory)];
        let enrolment =
            self.probes.watch(&asked, &self.answers, false, &mut |_| {}).map_err(|error| error.to_string())?;
        match enrolment.failed.first() {
            Some((path, error)) => Err(format!("{}: {error}", path.display())),
            None => Ok(()),
        }
    }

    /// Puts this policy in force as the daemon does.
    pub fn enforce(&mut self, text: &str) -> Outcome {
        self.enforce_all(&[("p.yaml".to_owned(), text.to_owned())]).map(drop)
    }

    /// Puts these policies in force; how long it took to watch their directories, and then to fill the kernel's tables.
    pub fn enforce_all(&mut self, documents: &[(String, String)]) -> Result<[Duration; 2], String> {
        let documents = documents.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let mut policies = PolicySet::from_documents(documents).map_err(|error| format!("{error:?}"))?;
        if let Some(before) = &self.policies {
            policies = policies.following(before);
        }
        if self.denier.is_none() {
            let tables = DenyTables::take(&mut self.probes).map_err(|error| error.to_string())?;
            let mut denier = Denier::new(tables);
            for (key, path, whose) in self.probes.running_by_name()? {
                denier.is_called(key, path, whose);
            }
            self.denier = Some(denier);
        }
        let Some(denier) = &mut self.denier else { return Err("no denier".to_owned()) };
        let directories = plumbline::verdict::directories(&policies);
        let mut about_to = |watched: &[Watched]| {
            denier.watches(&watched.iter().map(|watched| (watched.key, watched.asked.clone())).collect(), true);
        };
        let began = Instant::now();
        let enrolment = self.probes.watch(&directories, &self.answers, false, &mut about_to);
        let watched = began.elapsed();
        self.watched = enrolment.map_err(|error| error.to_string())?.watched;
        let began = Instant::now();
        let prepared = denier.prepare(&policies, &Procfs::default())?;
        let filled = began.elapsed();
        // What follows is a store, and then the removal of what was there before.
        denier.put_in_force(prepared);
        self.policies = Some(policies);
        Ok([watched, filled])
    }

    /// This lane of the policies in force.
    pub fn denied_by(&self, lane: u32) -> Option<DeniedBy> {
        let generation = u32::try_from(self.policies.as_ref()?.generation()).ok()?;
        Some(DeniedBy { generation, lane })
    }

    /// A directory that policies watch, as the programs know it.
    pub fn key_of(&self, directory: &Path) -> Option<FileKey> {
        self.watched.iter().find(|watched| watched.asked == directory).map(|watched| watched.key)
    }

    /// Lets a canary sing in this directory; what the attached hooks did not tell twice in a row, as the daemon counts, or not
    /// rightly. The daemon's own enrolling close may take away what the first song has read.
    pub fn canary(&mut self, directory: &Path) -> Result<Finding, String> {
        let canary = Canary::new(directory, Arc::clone(&self.proof)).map_err(|error| error.to_string())?;
        let key = self.probes.enrol_canary(canary.path(), &self.answers).map_err(|error| error.to_string())?;
        canary.enrolled(key).map_err(|error| error.to_string())?;
        let attached = self.verdicts().iter().filter(|verdict| verdict.attached().is_some());
        let expected = attached.fold(0, |bits, verdict| bits | 1 << verdict.hook.program);
        let sing = || canary.sing(expected).map_err(|error| error.to_string());
        let first = sing()?;
        if first.silent == 0 {
            return Ok(first);
        }
        let second = sing()?;
        Ok(Finding { silent: first.silent & second.silent, ..second })
    }

    pub fn verdicts(&self) -> &[HookVerdict] {
        &self.probes.verdicts
    }

    pub fn probes(&mut self) -> &mut Probes {
        &mut self.probes
    }

    /// The first event that `wanted` accepts; the others are dropped.
    pub fn expect<T>(&mut self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        while let Some(event) = self.next(deadline) {
            if let Some(found) = wanted(&event) {
                return Ok(found);
            }
            if !matches!(event.what, What::Fork(_) | What::Exec(_) | What::Exit(_)) {
                others.push(format!("{event:?}"));
            }
        }
        Err(format!("no event of {what}; instead {} others, last {:?}", others.len(), others.last()))
    }

    /// Whether an event comes that is it; what came instead, if not. Silence ends the wait.
    pub fn expect_among(&mut self, shown: impl Fn(&Event) -> bool, is_it: impl Fn(&Event) -> bool) -> Outcome {
        let mut others = Vec::new();
        while let Some(event) = self.next(Instant::now() + SILENCE) {
            if is_it(&event) {
                return Ok(());
            }
            if shown(&event) {
                others.push(format!("{:?}", event.what));
            }
        }
        Err(format!("not told; instead {}", others.join(", ")))
    }

    /// What has come by now is dropped.
    pub fn drain_quickly(&mut self) {
        while self.next(Instant::now() + Duration::from_millis(5)).is_some() {}
    }

    /// No event that `unwanted` accepts, for a while.
    pub fn expect_none(&mut self, what: &str, unwanted: impl Fn(&Event) -> bool) -> Outcome {
        let deadline = Instant::now() + SILENCE;
        while let Some(event) = self.next(deadline) {
            if unwanted(&event) {
                return Err(format!("an event of {what}: {event:?}"));
            }
        }
        Ok(())
    }

    /// Every event that comes until silence.
    pub fn drain(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next(Instant::now() + SILENCE) {
            events.push(event);
        }
        events
    }

    /// What was lost since the last call.
    pub fn losses(&mut self) -> Result<Vec<Loss>, String> {
        let missing = self.holes.missing();
        let counted = self.probes.counted().map_err(|error| error.to_string())?;
        let mut events = self.account.settle(&missing, &counted, &[]);
        events.extend(self.probes.held_back(&mut self.account).map_err(|error| error.to_string())?);
        let loss = |event: Event| match event.what {
            What::Loss(loss) => Some(loss),
            _ => None,
        };
        Ok(events.into_iter().filter_map(loss).collect())
    }

    /// The kernel's counters of one program, all CPUs together.
    pub fn counted(&self, program: u32) -> Result<Counted, String> {
        let all = self.probes.counted().map_err(|error| error.to_string())?;
        Ok(all[program as usize].iter().fold(Counted::default(), |sum, cpu| Counted {
            generated: sum.generated + cpu.generated,
            ring_full: sum.ring_full + cpu.ring_full,
            table_full: sum.table_full + cpu.table_full,
        }))
    }

    fn next(&mut self, deadline: Instant) -> Option<Event> {
        let left = deadline.saturating_duration_since(Instant::now());
        let received = self.runtime.block_on(async { tokio::time::timeout(left, self.events.recv()).await });
        match received {
            Ok(Some(Message::Event(event))) => Some(*event),
            Ok(_) | Err(_) => None,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The sensor's tasks end with the runtime at the latest.
        let _ = self.stop.send(true);
    }
}
