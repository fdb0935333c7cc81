//! The daemon's own [`Start`] and [`Stop`] as OCSF 6002 Application Lifecycle, with what the node can and cannot see.

use serde_json::{Map, Value, json};

use super::{Body, INFORMATIONAL, Keep};
use crate::event::{Start, Stop};

const CLASS_UID: u64 = 6002;
const ACTIVITY_START: u64 = 3;
const ACTIVITY_STOP: u64 = 4;

pub fn start(start: &Start) -> Body {
    let coverage: Map<String, Value> =
        start.coverage.iter().map(|(name, state)| (name.clone(), Value::from(state.as_str()))).collect();
    let mut own = Map::new();
    own.insert("coverage".into(), coverage.into());
    own.insert("previous".into(), start.previous.clone().into());
    let keeping: Map<String, Value> =
        start.keeping.iter().map(|(name, state)| (name.clone(), Value::from(state.as_str()))).collect();
    own.insert("keeping".into(), keeping.into());
    body(ACTIVITY_START, "Start", "plumbline began to watch".to_owned(), own)
}

pub fn stop(stop: &Stop) -> Body {
    let own = Map::from_iter([("reason".to_owned(), Value::from(stop.reason.as_str()))]);
    body(ACTIVITY_STOP, "Stop", format!("plumbline stops: {}", stop.reason), own)
}

fn body(activity_id: u64, activity_name: &'static str, message: String, own: Map<String, Value>) -> Body {
    let app = json!({ "name": "Plumbline", "vendor_name": "Plumbline", "version": env!("CARGO_PKG_VERSION") });
    Body {
        class_uid: CLASS_UID,
        activity_id,
        activity_name,
        severity_id: INFORMATIONAL,
        message,
        keep: Keep::Always,
        fields: Map::from_iter([("app".to_owned(), app)]),
        own,
    }
}
