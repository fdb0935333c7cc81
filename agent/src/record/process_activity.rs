//! [`Exec`], [`Exit`] and [`MemoryAccess`] as OCSF 1007 Process Activity, activities 1 Launch, 2 Terminate and 3 Open.

use serde_json::{Map, Value};

use super::{Body, INFORMATIONAL, Keep, actor, network_activity::has_read, text::shown};
use crate::{
    event::{Exec, Exit, MemoryAccess, Task},
    identity::Identity,
};

const CLASS_UID: u64 = 1007;
const ACTIVITY_LAUNCH: u64 = 1;
const ACTIVITY_TERMINATE: u64 = 2;
const ACTIVITY_OPEN: u64 = 3;
const MEDIUM: u64 = 3;

pub fn exec(exec: &Exec, task: Option<&Task>, who: &str, identity: Option<&Identity>) -> Body {
    let exe = shown(&exec.exe);
    let mut process = process(task);
    process.insert("file".into(), actor::executable(&exe));
    process.insert("cmd_line".into(), actor::command_line(&exec.arguments, usize::MAX).into());
    let mut body = body(ACTIVITY_LAUNCH, "Launch", format!("{who} executes {exe}"), process, Map::new());
    body.own.insert("capabilities".into(), format!("{:016x}", exec.capabilities).into());
    // What a program that starts may carry on.
    body.own.extend(has_read(identity));
    if exec.arguments_truncated {
        body.own.insert("arguments_truncated".into(), true.into());
    }
    body
}

pub fn exit(exit: Exit, task: Option<&Task>, who: &str) -> Body {
    let fields = Map::from_iter([("exit_code".to_owned(), Value::from(exit.code))]);
    body(ACTIVITY_TERMINATE, "Terminate", format!("{who} ended with {}", exit.code), process(task), fields)
}

/// Activity 3 Open: "a request by the actor to obtain a handle to the process".
pub fn memory(access: &MemoryAccess, who: &str) -> Body {
    let mut process = Map::from_iter([("pid".to_owned(), Value::from(access.target_pid))]);
    if let Some(start_boot_ns) = access.target_start_boot_ns {
        process.insert("uid".into(), actor::process_uid(access.target_pid, start_boot_ns).into());
    }
    let how = access.how.as_str();
    let whose = match access.target_pid {
        own if own == std::process::id() => "plumbline itself".to_owned(),
        other => format!("pid {other}, which has read watched files"),
    };
    let message = format!("{who} reached into the memory of {whose} ({how})");
    let mut body = body(ACTIVITY_OPEN, "Open", message, process, Map::new());
    body.own.insert("how".into(), how.into());
    Body { severity_id: MEDIUM, keep: Keep::Always, ..body }
}

fn process(task: Option<&Task>) -> Map<String, Value> {
    let mut process = Map::new();
    if let Some(task) = task {
        process.insert("pid".into(), task.pid.into());
        process.insert("name".into(), shown(&task.comm).into());
        process.insert("uid".into(), actor::process_uid(task.pid, task.start_boot_ns).into());
    }
    process
}

fn body(
    activity_id: u64,
    activity_name: &'static str,
    message: String,
    process: Map<String, Value>,
    mut fields: Map<String, Value>,
) -> Body {
    fields.insert("process".into(), process.into());
    Body {
        class_uid: CLASS_UID,
        activity_id,
        activity_name,
        severity_id: INFORMATIONAL,
        message,
        keep: Keep::IfAsked,
        fields,
        own: Map::new(),
    }
}
