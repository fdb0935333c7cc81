//! [`Policies`] and [`CoverageStatement`] as OCSF 5019 Device Config State Change, activity 1 Log.

use serde_json::{Map, Value};

use super::{Body, INFORMATIONAL, Keep};
use crate::event::{CoverageStatement, Policies};

const CLASS_UID: u64 = 5019;
const ACTIVITY_LOG: u64 = 1;

pub fn policies(policies: &Policies) -> Body {
    let Policies { digest, generation, previous_digest } = policies;
    let own = Map::from_iter([
        ("digest".to_owned(), Value::from(digest.as_str())),
        ("generation".to_owned(), (*generation).into()),
        ("previous_digest".to_owned(), previous_digest.as_str().into()),
    ]);
    body(format!("policies of generation {generation} are in force"), own)
}

pub fn coverage(statement: &CoverageStatement) -> Body {
    let table = |rows: &[(String, String)]| {
        Value::Object(rows.iter().map(|(name, words)| (name.clone(), Value::from(words.as_str()))).collect())
    };
    let CoverageStatement { cause, hooks, host, watched, blind } = statement;
    let message = format!("{} hooks, {} ways that nothing sees: {cause}", hooks.len(), blind.len());
    let own = Map::from_iter([
        ("cause".to_owned(), Value::from(cause.as_str())),
        ("hooks".to_owned(), table(hooks)),
        ("host".to_owned(), table(host)),
        ("watched".to_owned(), table(watched)),
        ("blind".to_owned(), table(blind)),
    ]);
    body(message, own)
}

fn body(message: String, own: Map<String, Value>) -> Body {
    Body {
        class_uid: CLASS_UID,
        activity_id: ACTIVITY_LOG,
        activity_name: "Log",
        severity_id: INFORMATIONAL,
        message,
        keep: Keep::Always,
        fields: Map::new(),
        own,
    }
}
