//! [`Finding`] as OCSF 2004 Detection Finding, activity 1 Create.

use serde_json::{Map, Value, json};

use super::{Body, Keep, severity_id, text::shown};
use crate::{
    event::{Finding, FoundHolder, FoundProcess},
    identity::Identity,
};

const CLASS_UID: u64 = 2004;
const ACTIVITY_CREATE: u64 = 1;

pub fn body(finding: &Finding, identity: Option<&Identity>) -> Body {
    let Finding { kind, severity, entity, text, evidence, process, gpus, holders } = finding;
    let figures: Map<String, Value> = evidence.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut own = Map::from_iter([("evidence".to_owned(), Value::from(figures))]);
    if let Some(FoundProcess { pid, name }) = process {
        let exe = identity.and_then(|identity| identity.process.exe.as_deref()).map(shown);
        own.insert("process".to_owned(), json!({ "pid": pid, "name": name, "exe": exe }));
    }
    if !gpus.is_empty() {
        own.insert("gpus".to_owned(), json!(gpus));
    }
    if !holders.is_empty() {
        own.insert("holders".to_owned(), holders.iter().map(holder).collect());
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

fn holder(holder: &FoundHolder) -> Value {
    let FoundHolder { namespace, pod, container, instance, told_by } = holder;
    let mut fields = json!({ "namespace": namespace, "pod": pod, "container": container, "told_by": told_by });
    if let (Some(fields), Some(instance)) = (fields.as_object_mut(), instance) {
        fields.insert("gpu_instance".to_owned(), json!(instance));
    }
    fields
}
