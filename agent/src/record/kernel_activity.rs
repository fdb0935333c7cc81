//! [`BpfAccess`] as OCSF 1003 Kernel Activity: activity 2 Read where a descriptor was got, 4 Invoke where something was changed.

use serde_json::{Map, Value, json};

use super::{Body, INFORMATIONAL, Keep, text::shown};
use crate::event::{BpfAccess, BpfHow};

const CLASS_UID: u64 = 1003;
const READ: (u64, &str) = (2, "Read");
const INVOKE: (u64, &str) = (4, "Invoke");
/// `kernel.type_id`, with `type` beside it.
const TYPE_OTHER: u64 = 99;
const HIGH: u64 = 4;

pub fn bpf(access: &BpfAccess, who: &str) -> Body {
    let kind = access.kind.as_str();
    let name = shown(&access.name);
    let ((activity_id, activity_name), severity_id, keep, did) = match access.how {
        // Tools that only look do so all the time.
        BpfHow::Open => (READ, INFORMATIONAL, Keep::IfMatched, "opened"),
        BpfHow::Change => (INVOKE, HIGH, Keep::Always, "changed"),
    };
    let own = Map::from_iter([
        ("how".to_owned(), Value::from(access.how.as_str())),
        ("object".to_owned(), json!({ "kind": kind, "name": name, "id": access.id })),
    ]);
    let kernel = json!({ "name": name, "type_id": TYPE_OTHER, "type": format!("eBPF {kind}"), "system_call": "bpf" });
    Body {
        class_uid: CLASS_UID,
        activity_id,
        activity_name,
        severity_id,
        message: format!("{who} {did} plumbline's own {kind} {name} in the kernel"),
        keep,
        fields: Map::from_iter([("kernel".to_owned(), kernel)]),
        own,
    }
}
