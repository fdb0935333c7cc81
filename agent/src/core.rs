//! The core role: one thread, one queue, the whole flow on one screen.
//!
//! Every message is taken in order: identified, judged, recorded, counted. The log is written here and nowhere else, so
//! its order is the order in which the core saw things. What cannot be recorded now (a full disk, say) is counted and
//! declared by a loss record as soon as the log takes records again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use plumbline_audit::{Draft, Log, LogError};
use plumbline_policy::{PolicySet, Verdict};

use crate::{
    clock,
    cost::Ledger,
    event::{Event, Loss, What},
    identity::{Identity, World, procfs::Processes},
    message::Message,
    probes::ntp,
    record::{Moment, Recorder},
    series::{Point, agent, kernel, store::Store},
    verdict::{self, WatchedPaths},
};

/// The store that the core fills and the HTTP side reads.
pub type SharedStore = Arc<Mutex<Store>>;

/// Locks the store; a panic elsewhere leaves numbers, not broken invariants.
pub fn lock(store: &SharedStore) -> std::sync::MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Policies and what they want watched: replaced together.
#[derive(Debug, Clone)]
pub struct Rules {
    pub policies: Arc<PolicySet>,
    pub watched: WatchedPaths,
}

/// All state of the core.
#[derive(Debug)]
pub struct Core<P> {
    pub world: World,
    pub processes: P,
    pub rules: Rules,
    pub recorder: Recorder,
    pub log: Log,
    pub ledger: Ledger,
    pub store: SharedStore,
    unrecorded: Unrecorded,
    /// While a loss is declared: the declaration is not one more lost record.
    declaring: bool,
}

/// Records that the log did not take.
#[derive(Debug, Default)]
struct Unrecorded {
    count: u64,
    warned: bool,
}

impl<P: Processes> Core<P> {
    pub fn new(processes: P, rules: Rules, recorder: Recorder, log: Log, ledger: Ledger, store: SharedStore) -> Self {
        Self {
            world: World::default(),
            processes,
            rules,
            recorder,
            log,
            ledger,
            store,
            unrecorded: Unrecorded::default(),
            declaring: false,
        }
    }

    /// Takes one message through all stages.
    pub fn handle(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.event(&event),
            Message::Sample(sample) => {
                self.ledger.observe(&sample);
                lock(&self.store).take(sample);
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let identity = self.world.identify(event, &self.processes);
        let verdict = verdict::judge(&self.rules.policies, &self.rules.watched, event, identity.as_ref());
        self.count(event, verdict.as_ref());
        if is_recorded(event, verdict.as_ref()) {
            self.record(event, identity.as_ref(), verdict.as_ref());
        }
    }

    fn count(&self, event: &Event, verdict: Option<&Verdict>) {
        let mut store = lock(&self.store);
        store.add(&agent::EVENTS, &[kind(&event.what)], 1.0);
        if let What::Loss(loss) = &event.what {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            store.add(&kernel::LOST, &[loss.place, &loss.what], loss.count as f64);
        }
        for one in verdict.map(Verdict::matched).unwrap_or_default() {
            let labels = [&*one.policy, &*one.rule, one.effect.as_str(), one.severity.as_str()];
            store.add(&agent::POLICY_MATCHES, &labels, 1.0);
        }
    }

    /// Seals the event into the log.
    fn record(&mut self, event: &Event, identity: Option<&Identity>, verdict: Option<&Verdict>) {
        let moment = Moment {
            unix_minus_boot_ns: i128::from(clock::unix_ns()) - i128::from(clock::boot_ns()),
            clock_sync: ntp::clock_sync(),
            policy_digest: self.rules.policies.digest(),
            policy_generation: self.rules.policies.generation(),
        };
        match self.recorder.draft(event, identity, verdict, &moment) {
            None => {}
            Some(Ok(mut draft)) => self.append(&mut draft),
            Some(Err(error)) => {
                tracing::error!(%error, kind = kind(&event.what), "an event could not become a record");
                self.unrecorded.count += 1;
                lock(&self.store).add(&kernel::LOST, &["log", "records"], 1.0);
            }
        }
    }

    fn append(&mut self, draft: &mut Draft) {
        match self.log.append(draft) {
            Ok(_) => self.unrecorded.warned = false,
            Err(error) => self.failed("record", &error),
        }
    }

    fn failed(&mut self, what: &'static str, error: &LogError) {
        let mut store = lock(&self.store);
        store.add(&agent::LOG_ERRORS, &[what], 1.0);
        if what == "record" && !self.declaring {
            self.unrecorded.count += 1;
            store.add(&kernel::LOST, &["log", "records"], 1.0);
        }
        drop(store);
        if !self.unrecorded.warned {
            self.unrecorded.warned = true;
            tracing::error!(error = %chain(error), what, "the audit log cannot be written; losses are counted and will be declared");
        }
    }

    /// What is due by time: checkpoints, declared losses, prices, the daemon's own figures.
    pub fn tick(&mut self) {
        let now_boot_ns = clock::boot_ns();
        if self.unrecorded.count > 0 {
            let count = std::mem::take(&mut self.unrecorded.count);
            let loss = Loss { place: "log", what: "records".to_owned(), cpu: None, count };
            self.declaring = true;
            let before = self.log.next_seq();
            self.record(&Event { boot_ns: now_boot_ns, origin: None, task: None, what: What::Loss(loss) }, None, None);
            if self.log.next_seq() == before {
                // Still no room.
                self.unrecorded.count = count;
            }
            self.declaring = false;
        }
        if let Err(error) = self.log.tick(Duration::from_nanos(now_boot_ns)) {
            self.failed("checkpoint", &error);
        }
        self.ledger.tick(now_boot_ns);
        let costs = self.ledger.points(now_boot_ns);
        let mut store = lock(&self.store);
        store.take(crate::series::Sample { source: "cost".into(), taken_boot_ns: now_boot_ns, points: Ok(costs) });
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        for (series, number) in [
            (&agent::LOG_RECORDS, self.log.next_seq() as f64),
            (&agent::LOG_CHECKPOINT, self.log.last_checkpoint().checkpoint.size as f64),
            (&agent::PROCESSES, self.world.len() as f64),
        ] {
            store.set(Point::new(series, &[], number));
        }
        let generation = Point::new(
            &agent::POLICY_GENERATION,
            &[self.rules.policies.digest()],
            f64::from(u32::try_from(self.rules.policies.generation()).unwrap_or(u32::MAX)),
        );
        store.replace(&agent::POLICY_GENERATION, vec![generation]);
    }

    /// Ends the log in order.
    pub fn close(self) -> Result<(), LogError> {
        self.log.close().map(drop)
    }
}

/// Every open below a watched directory is evidence; a connection is when a rule speaks of it.
fn is_recorded(event: &Event, verdict: Option<&Verdict>) -> bool {
    match event.what {
        What::Connect(_) => verdict.is_some_and(|verdict| !verdict.is_none()),
        What::FileOpen(_) | What::Loss(_) | What::Start(_) | What::Stop(_) => true,
        What::Exec(_) | What::Fork(_) | What::Exit(_) => false,
    }
}

/// The label of an event's kind.
fn kind(what: &What) -> &'static str {
    match what {
        What::FileOpen(_) => "file_open",
        What::Connect(_) => "connect",
        What::Exec(_) => "exec",
        What::Fork(_) => "fork",
        What::Exit(_) => "exit",
        What::Loss(_) => "loss",
        What::Start(_) => "start",
        What::Stop(_) => "stop",
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
