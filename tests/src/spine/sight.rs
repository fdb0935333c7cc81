//! What the daemon says that it sees: at the start, and when somebody takes a program away.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::{QUIET, Spine, ensure, equal, not_ok, skipped};
use crate::{
    bpf::detach_links,
    checks::Ended,
    daemon::{Tools, run},
};

/// A statement of this cause.
fn statement(spine: &Spine, cause: &str) -> Result<Value, Ended> {
    let wanted = format!("a coverage statement of {cause}");
    let found = spine.daemon.wait_for_record_within(Duration::from_secs(30), &wanted, |record| {
        let own = &record["unmapped"]["plumbline"];
        own["kind"] == "coverage" && own["cause"].as_str().is_some_and(|text| text.contains(cause))
    });
    found.map_err(not_ok)
}

pub(super) fn the_start_says_what_is_seen(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start_with(tools, scratch, QUIET)?;
    let statement = statement(&spine, "start")?;
    let own = &statement["unmapped"]["plumbline"];
    let words = |table: &str, name: &str| own[table][name].as_str().unwrap_or_default().to_owned();
    ensure(words("hooks", "exec").starts_with("attached"), || format!("exec: {}", words("hooks", "exec")))?;
    ensure(words("hooks", "canary").starts_with("proves"), || format!("canary: {}", words("hooks", "canary")))?;
    ensure(!words("host", "release").is_empty(), || "no kernel release".to_owned())?;
    // No machine sees RDMA.
    ensure(!words("blind", "RDMA").is_empty(), || format!("not declared: RDMA, in {}", own["blind"]))?;
    let silent: Vec<&str> = own["hooks"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, state)| state.as_str().filter(|state| state.contains("SILENT")).map(|_| name.as_str()))
        .collect();
    ensure(silent.is_empty(), || format!("silent from the start: {silent:?}"))
}

pub(super) fn a_renamed_directory_stays_watched(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start_with(tools, scratch, QUIET)?;
    let (before, after) = (spine.models.clone(), scratch.join("elsewhere"));
    fs::rename(&before, &after).map_err(not_ok)?;
    let statement = statement(&spine, "the watched directories")?;
    let watched = statement["unmapped"]["plumbline"]["watched"].to_string();
    ensure(watched.contains("still watched by inode"), || watched.clone())?;
    // Not even a file that was not there before.
    let file = after.join("new.safetensors");
    fs::write(&file, b"weights").map_err(not_ok)?;
    run(Command::new("cat").arg(&file)).map_err(not_ok)?;
    let open = spine.open_of(&file).map_err(not_ok)?;
    ensure(open["is_alert"] == true, || open.to_string())
}

pub(super) fn a_detached_program_is_noticed(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start_with(tools, scratch, QUIET)?;
    let hook = "plumbline_hook_attached{hook=\"udp_connect\"";
    if !spine.daemon.metrics().map_err(not_ok)?.contains(&format!("{hook},rung=\"cgroup\"}} 1")) {
        return Err(skipped("the only links that can be taken away are those of cgroups, and none is attached here"));
    }
    let detached = detach_links("udp_connect").map_err(not_ok)?;
    ensure(detached >= 2, || format!("{detached} links were taken away"))?;
    // Told at once, and who did it.
    let is_change = |record: &Value| record["class_uid"] == 1003 && record["unmapped"]["plumbline"]["how"] == "change";
    let change = spine.daemon.wait_for_record("the change of a link", is_change).map_err(not_ok)?;
    equal("kind", &change["unmapped"]["plumbline"]["object"]["kind"], "link")?;
    equal("pid", &change["actor"]["process"]["pid"], std::process::id())?;
    let statement = statement(&spine, "udp_connect fell silent")?;
    let state = &statement["unmapped"]["plumbline"]["hooks"]["udp_connect"];
    ensure(state.as_str().is_some_and(|state| state.starts_with("SILENT")), || state.to_string())?;
    spine.daemon.wait_for(hook, |up| up == 0.0).map_err(not_ok)?;
    // The others are still heard.
    spine.daemon.wait_for("plumbline_hook_attached{hook=\"tcp_connect\"", |up| up > 0.0).map(drop).map_err(not_ok)
}
