//! What was done to watched files as OCSF 1001 File System Activity: 2 Read, 3 Update, 4 Delete, 5 Rename, 14 Open.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    Body, INFORMATIONAL, Keep,
    actor::TYPE_REGULAR,
    text::{show, shown},
};
use crate::{
    event::{Change, Coverage, DeviceKind, DeviceOpen, FileChange, FileKey, FileOpen, FileRead},
    identity::Identity,
};

const CLASS_UID: u64 = 1001;
const OPEN: (u64, &str) = (14, "Open");
const READ: (u64, &str) = (2, "Read");
const UPDATE: (u64, &str) = (3, "Update");
const DELETE: (u64, &str) = (4, "Delete");
const RENAME: (u64, &str) = (5, "Rename");
const OTHER: u64 = 99;
/// OCSF `file.type_id`.
const TYPE_CHARACTER_DEVICE: u64 = 3;
const TYPE_BLOCK_DEVICE: u64 = 4;
const MEDIUM: u64 = 3;

type Exact = Map<String, Value>;

pub fn open(open: &FileOpen, who: &str, identity: Option<&Identity>, exact: &mut Exact) -> Body {
    let mut body = about(OPEN, Some(&open.path), open.key, open.watched, identity, exact);
    set_size(&mut body, open.size_bytes);
    body.own.insert("flags".into(), open.flags.into());
    body.own.insert("links".into(), open.links.into());
    also_known(&mut body, open.known_as.as_deref(), open.path_truncated);
    let verb = if open.received { "received a descriptor of" } else { "opened" };
    if open.received {
        body.own.insert("via".into(), "received".into());
    }
    body.message = format!("{who} {verb} {}", shown(&open.path));
    body
}

pub fn read(read: &FileRead, who: &str, identity: Option<&Identity>, exact: &mut Exact) -> Body {
    let activity = if read.is_only_written() { UPDATE } else { READ };
    let mut body = about(activity, read.path.as_deref(), read.key, read.watched, identity, exact);
    set_size(&mut body, read.size_bytes);
    for (name, bytes) in
        [("bytes_read", read.bytes_read), ("bytes_faulted", read.bytes_faulted), ("bytes_written", read.bytes_written)]
    {
        // What nobody counts is absent, with the reason in the coverage statement; it is not 0.
        if let Some(bytes) = bytes {
            body.own.insert(name.into(), bytes.into());
        }
    }
    body.own.insert(
        "coverage".into(),
        json!({
            "slices": Coverage::SLICES,
            "touched": read.coverage.touched(),
            "bitmap_b64": STANDARD.encode(read.coverage.to_bytes()),
        }),
    );
    body.own.insert("first_boot_ns".into(), read.first_boot_ns.into());
    body.own.insert("last_boot_ns".into(), read.last_boot_ns.into());
    body.own.insert("told".into(), read.told.as_str().into());
    let percent = f64::from(read.coverage.touched()) * 100.0 / 512.0;
    let name = name_or_inode(read.path.as_deref(), read.key);
    body.message = if read.is_only_written() {
        format!("{who} has written {} bytes to {name}", read.bytes_written.unwrap_or(0))
    } else {
        format!("{who} has touched {percent:.1} % of {name}")
    };
    body
}

pub fn change(change: &FileChange, who: &str, identity: Option<&Identity>, exact: &mut Exact) -> Body {
    let (activity, verb) = match change.how {
        Change::Write => (UPDATE, "wrote to"),
        Change::Truncate => (UPDATE, "set the length of"),
        Change::Overwritten => (UPDATE, "overwrote by reference"),
        Change::Allocate => (UPDATE, "allocated or removed blocks of"),
        Change::MapWritable => (UPDATE, "mapped, shared and writable,"),
        Change::Replace => (UPDATE, "put another file in the place of"),
        Change::Rename => (RENAME, "renamed"),
        Change::Unlink => (DELETE, "removed a name of"),
        Change::Link => ((OTHER, "Link"), "made another name for"),
        Change::Cloned => ((OTHER, "Clone"), "copied by reference"),
    };
    let known = change.known_as.as_deref().unwrap_or(&change.path);
    let mut body = about(activity, Some(known), change.key, change.watched, identity, exact);
    body.own.insert("change".into(), change.how.as_str().into());
    body.own.insert("links".into(), change.links.into());
    body.own.insert("name_after".into(), shown(&change.path).into());
    if change.path_truncated {
        body.own.insert("path_truncated".into(), true.into());
    }
    body.message = format!("{who} {verb} {}", shown(known));
    body
}

pub fn device_open(open: &DeviceOpen, who: &str, exact: &mut Exact) -> Body {
    let path = show(&open.path);
    if let Some(b64) = path.exact_b64 {
        exact.insert("path_b64".into(), b64.into());
    }
    let (type_id, severity_id, what) = match open.kind {
        DeviceKind::BlockDevice => (TYPE_BLOCK_DEVICE, MEDIUM, "the disk below watched files"),
        DeviceKind::BypassDevice => (TYPE_CHARACTER_DEVICE, MEDIUM, "a device whose transfers are not seen"),
        DeviceKind::GpuDevice => (TYPE_CHARACTER_DEVICE, INFORMATIONAL, "a GPU"),
    };
    let name = shown(open.path.rsplit(|&byte| byte == b'/').next().unwrap_or(&open.path));
    let own = Map::from_iter([
        ("device_kind".to_owned(), Value::from(open.kind.as_str())),
        ("device".to_owned(), format!("{}:{}", open.device >> 20, open.device & 0xf_ffff).into()),
    ]);
    Body {
        class_uid: CLASS_UID,
        activity_id: OPEN.0,
        activity_name: OPEN.1,
        severity_id,
        message: format!("{who} opened {}, {what}", path.text),
        keep: Keep::Always,
        fields: Map::from_iter([("file".to_owned(), json!({ "name": name, "path": path.text, "type_id": type_id }))]),
        own,
    }
}

fn about(
    (activity_id, activity_name): (u64, &'static str),
    path: Option<&[u8]>,
    key: FileKey,
    watched: FileKey,
    identity: Option<&Identity>,
    exact: &mut Exact,
) -> Body {
    let uid = uid(key);
    let mut file = Map::new();
    // OCSF wants a name; a file that nobody has named has its inode.
    let name = path.map_or_else(|| uid.clone(), |path| shown(path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)));
    file.insert("name".into(), name.into());
    let mut enrichments = None;
    if let Some(path) = path {
        let path = show(path);
        if let Some(b64) = path.exact_b64 {
            exact.insert("path_b64".into(), b64.into());
        }
        enrichments = identity.and_then(|identity| identity.artefact.as_ref()).map(|artefact| {
            json!([{
                "name": "file.path",
                "value": path.text,
                "type": "model_artefact",
                "provider": "plumbline",
                "data": { "state": "claimed", "artefact": artefact },
            }])
        });
        file.insert("path".into(), path.text.into());
    }
    file.insert("type_id".into(), TYPE_REGULAR.into());
    file.insert("uid".into(), uid.into());
    let mut own = Map::new();
    own.insert("inode".into(), key.ino.into());
    own.insert("device".into(), device(key).into());
    own.insert("watched_inode".into(), watched.ino.into());
    let mut fields = Map::from_iter([("file".to_owned(), Value::from(file))]);
    fields.extend(enrichments.map(|enrichments| ("enrichments".to_owned(), enrichments)));
    Body {
        class_uid: CLASS_UID,
        activity_id,
        activity_name,
        severity_id: INFORMATIONAL,
        message: String::new(),
        keep: Keep::Always,
        fields,
        own,
    }
}

fn set_size(body: &mut Body, bytes: u64) {
    if let Some(file) = body.fields.get_mut("file").and_then(Value::as_object_mut) {
        file.insert("size".into(), bytes.into());
    }
}

fn also_known(body: &mut Body, known_as: Option<&[u8]>, path_truncated: bool) {
    if let Some(known_as) = known_as {
        body.own.insert("known_as".into(), shown(known_as).into());
    }
    if path_truncated {
        body.own.insert("path_truncated".into(), true.into());
    }
}

fn name_or_inode(path: Option<&[u8]>, key: FileKey) -> String {
    path.map_or_else(|| format!("inode {}", uid(key)), shown)
}

/// Major and minor of the kernel's device number, inode, generation: what the probe compared.
fn uid(key: FileKey) -> String {
    format!("{}/{}.{}", device(key), key.ino, key.generation)
}

fn device(key: FileKey) -> String {
    format!("{}:{}", key.dev >> 20, key.dev & 0xf_ffff)
}
