//! The OCSF objects for who did it: `actor.process` with user, container, file and ancestry.
//!
//! Attribute names are those of OCSF 1.8.0 (objects `process`, `process_entity`, `user`, `container`, `file`).

use serde_json::{Map, Value, json};

use super::text::{show, shown};
use crate::{
    event::Task,
    identity::{Identity, Process, cgroup::Cgroup, pod::Pod},
};

/// The OCSF `file.type_id` of a regular file.
pub const TYPE_REGULAR: u8 = 1;

/// `actor` of an event, and the exact bytes of what could not be shown.
pub fn actor(task: &Task, identity: Option<&Identity>, exact: &mut Map<String, Value>) -> Value {
    let mut process = Map::new();
    process.insert("pid".into(), task.pid.into());
    process.insert("tid".into(), task.tid.into());
    let comm = show(&task.comm);
    if let Some(b64) = comm.exact_b64 {
        exact.insert("comm_b64".into(), b64.into());
    }
    process.insert("name".into(), comm.text.into());
    process.insert("uid".into(), process_uid(task.pid, task.start_boot_ns).into());
    let mut user = Map::from_iter([("uid".to_owned(), Value::from(task.uid.to_string()))]);
    if task.uid == 0 {
        user.insert("name".into(), "root".into());
    }
    process.insert("user".into(), user.into());
    if let Some(identity) = identity {
        if let Some(exe) = &identity.process.exe {
            let file = show(exe);
            if let Some(b64) = file.exact_b64 {
                exact.insert("exe_b64".into(), b64.into());
            }
            process.insert("file".into(), executable(&file.text));
        }
        if let Some(arguments) = &identity.process.arguments {
            process.insert("cmd_line".into(), command_line(arguments, MAX_COMMAND_LINE).into());
        }
        if let Some(container) =
            identity.process.cgroup.as_ref().and_then(|cgroup| container(cgroup, identity.pod.as_ref()))
        {
            process.insert("container".into(), container);
        }
        let mut ancestors = identity.ancestors.iter();
        if let Some(parent) = ancestors.next() {
            let mut object = entity(parent);
            if let Some(exe) = &parent.exe {
                object.remove("path");
                object.insert("file".into(), executable(&shown(exe)));
            }
            process.insert("parent_process".into(), object.into());
        }
        let ancestry: Vec<Value> = identity.ancestors.iter().map(|ancestor| entity(ancestor).into()).collect();
        if !ancestry.is_empty() {
            process.insert("ancestry".into(), ancestry.into());
        }
    }
    json!({ "process": process })
}

/// What a policy may have asked of the process, and OCSF has no place for.
pub fn more(identity: &Identity) -> Map<String, Value> {
    let mut own = Map::new();
    if let Some(user) = &identity.user {
        own.insert("user".into(), shown(user.as_bytes()).into());
    }
    if let Some(digest) = &identity.exe_sha256 {
        own.insert("exe_sha256".into(), digest.clone().into());
    }
    if let Some(image) = identity.pod.as_ref().and_then(|pod| pod.image.as_ref()) {
        own.insert("image".into(), shown(image.as_bytes()).into());
    }
    if let Some(is_served) = identity.is_served {
        own.insert("is_served".into(), is_served.into());
    }
    own
}

/// Characters of a command line that every event of the process carries; the record of its start has all that is known.
const MAX_COMMAND_LINE: usize = 256;

/// Arguments as one line, safe to show, cut at so many characters.
pub fn command_line(arguments: &[u8], most: usize) -> String {
    let body = arguments.strip_suffix(&[0]).unwrap_or(arguments);
    let line: Vec<u8> = body.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).collect();
    let mut shown = shown(&line);
    if let Some((at, _)) = shown.char_indices().nth(most) {
        // Whole words only: of a secret that is cut in two, no pattern would know the rest.
        let at = shown[..at].rfind(' ').unwrap_or(0);
        shown.truncate(at);
        shown.push('…');
    }
    shown
}

/// Names a process for ever on this boot: the number and when it started.
pub fn process_uid(pid: u32, start_boot_ns: u64) -> String {
    format!("{pid}@{start_boot_ns}")
}

/// Whether the event's profiles must name `container`.
pub fn has_container(identity: Option<&Identity>) -> bool {
    identity.is_some_and(|identity| identity.process.cgroup.as_ref().is_some_and(|cgroup| cgroup.container.is_some()))
}

fn entity(process: &Process) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("pid".into(), process.pid.into());
    object.insert("name".into(), shown(&process.comm).into());
    object.insert("uid".into(), process_uid(process.pid, process.start_boot_ns).into());
    if let Some(exe) = &process.exe {
        object.insert("path".into(), shown(exe).into());
    }
    object
}

pub fn executable(path: &str) -> Value {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path);
    json!({ "name": name, "path": path, "type_id": TYPE_REGULAR })
}

fn container(cgroup: &Cgroup, pod: Option<&Pod>) -> Option<Value> {
    let container = cgroup.container.as_ref()?;
    let mut object = Map::new();
    object.insert("uid".into(), container.id.clone().into());
    object.insert("runtime".into(), container.runtime.into());
    if let Some(name) = pod.and_then(|pod| pod.container.as_ref()) {
        object.insert("name".into(), name.clone().into());
    }
    if let Some(pod_uid) = &cgroup.pod_uid {
        object.insert("pod_uuid".into(), pod_uid.clone().into());
        object.insert("orchestrator".into(), "kubernetes".into());
    }
    Some(object.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_cut_between_words() {
        assert_eq!(command_line(b"a\0bc\0", 99), "a bc");
        assert_eq!(command_line(b"serve\0--token=hf_abc\0", 10), "serve…");
        assert_eq!(command_line(b"\xff\x1b\0", 99), "\u{fffd}\u{fffd}");
        assert_eq!(command_line(b"", 9), "");
    }
}
