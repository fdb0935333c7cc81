//! [`FileOpen`] as OCSF 1001 File System Activity, activity 14 Open.

use serde_json::{Map, Value, json};

use super::{
    Body, INFORMATIONAL, Keep,
    actor::TYPE_REGULAR,
    text::{show, shown},
};
use crate::{event::FileOpen, identity::Identity};

const CLASS_UID: u64 = 1001;
const ACTIVITY_OPEN: u64 = 14;

pub fn body(open: &FileOpen, who: &str, identity: Option<&Identity>, exact: &mut Map<String, Value>) -> Body {
    let path = show(&open.path);
    if let Some(b64) = path.exact_b64 {
        exact.insert("path_b64".into(), b64.into());
    }
    let name = shown(open.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default());
    let mut file = Map::new();
    file.insert("name".into(), name.into());
    file.insert("path".into(), path.text.clone().into());
    file.insert("type_id".into(), TYPE_REGULAR.into());
    file.insert("size".into(), open.size_bytes.into());
    // Major and minor of the kernel's device number, inode, generation: what the probe compared.
    let (major, minor) = (open.key.dev >> 20, open.key.dev & 0xf_ffff);
    file.insert("uid".into(), format!("{major}:{minor}/{}.{}", open.key.ino, open.key.generation).into());

    let mut own = Map::new();
    own.insert("flags".into(), open.flags.into());
    own.insert("links".into(), open.links.into());
    own.insert("inode".into(), open.key.ino.into());
    own.insert("device".into(), format!("{major}:{minor}").into());
    own.insert("watched_inode".into(), open.watched.ino.into());
    if open.path_truncated {
        own.insert("path_truncated".into(), true.into());
    }
    let enrichments = identity.and_then(|identity| identity.artefact.as_ref()).map(|artefact| {
        json!([{
            "name": "file.path",
            "value": path.text,
            "type": "model_artefact",
            "provider": "plumbline",
            "data": { "state": "claimed", "artefact": artefact },
        }])
    });
    let mut fields = Map::from_iter([("file".to_owned(), Value::from(file))]);
    if let Some(enrichments) = enrichments {
        fields.insert("enrichments".into(), enrichments);
    }
    Body {
        class_uid: CLASS_UID,
        activity_id: ACTIVITY_OPEN,
        activity_name: "Open",
        severity_id: INFORMATIONAL,
        message: format!("{who} opened {}", path.text),
        keep: Keep::Always,
        fields,
        own,
    }
}
