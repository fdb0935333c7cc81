//! [`Finding`] as OCSF 2004 Detection Finding, activity 1 Create.

use serde_json::{Map, Value, json};

use super::{Body, Keep, severity_id, text::shown};
use crate::{
    event::{Finding, FoundProcess},
    identity::Identity,
};

const CLASS_UID: u64 = 2004;
const ACTIVITY_CREATE: u64 = 1;

pub fn body(finding: &Finding, identity: Option<&Identity>) -> Body {
    let Finding { kind, severity, entity, text, evidence, process } = finding;
    let figures: Map<String, Value> = evidence.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut own = Map::from_iter([("evidence".to_owned(), Value::from(figures))]);
    if let Some(FoundProcess { pid, name }) = process {
        let exe = identity.and_then(|identity| identity.process.exe.as_deref()).map(shown);
        own.insert("process".to_owned(), json!({ "pid": pid, "name": name, "exe": exe }));
    }
    // One finding of one kind about one part goes on until it is gone, whatever its figures.
    let info = json!({ "uid": format!("{kind}/{entity}"), "title": text, "types": [kind] });
    Body {
        class_uid: CLASS_UID,
        activity_id: ACTIVITY_CREATE,
        activity_name: "Create",
        severity_id: severity_id(*severity),
        message: text.clone(),
        keep: Keep::Always,
        fields: Map::from_iter([("finding_info".to_owned(), info)]),
        own,
    }
}
