//! The events around what the log says of itself: as complete as any other record.

use std::sync::{Arc, Mutex, PoisonError};

use plumbline_audit::{
    Statement,
    statement::{Keeper, PlainKeeper},
};
use serde_json::{Map, Value};

use crate::{
    clock,
    event::{Event, What},
    probes::ntp,
    record::{Moment, Recorder},
};

/// The policies in force, as the core tells them.
#[derive(Debug, Clone, Default)]
pub struct InForce {
    pub digest: String,
    pub generation: u64,
}

#[derive(Debug)]
pub struct DaemonKeeper {
    pub recorder: Recorder,
    pub in_force: Arc<Mutex<InForce>>,
}

impl Keeper for DaemonKeeper {
    fn event(&self, statement: &Statement) -> Map<String, Value> {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let moment = Moment::now(&in_force.digest, in_force.generation, ntp::clock_sync());
        let what = What::Log(statement.clone());
        let event = Event { boot_ns: clock::boot_ns(), origin: None, task: None, what };
        // Statements are always kept; if that ever changed, the least is still said.
        self.recorder.event(&event, None, None, &moment).unwrap_or_else(|| PlainKeeper.event(statement))
    }
}
