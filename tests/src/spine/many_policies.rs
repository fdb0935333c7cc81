//! The commands on the shipped policies and on two hundred generated ones, together.

use std::{fs, path::Path, time::Instant};

use serde_json::Value;

use super::{Spine, ensure, not_ok, policies::plumbline};
use crate::{checks::Ended, daemon::Tools};

const MANY: usize = 200;

const MODES: [&str; 3] = ["learn", "monitor", "enforce"];

/// Every second one of connections.
fn is_denying(index: usize) -> bool {
    index % 16 == 1
}

/// A policy of every kind of object in turn, with an effect, a mode, lists, exceptions and tests of its own.
fn generated(index: usize) -> String {
    let (object, event) = match index % 8 {
        0 => (
            format!("file: {{watch: [/models/team-{index}], access: [open, read]}}"),
            format!("file: {{path: /models/team-{index}/a}}"),
        ),
        1 => (
            format!("connect: {{notTo: [10.{index}.0.0/16], port: [443, 8000-8{index:03}]}}"),
            "connect: {address: 203.0.113.7, port: 443}".to_owned(),
        ),
        2 => (format!("exec: {{path: '/opt/team-{index}/**'}}"), format!("exec: {{path: /opt/team-{index}/bin/a}}")),
        3 => ("device: {kind: [gpu, bypass]}".to_owned(), "device: {kind: gpu, path: /dev/nvidia0}".to_owned()),
        4 => ("memory: {how: [ptrace, proc_mem]}".to_owned(), "memory: {how: ptrace}".to_owned()),
        5 => (format!("local: {{name: /run/team-{index}/**}}"), format!("local: {{name: /run/team-{index}/a}}")),
        6 => ("socket: {family: AF_PACKET}".to_owned(), "socket: {family: AF_PACKET}".to_owned()),
        _ => (
            "finding: {kind: 'gpu.*', atLeast: medium}".to_owned(),
            "finding: {kind: gpu.lost, severity: critical}".to_owned(),
        ),
    };
    let effect = if is_denying(index) { "deny" } else { ["audit", "alert"][index / 8 % 2] };
    let mode = MODES[index % MODES.len()];
    // What denies does so in a cgroup that nobody has.
    let cgroup = format!("/nobody/team-{index}");
    let (subject, process) = match effect {
        "deny" => (format!("  subject: {{cgroup: {cgroup}}}\n"), format!(", process: {{cgroup: {cgroup}}}")),
        _ => (String::new(), String::new()),
    };
    let except = if index % 8 == 7 { "" } else { "      except: [{exe: $trusted, unit: 'team@*.service'}]\n" };
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: team-{index}}}\nspec:\n  mode: {mode}\n{subject}  lists: {{trusted: \
         [/opt/trusted/a, '/opt/trusted/**/b']}}\n  rules:\n    - name: r\n      severity: low\n      effect: {effect}\n      message: team \
         {index}\n      match: {{{object}}}\n{except}tests:\n  - {{name: t, event: {{{event}{process}}}, expect: {effect}, rule: r}}\n"
    )
}

pub(super) fn the_commands_work(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let policies = scratch.join("policies");
    fs::create_dir_all(&policies).map_err(not_ok)?;
    let mut count = 0;
    for entry in fs::read_dir(tools.scripts.join("../policies")).map_err(not_ok)? {
        let path = entry.map_err(not_ok)?.path();
        let name = path.file_name().unwrap_or_default().to_owned();
        fs::copy(&path, policies.join(&name)).map_err(not_ok)?;
        count += usize::from(name != "lists.yaml");
    }
    for index in 0..MANY {
        fs::write(policies.join(format!("team-{index}.yaml")), generated(index)).map_err(not_ok)?;
    }
    let directory = policies.display().to_string();
    let (code, said) = plumbline(tools, &["check", &directory])?;
    let ok = format!("{} policies ok, 0 files invalid", count + MANY);
    ensure(code == Some(0) && said.contains(&ok), || said.clone())?;
    let (code, said) = plumbline(tools, &["test", &directory])?;
    ensure(code == Some(0) && said.matches("ok      team-").count() == MANY, || said.clone())?;
    let event = scratch.join("event.yaml");
    fs::write(&event, "{file: {path: /models/team-8/a}, process: {exe: /bin/cat}}").map_err(not_ok)?;
    let (code, said) =
        plumbline(tools, &["policy", "explain", &event.display().to_string(), "--policies", &directory])?;
    let matches = said.lines().filter(|line| line.starts_with("match ")).count();
    // That of team 8, and the shipped one of strangers at the weights.
    ensure(code == Some(0) && matches == 2 && said.contains("match     team-8/r"), || said.clone())?;

    // And in force, with one of the spine's own.
    let spine = Spine::start(tools, scratch)?;
    let listen = spine.daemon.address.to_string();
    let (code, said) = plumbline(tools, &["policy", "list", "--listen", &listen])?;
    let listed = said.lines().filter(|line| line.starts_with("team-")).count();
    ensure(code == Some(0) && listed == MANY, || said.clone())?;
    let enforced = said.lines().filter(|line| line.starts_with("team-") && line.contains(" enforce ")).count();
    ensure(enforced == MANY / 3, || said.clone())?;
    // What each takes of the kernel: nothing, where nothing is denied.
    let (_, said) = plumbline(tools, &["policy", "list", "--listen", &listen, "--json"])?;
    let said: Value = serde_json::from_str(&said).map_err(not_ok)?;
    let listed = said["policies"].as_array().into_iter().flatten();
    let number = |one: &Value| one["name"].as_str()?.strip_prefix("team-")?.parse::<usize>().ok();
    let of_teams = listed.filter_map(|one| Some((number(one)?, one["kernel_table_bytes"].as_u64()?)));
    let (denying, others): (Vec<_>, Vec<_>) =
        of_teams.partition(|(index, _)| is_denying(*index) && MODES[index % MODES.len()] == "enforce");
    let bytes = |of: &[(usize, u64)]| of.iter().map(|(_, bytes)| bytes).sum::<u64>();
    println!("# {} policies that deny take {} bytes of tables", denying.len(), bytes(&denying));
    let is_small = |bytes: &u64| (1..=64 << 10).contains(bytes);
    ensure(denying.len() > 3 && denying.iter().all(|(_, bytes)| is_small(bytes)), || format!("{denying:?}"))?;
    ensure(denying.len() + others.len() == MANY && bytes(&others) == 0, || format!("{others:?}"))?;
    // One file changes.
    fs::write(policies.join("team-0.yaml"), generated(0).replace("team 0", "team nil")).map_err(not_ok)?;
    let began = Instant::now();
    spine.daemon.signal(rustix::process::Signal::HUP).map_err(not_ok)?;
    spine.daemon.wait_for("plumbline_policy_generation", |generation| generation >= 2.0).map_err(not_ok)?;
    println!("# {} policies were in force again after {} ms at most", count + MANY + 1, began.elapsed().as_millis());
    Ok(())
}
