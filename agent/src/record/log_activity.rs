//! What happened to the evidence itself as OCSF 1008 Event Log Activity: holes, downtime, room, clock, keys.

use plumbline_audit::{Statement, record::EVENT_LOG_ACTIVITY};
use serde_json::{Map, Value};

use super::{Body, Keep};
use crate::event::{ClockStep, Disk, DiskState, Gap, Loss};

const ACTIVITY_DELETE: u64 = 2;
const ACTIVITY_ROTATE: u64 = 5;
const ACTIVITY_RESTART: u64 = 8;
/// OCSF has no activity for lost events.
const ACTIVITY_OTHER: u64 = 99;

pub fn loss(loss: &Loss) -> Body {
    let mut own = Map::new();
    own.insert("place".into(), loss.place.into());
    own.insert("lost_by".into(), loss.what.clone().into());
    own.insert("count".into(), loss.count.into());
    if let Some(cpu) = loss.cpu {
        own.insert("cpu".into(), cpu.into());
    }
    if let Some(cgroup_id) = loss.cgroup_id {
        own.insert("cgroup_id".into(), cgroup_id.into());
    }
    let message = format!("{} events of {} were lost ({})", loss.count, loss.what, loss.place);
    Body { severity_id: MEDIUM, ..body(ACTIVITY_OTHER, "Loss", message, own) }
}

pub fn gap(gap: &Gap) -> Body {
    let mut own = Map::new();
    if let Some(from) = gap.from_unix_ns {
        own.insert("from_unix_ns".into(), from.into());
    }
    own.insert("reboot".into(), gap.reboot.into());
    own.insert("orderly".into(), gap.orderly.into());
    let why = match (gap.reboot, gap.orderly) {
        (true, _) => "the machine was started anew",
        (false, true) => "plumbline was stopped",
        (false, false) => "plumbline ended without a stop",
    };
    body(ACTIVITY_OTHER, "Gap", format!("nobody watched until now: {why}"), own)
}

pub fn disk(disk: &Disk) -> Body {
    let mut own = Map::new();
    own.insert("state".into(), disk.state.as_str().into());
    own.insert("free_bytes".into(), disk.free_bytes.into());
    own.insert("action".into(), disk.action.into());
    let message =
        format!("room for the audit log: {} ({} bytes free); {}", disk.state.as_str(), disk.free_bytes, disk.action);
    let severity_id = match disk.state {
        DiskState::Enough => INFORMATIONAL,
        DiskState::Low => MEDIUM,
        DiskState::Critical | DiskState::Full => HIGH,
    };
    Body { severity_id, ..body(ACTIVITY_OTHER, "Disk", message, own) }
}

pub fn clock_step(step: ClockStep) -> Body {
    let own = Map::from_iter([("by_ns".to_owned(), Value::from(step.by_ns))]);
    #[expect(clippy::cast_precision_loss, reason = "shown with milliseconds")]
    let seconds = step.by_ns as f64 / 1e9;
    let message = format!("the wall clock was set by {seconds:+.3} s; boot_ns did not step");
    Body { severity_id: LOW, ..body(ACTIVITY_OTHER, "Clock step", message, own) }
}

/// The event around a statement; the statement itself is put in by the log.
pub fn statement(statement: &Statement) -> Body {
    let (activity_id, activity_name) = match statement {
        Statement::Epoch(_) => (ACTIVITY_ROTATE, "Rotate"),
        Statement::Recovered(_) => (ACTIVITY_RESTART, "Restart"),
        Statement::Pruned(_) => (ACTIVITY_DELETE, "Delete"),
    };
    body(activity_id, activity_name, statement.to_string(), Map::new())
}

const INFORMATIONAL: u64 = 1;
const LOW: u64 = 2;
const MEDIUM: u64 = 3;
const HIGH: u64 = 4;

fn body(activity_id: u64, activity_name: &'static str, message: String, own: Map<String, Value>) -> Body {
    let fields = Map::from_iter([
        ("log_name".to_owned(), Value::from("plumbline")),
        ("log_provider".to_owned(), Value::from("plumbline")),
    ]);
    Body {
        class_uid: EVENT_LOG_ACTIVITY,
        activity_id,
        activity_name,
        severity_id: INFORMATIONAL,
        message,
        keep: Keep::Always,
        fields,
        own,
    }
}
