//! [`Policies`] as OCSF 5019 Device Config State Change, activity 1 Log.

use serde_json::{Map, Value};

use super::{Body, INFORMATIONAL, Keep};
use crate::event::Policies;

const CLASS_UID: u64 = 5019;
const ACTIVITY_LOG: u64 = 1;

pub fn policies(policies: &Policies) -> Body {
    let Policies { digest, generation, previous_digest } = policies;
    let own = Map::from_iter([
        ("digest".to_owned(), Value::from(digest.as_str())),
        ("generation".to_owned(), (*generation).into()),
        ("previous_digest".to_owned(), previous_digest.as_str().into()),
    ]);
    Body {
        class_uid: CLASS_UID,
        activity_id: ACTIVITY_LOG,
        activity_name: "Log",
        severity_id: INFORMATIONAL,
        message: format!("policies of generation {generation} are in force"),
        keep: Keep::Always,
        fields: Map::new(),
        own,
    }
}
