//! [`Hook`] as OCSF 1005 Module Activity, activity 1 Load: a kernel program of ours was loaded, or was refused.

use serde_json::{Map, Value, json};

use super::{Body, INFORMATIONAL, Keep};
use crate::event::{Hook, Sight};

const CLASS_UID: u64 = 1005;
const ACTIVITY_LOAD: u64 = 1;
/// OCSF `status_id`: 1 Success, 2 Failure.
const SUCCESS: u64 = 1;
const FAILURE: u64 = 2;
const MEDIUM: u64 = 3;
const HIGH: u64 = 4;

pub fn body(hook: &Hook) -> Body {
    let mut own = Map::new();
    own.insert("hook".into(), hook.name.clone().into());
    own.insert("state".into(), hook.state.clone().into());
    own.insert("rung".into(), hook.rung.clone().map_or(Value::Null, Value::from));
    let attached = matches!(hook.sight, Sight::Sees | Sight::NotNeeded);
    let fields = Map::from_iter([
        ("module".to_owned(), json!({ "type": "eBPF", "function_name": hook.name })),
        ("actor".to_owned(), json!({ "process": { "pid": std::process::id(), "name": "plumbline" } })),
        ("status_id".to_owned(), Value::from(if attached { SUCCESS } else { FAILURE })),
    ]);
    Body {
        class_uid: CLASS_UID,
        activity_id: ACTIVITY_LOAD,
        activity_name: "Load",
        severity_id: match hook.sight {
            Sight::Sees | Sight::NotNeeded => INFORMATIONAL,
            Sight::Blind => MEDIUM,
            Sight::Silent => HIGH,
        },
        message: format!("hook {}: {}", hook.name, hook.state),
        keep: Keep::Always,
        fields,
        own,
    }
}
