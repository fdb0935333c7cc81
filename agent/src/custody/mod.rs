//! The chain of custody: everything between a record and its being kept. The log is written here and nowhere else.
//!
//! What the log does not take is counted and declared as soon as it takes records again; room, age and keys of the log
//! are looked after by [`room`], [`retention`] and [`keys`]. What the daemon must say of all that comes out of
//! [`Custody::tick`] as events, which the core records like any other.

pub mod keeper;
pub mod keys;
pub mod memory;
pub mod opening;
pub mod retention;
pub mod room;
pub mod wall_clock;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use plumbline_audit::{Draft, Log, LogError};

use self::{retention::Retention, room::Room};
use crate::{
    config::{AuditConfig, WhenCritical},
    core::{SharedStore, chain, lock},
    event::{DiskState, Loss, What},
    record::Drafted,
    series::{Point, agent, kernel},
};

/// OCSF `severity_id` from which on a record does not wait for others to become durable: 4 High.
const URGENT_SEVERITY: u64 = 4;

/// The place of losses that happened here.
const LOG_PLACE: &str = "log";

/// What a record is worth when there is no room for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// A declared loss: if it is not taken, the loss is still to be declared, and is not one more.
    Loss,
    /// Of the evidence itself: keys, starts, room. Never shed.
    Log,
    /// An event.
    Event,
}

/// Where and what was lost, and on which CPU.
type LossKey = (&'static str, String, Option<u32>);

#[derive(Debug)]
pub struct Custody {
    log: Log,
    room: Room,
    retention: Retention,
    store: SharedStore,
    /// What was lost and is not yet declared in the log. As many keys as there are programs and CPUs, and two of its own.
    undeclared: BTreeMap<LossKey, u64>,
    warned: bool,
    /// A record waits that should be durable at once.
    urgent: bool,
}

impl Custody {
    pub fn new(log: Log, config: &AuditConfig, cursors: &[PathBuf], store: SharedStore) -> Self {
        let room = Room::new(log.dir(), &config.disk);
        let retention = Retention::new(log.dir(), cursors, config.retention_days);
        Self { log, room, retention, store, undeclared: BTreeMap::new(), warned: false, urgent: false }
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Takes a record, or counts why it is not taken; whether it was.
    pub fn take(&mut self, drafted: &Drafted, worth: Worth) -> bool {
        if worth == Worth::Event && self.is_shed(drafted.severity_id) {
            return false;
        }
        match self.append(&drafted.draft) {
            Ok(()) => self.urgent |= drafted.severity_id >= URGENT_SEVERITY || worth == Worth::Log,
            Err(error) => {
                if worth != Worth::Loss {
                    self.count_unrecorded();
                }
                self.failed("record", &error);
                return false;
            }
        }
        true
    }

    /// An event that could not even become a record.
    pub fn count_unrecorded(&mut self) {
        self.count("records");
    }

    fn count(&mut self, what: &str) {
        self.to_declare(Loss { place: LOG_PLACE, what: what.to_owned(), cpu: None, cgroup_id: None, count: 1 });
        lock(&self.store).add(&kernel::LOST, &[LOG_PLACE, what], 1.0);
    }

    /// A loss that the log must tell of, as soon as it takes records.
    pub fn to_declare(&mut self, loss: Loss) {
        *self.undeclared.entry((loss.place, loss.what, loss.cpu)).or_default() += loss.count;
    }

    /// The losses to be declared now: each is [`Custody::to_declare`] again if it is not taken. While the disk is full they
    /// wait, unless these are the last words.
    pub fn declare(&mut self, last_words: bool) -> Vec<Loss> {
        if !last_words && (self.room.state() == DiskState::Full || self.log.is_failing()) {
            return Vec::new();
        }
        let losses = std::mem::take(&mut self.undeclared).into_iter();
        losses.map(|((place, what, cpu), count)| Loss { place, what, cpu, cgroup_id: None, count }).collect()
    }

    /// While there is no room, events are counted only; while it is critical, the least severe if so configured.
    fn is_shed(&mut self, severity_id: u64) -> bool {
        match (self.room.state(), self.room.when_critical()) {
            (DiskState::Full, _) => self.count_unrecorded(),
            (DiskState::Critical, WhenCritical::DropLow) if severity_id < URGENT_SEVERITY => self.count("low severity"),
            _ => return false,
        }
        true
    }

    fn append(&mut self, draft: &Draft) -> Result<(), LogError> {
        self.log.append(draft).map(drop)
    }

    /// Commits what should not wait, once nothing more is at hand that could go with it.
    pub fn settle(&mut self, now: Duration, more_at_hand: bool) {
        if self.urgent && !more_at_hand && !self.log.is_failing() {
            self.urgent = false;
            let committed = self.log.commit();
            self.watch_over(committed, "record");
        }
        let ticked = self.log.tick(now);
        self.watch_over(ticked, "checkpoint");
    }

    /// Signs and publishes what there is.
    pub fn checkpoint(&mut self) {
        let signed = self.log.checkpoint().map(drop);
        self.watch_over(signed, "checkpoint");
    }

    /// When the next [`Custody::settle`] is due, if a record waits.
    pub fn due_in(&self, now: Duration) -> Option<Duration> {
        self.log.commit_due_in(now)
    }

    /// Looks after room and age; what there is to be said.
    pub fn tick(&mut self, now: Duration, unix_ms: u64) -> Option<What> {
        let said = self.room.look(now).map(What::Disk);
        let is_short = matches!(self.room.state(), DiskState::Critical | DiskState::Full);
        let hurry = is_short && self.room.when_critical() == WhenCritical::PruneShipped;
        if let Some((to, reason)) = self.retention.due(now, unix_ms, hurry) {
            let pruned = self.log.prune(to, &reason);
            if let Err(error) = &pruned {
                self.failed("prune", error);
            }
        }
        said
    }

    /// Whether the log went on after all: on a full disk the ballast is given up, once.
    fn watch_over(&mut self, result: Result<(), LogError>, what: &'static str) {
        match result {
            // While the log waits before it tries again, nothing went well yet.
            Ok(()) => self.warned &= self.log.is_failing(),
            Err(error) => {
                self.failed(what, &error);
                if error.is_storage_full() && self.room.give_up_ballast() && self.log.commit().is_ok() {
                    tracing::warn!("the ballast made room for what was waiting; events are counted from now on");
                }
            }
        }
    }

    fn failed(&mut self, what: &'static str, error: &LogError) {
        lock(&self.store).add(&agent::LOG_ERRORS, &[what], 1.0);
        if !std::mem::replace(&mut self.warned, true) {
            tracing::error!(error = %chain(error), what, "the audit log cannot be written; losses are counted and will be declared");
        }
    }

    /// The log's own figures.
    pub fn publish(&self) {
        let signed = &self.log.last_checkpoint().checkpoint;
        let mut store = lock(&self.store);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        for (series, number) in [
            (&agent::LOG_RECORDS, self.log.next_seq() as f64),
            (&agent::LOG_DURABLE, self.log.durable() as f64),
            (&agent::LOG_CHECKPOINT, signed.size as f64),
            (&agent::LOG_EPOCH, self.log.epoch() as f64),
            (&agent::LOG_FREE, self.room.free_bytes() as f64),
        ] {
            store.set(Point::new(series, &[], number));
        }
        let info = Point::new(&agent::LOG_CHECKPOINT_INFO, &[&signed.size.to_string(), &signed.root.to_base64()], 1.0);
        store.replace(&agent::LOG_CHECKPOINT_INFO, vec![info]);
    }

    /// Ends the log in order, with the room of the ballast if it must be.
    pub fn close(mut self) -> Result<(), LogError> {
        let committed = self.log.commit();
        self.watch_over(committed, "checkpoint");
        self.log.close().map(drop)
    }
}
