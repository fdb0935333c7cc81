//! The core role: one thread, one queue, the whole flow on one screen.
//!
//! Every message is taken in order: identified, judged, recorded, counted. The log gets its records from here and from
//! nowhere else, so its order is the order in which the core saw things. What becomes of a record is `custody`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use plumbline_audit::LogError;
use plumbline_policy::{Effect, Severity};

use crate::{
    clock,
    cost::{Ledger, LedgerFile},
    custody::{Custody, Worth, keeper::InForce, wall_clock::WallClock},
    diagnose::Diagnosis,
    event::{Event, Finding, Loss, Policies, What},
    holders::{Holders, News},
    identity::{Identity, World, pod::Told, procfs::Processes},
    incident::{self, Incident},
    message::Message,
    probes::ntp,
    record::{Moment, Recorder},
    series::{Point, agent, kernel, store::Store},
    timeline::{self, SharedTimeline},
    upkeep::Upkeep,
    verdict::{
        self, Denial, Judgement, Rules, Throttles,
        deny::{self, SharedDenier},
        kill,
    },
};

/// The store that the core fills and the HTTP side reads.
pub type SharedStore = Arc<Mutex<Store>>;

/// Locks the store; a panic elsewhere leaves numbers, not broken invariants.
pub fn lock(store: &SharedStore) -> std::sync::MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All state of the core.
#[derive(Debug)]
pub struct Core<P> {
    pub world: World,
    pub processes: P,
    pub rules: Rules,
    /// Those that were in force before, for events that the kernel saw under them.
    pub rules_before: Option<Rules>,
    /// Who is who, for the kernel.
    pub denier: Option<SharedDenier>,
    pub recorder: Recorder,
    pub custody: Custody,
    /// What the log's keeper is told of the policies.
    pub in_force: Arc<Mutex<InForce>>,
    pub ledger: Ledger,
    pub ledger_file: LedgerFile,
    pub timeline: SharedTimeline,
    pub store: SharedStore,
    pub wall_clock: WallClock,
    pub throttles: Throttles,
    /// When each rule matched last, by policy and rule: published at each tick.
    pub last_match: HashMap<(Arc<str>, Arc<str>), u64>,
    pub diagnosis: Diagnosis,
    pub holders: Holders,
    pub upkeep: Upkeep,
    pub incident: Incident,
    /// Grave findings about GPUs begin an incident.
    pub incident_by_findings: bool,
}

impl<P: Processes> Core<P> {
    /// Takes one message through all stages.
    pub fn handle(&mut self, message: Message) {
        match message {
            Message::Event(mut event) => {
                if let What::Finding(finding) = &mut event.what {
                    let (holders, now_boot_ns) = (&self.holders, clock::boot_ns());
                    finding.holders = holders.of(&finding.entity, now_boot_ns);
                    let process = finding.process.as_ref();
                    // RAS tells of ranks anywhere, by way of one process.
                    let process = process.filter(|_| !finding.kind.starts_with("nccl.ras."));
                    finding.gpus = process.map_or_else(Vec::new, |one| holders.gpus_of(one.pid, now_boot_ns));
                }
                self.event(&event);
            }
            Message::Tasks { taken_boot_ns, tasks } => self.world.heal(taken_boot_ns, &tasks, &self.processes),
            Message::Pods { taken_boot_ns, pods } => self.pods(taken_boot_ns, pods),
            Message::Rules(rules) => self.set_rules(*rules),
            Message::Allocations(allocations) => {
                let news = self.holders.allocated(allocations);
                self.tell_holders(news);
            }
            Message::Sample(mut sample) => {
                let (world, processes) = (&mut self.world, &self.processes);
                let news = self.holders.observe(&mut sample, |pid| world.named(pid, clock::boot_ns(), processes));
                self.tell_holders(news);
                self.ledger.observe(&sample);
                timeline::lock(&self.timeline).observe(&sample, self.incident.holds(clock::boot_ns()));
                for finding in self.diagnosis.observe(&sample) {
                    self.say(What::Finding(finding));
                }
                lock(&self.store).take(sample);
            }
        }
    }

    fn tell_holders(&self, news: Option<News>) {
        for (series, points) in news.unwrap_or_default() {
            lock(&self.store).replace(series, points);
        }
    }

    fn pods(&mut self, taken_boot_ns: u64, pods: Vec<(String, Told)>) {
        self.world.pods.told(taken_boot_ns, pods);
        if let Some(denier) = &self.denier {
            let (pods, processes) = (&mut self.world.pods, &self.processes);
            deny::lock(denier).pods_changed(|uid, container| {
                pods.of(uid, container, taken_boot_ns, || processes.pod(uid, container))
            });
        }
    }

    /// The policies that were in force when the kernel saw the event.
    fn rules_of(&self, event: &Event) -> &Rules {
        let seen_under = event.generation();
        let before = self.rules_before.as_ref().filter(|before| seen_under == Some(before.generation()));
        before.unwrap_or(&self.rules)
    }

    fn event(&mut self, event: &Event) {
        if self.upkeep.is(event, &self.rules_of(event).watched) {
            return;
        }
        let identity = self.world.identify(event, &self.processes);
        if let Some(denier) = &self.denier {
            deny::lock(denier).saw(event, identity.as_ref(), &self.processes);
        }
        let rules = self.rules_of(event);
        let mut judgement = verdict::judge(&rules.policies, &rules.watched, event, identity.as_ref());
        if let Some(judgement) = &mut judgement {
            judgement.denial = Denial::of(event, &judgement.verdict, rules);
        }
        self.count(event);
        self.look_closer(event);
        self.carry_out(event, judgement.as_mut());
        self.record(event, identity.as_ref(), judgement.as_ref());
    }

    fn count(&self, event: &Event) {
        let mut store = lock(&self.store);
        store.add(&agent::EVENTS, &[event.what.kind()], 1.0);
        if let What::Loss(loss) = &event.what {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            store.add(&kernel::LOST, &[loss.place, &loss.what], loss.count as f64);
        }
    }

    /// Does what the policies said, once per event: kills, then counts, then decides whether somebody is told.
    fn carry_out(&mut self, event: &Event, judgement: Option<&mut Judgement>) {
        let Some(judgement) = judgement else { return };
        if !judgement.is_repeated {
            judgement.killed = kill::carry_out(&judgement.verdict, event.task.as_ref(), &self.processes);
        }
        let mut store = lock(&self.store);
        for one in judgement.matched() {
            let labels = [&*one.policy, &*one.rule, one.effect.as_str(), one.severity.as_str()];
            store.add(&agent::POLICY_MATCHES, &labels, 1.0);
            self.last_match.insert((Arc::clone(&one.policy), Arc::clone(&one.rule)), event.boot_ns);
        }
        if let Some(killed) = &judgement.killed {
            for one in judgement.verdict.matched().iter().filter(|one| one.acts() == Effect::Kill) {
                store.add(&agent::POLICY_ENFORCED, &[&one.policy, &one.rule, "kill", killed.as_str()], 1.0);
            }
        }
        if let Some(denial) = judgement.denial.as_ref().filter(|_| !judgement.is_repeated) {
            for (policy, rule) in denial.rules() {
                store.add(&agent::POLICY_ENFORCED, &[policy, rule, "deny", denial.as_str()], 1.0);
            }
        }
        for (policy, rule) in self.throttles.apply(judgement, event.boot_ns) {
            store.add(&agent::POLICY_ALERTS_WITHHELD, &[policy, rule], 1.0);
        }
    }

    /// What is grave is looked at more closely at once, while it is fresh.
    fn look_closer(&self, event: &Event) {
        let What::Finding(finding) = &event.what else { return };
        if self.incident_by_findings && finding.kind.starts_with("gpu.") && finding.severity >= Severity::High {
            self.incident.begin(clock::boot_ns(), incident::BY_FINDING, &finding.text);
        }
    }

    /// What was said of incidents.
    fn tell_incidents(&mut self) {
        for (kind, text) in self.incident.take_said(clock::boot_ns()) {
            let entity = "node".to_owned();
            self.say(What::Finding(Finding::new(kind, Severity::Low, entity, text)));
        }
    }

    /// Hands the event's record to the log.
    fn record(&mut self, event: &Event, identity: Option<&Identity>, judgement: Option<&Judgement>) {
        let policies = &self.rules_of(event).policies;
        let moment = Moment::now(policies.digest(), policies.generation(), ntp::clock_sync());
        // What the daemon says of itself and of the evidence is never shed.
        let worth = match (&event.what, &event.task) {
            (What::Loss(_), _) => Worth::Loss,
            (_, None) => Worth::Log,
            (_, Some(_)) => Worth::Event,
        };
        let taken = match self.recorder.draft(event, identity, judgement, &moment) {
            None => true,
            Some(Ok(drafted)) => self.custody.take(&drafted, worth),
            Some(Err(error)) => {
                tracing::error!(%error, kind = event.what.kind(), "an event could not become a record");
                self.custody.count_unrecorded();
                false
            }
        };
        if let (What::Loss(loss), false) = (&event.what, taken) {
            self.custody.to_declare(loss.clone());
        }
    }

    /// Records the losses that the log has not told of.
    fn declare(&mut self, last_words: bool) {
        for loss in self.custody.declare(last_words) {
            // Counted when it happened.
            let event = Event { boot_ns: clock::boot_ns(), origin: None, task: None, what: What::Loss(loss) };
            let mut judgement = verdict::judge(&self.rules.policies, &self.rules.watched, &event, None);
            self.carry_out(&event, judgement.as_mut());
            self.record(&event, None, judgement.as_ref());
        }
    }

    /// Something that the daemon itself has to say.
    fn say(&mut self, what: What) {
        let event = Event { boot_ns: clock::boot_ns(), origin: None, task: None, what };
        self.handle(Message::Event(Box::new(event)));
    }

    /// Other policies are in force from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        let previous_digest = self.rules.policies.digest().to_owned();
        self.world.digests.are_wanted = rules.policies.wants_digests();
        let before = std::mem::replace(&mut self.rules, rules);
        if before.generation() != self.rules.generation() {
            self.rules_before = Some(before);
        }
        let (digest, generation) = (self.rules.policies.digest().to_owned(), self.rules.policies.generation());
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        *in_force = InForce { digest: digest.clone(), generation };
        drop(in_force);
        if digest != previous_digest {
            self.say(What::Policies(Policies { digest, generation, previous_digest }));
        }
    }

    /// Makes durable what is due; `more_at_hand` when another message can be taken at once.
    pub fn settle(&mut self, more_at_hand: bool) {
        self.custody.settle(Duration::from_nanos(clock::boot_ns()), more_at_hand);
    }

    /// When [`Core::settle`] is due next, if a record waits.
    pub fn due_in(&self) -> Option<Duration> {
        self.custody.due_in(Duration::from_nanos(clock::boot_ns()))
    }

    /// What is due by time: declared losses, room, age, prices, the daemon's own figures.
    pub fn tick(&mut self) {
        self.tell_incidents();
        let now_boot_ns = clock::boot_ns();
        if let Some(step) = self.wall_clock.look(now_boot_ns, clock::unix_ns()) {
            self.say(What::ClockStep(step));
        }
        if let Some(what) = self.custody.tick(Duration::from_nanos(now_boot_ns), clock::unix_ns() / 1_000_000) {
            self.say(what);
        }
        let forgotten = [
            ("what a tree of processes has read", self.world.take_forgotten()),
            ("names of addresses", self.world.dns.take_forgotten()),
        ];
        for (what, count) in forgotten.into_iter().filter(|(_, count)| *count > 0) {
            self.say(What::Loss(Loss { place: "table", what: what.to_owned(), cpu: None, cgroup_id: None, count }));
        }
        self.declare(false);
        self.settle(false);
        self.ledger.tick(now_boot_ns);
        self.ledger_file.write_if_due(&self.ledger, now_boot_ns);
        let costs = self.ledger.points(now_boot_ns);
        self.custody.publish();
        let mut points = timeline::lock(&self.timeline).tick(now_boot_ns);
        let mut store = lock(&self.store);
        store.take(crate::series::Sample { source: "cost".into(), taken_boot_ns: now_boot_ns, points: Ok(costs) });
        points.drain(..).for_each(|point| store.set(point));
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        store.set(Point::new(&agent::PROCESSES, &[], self.world.len() as f64));
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        for (outcome, count) in self.world.dns.outcomes() {
            store.set(Point::new(&agent::DNS_MESSAGES, &[outcome], count as f64));
        }
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        store.set(Point::new(&agent::DNS_NAMES, &[], self.world.dns.len() as f64));
        let unix_minus_boot_ns = i128::from(clock::unix_ns()) - i128::from(now_boot_ns);
        for ((policy, rule), boot_ns) in self.last_match.drain() {
            #[expect(clippy::cast_precision_loss, reason = "a time in seconds needs no nanoseconds")]
            let unix_seconds = (i128::from(boot_ns) + unix_minus_boot_ns) as f64 / 1e9;
            store.set(Point::new(&agent::POLICY_LAST_MATCH, &[&policy, &rule], unix_seconds));
        }
        let generation = Point::new(
            &agent::POLICY_GENERATION,
            &[self.rules.policies.digest()],
            f64::from(u32::try_from(self.rules.policies.generation()).unwrap_or(u32::MAX)),
        );
        store.replace(&agent::POLICY_GENERATION, vec![generation]);
    }

    /// Ends the log in order, its losses told.
    pub fn close(mut self) -> Result<(), LogError> {
        self.declare(true);
        self.ledger_file.write(&self.ledger, clock::boot_ns());
        self.custody.close()
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
