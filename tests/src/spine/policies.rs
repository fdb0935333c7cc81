//! Policies as people meet them: on the command line, and by what the daemon says of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use super::{QUIET, Spine, ensure, equal, not_ok, skipped};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools, run},
};

/// Runs the program itself.
pub(super) fn plumbline(tools: &Tools, arguments: &[&str]) -> Result<(Option<i32>, String), Ended> {
    let Output { status, stdout, stderr } = run(Command::new(&tools.plumbline).args(arguments)).map_err(not_ok)?;
    let both = [stdout, stderr].concat();
    Ok((status.code(), String::from_utf8_lossy(&both).into_owned()))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn listed_explained_learned(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let file = spine.models.join("a.safetensors");
    fs::write(&file, b"weights").map_err(not_ok)?;
    run(Command::new("cat").arg(&file)).map_err(not_ok)?;
    let open = spine.open_of(&file).map_err(not_ok)?;
    equal("alert", &open["is_alert"], true)?;
    equal("mode", &open["unmapped"]["plumbline"]["matched"][0]["mode"], "monitor")?;
    let (policies, log) = (shown(&scratch.join("policies")), shown(&spine.daemon.log_dir()));

    let listen = spine.daemon.address.to_string();
    let (code, list) = plumbline(tools, &["policy", "list", "--listen", &listen])?;
    let line = list.lines().find(|line| line.starts_with("weights ")).unwrap_or_default().to_owned();
    let words: Vec<&str> = line.split_whitespace().collect();
    // The write that made the file was an open as well.
    ensure(code == Some(0) && words.get(1..4) == Some(&["monitor", "1", "2"]), || list.clone())?;
    ensure(list.contains("kernel memory: ") && !list.contains("absent"), || list.clone())?;

    let seq = open["metadata"]["sequence"].to_string();
    let (code, why) = plumbline(tools, &["policy", "explain", &seq, "--log", &log, "--policies", &policies])?;
    ensure(code == Some(0) && why.contains("match     weights/stranger  high alert (monitor)"), || why.clone())?;
    ensure(why.contains("exception 1 does not excuse it: `exe` does not hold"), || why.clone())?;

    // What is not silent on this log is, with what was learned from it.
    let test = ["test", policies.as_str(), "--silent-on", log.as_str()];
    let (code, said) = plumbline(tools, &test)?;
    ensure(code == Some(1) && said.contains("weights/stranger matches"), || said.clone())?;
    let file = shown(&scratch.join("policies/learned.yaml"));
    let learn = ["policy", "learn", "--last", "1h", "--log", &log, "--policies", &policies, "--output", &file];
    let (code, said) = plumbline(tools, &learn)?;
    let learned = fs::read_to_string(&file).map_err(not_ok)?;
    ensure(code == Some(0) && learned.contains("kind: Exceptions"), || format!("{said}{learned}"))?;
    let (code, said) = plumbline(tools, &test)?;
    ensure(code == Some(0), || format!("{learned}\n{said}"))?;

    // In force: the same is recorded, and no alert any more.
    spine.daemon.signal(rustix::process::Signal::HUP).map_err(not_ok)?;
    spine.daemon.wait_for("plumbline_policy_generation", |generation| generation >= 2.0).map_err(not_ok)?;
    let other = spine.models.join("b.safetensors");
    fs::write(&other, b"weights").map_err(not_ok)?;
    run(Command::new("cat").arg(&other)).map_err(not_ok)?;
    let open = spine.daemon.wait_for_record("cat's open", |record| {
        record["file"]["path"] == shown(&other).as_str() && record["actor"]["process"]["name"] == "cat"
    });
    let open = open.map_err(not_ok)?;
    ensure(open["is_alert"] != true, || open.to_string())
}

const ENFORCED: &str = "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: enforced}\nspec:\n  mode: enforce\n  requires: [bpf-lsm]\n  OTHERWISE\n  rules:\n    - \
                        name: r\n      severity: high\n      effect: deny\n      message: '{path}'\n      match: {file: {watch: [/models]}}\n";

pub(super) fn what_cannot_be_enforced(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let policies = scratch.join("policies");
    fs::create_dir_all(&policies).map_err(not_ok)?;
    let file = policies.join("enforced.yaml");
    let config = format!("policies: {}\n{QUIET}", policies.display());
    if plumbline::probes::kernel::bpf_lsm().is_ok() {
        return Err(skipped("this kernel can do all that a policy may need"));
    }
    // In so many words, before anything runs; and where a kernel could, it is not said.
    fs::write(&file, ENFORCED.replace("OTHERWISE", "otherwise: refuse")).map_err(not_ok)?;
    let directory = shown(&policies);
    let (code, said) = plumbline(tools, &["check", &directory, "--kernel", "this"])?;
    let why = "policy `enforced` needs `bpf-lsm`, and ";
    ensure(code == Some(1) && said.contains(why), || said.clone())?;
    let (code, said) = plumbline(tools, &["check", &directory, "--kernel", "6.1+bpf-lsm"])?;
    ensure(code == Some(0), || said.clone())?;
    match Daemon::start(tools, scratch, &config) {
        Err(said) => ensure(said.contains(why), || said.clone())?,
        Ok(_) => return Err(Ended::NotOk("the daemon is in force with what it cannot enforce".to_owned())),
    }
    fs::write(&file, ENFORCED.replace("OTHERWISE", "otherwise: degrade")).map_err(not_ok)?;
    let daemon = Daemon::start(tools, scratch, &config).map_err(Ended::NotOk)?;
    let status: Value = serde_json::from_str(&daemon.get("/api/v1/policies").map_err(not_ok)?).map_err(not_ok)?;
    equal("mode", &status["policies"][0]["mode"], "monitor")?;
    let note = status["policies"][0]["note"].as_str().unwrap_or_default();
    ensure(note.contains("written as enforce"), || status.to_string())
}

/// A policy of its own beside those of the spine.
fn with_policy(scratch: &Path, name: &str, text: &str) -> Result<PathBuf, Ended> {
    let policies = scratch.join("policies");
    fs::create_dir_all(&policies).map_err(not_ok)?;
    let file = policies.join(name);
    fs::write(&file, text).map_err(not_ok)?;
    Ok(file)
}

pub(super) fn tampering_is_told(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let shipped = fs::read_to_string(tools.scripts.join("../policies/tamper.yaml")).map_err(not_ok)?;
    let state = scratch.join("state");
    fs::create_dir_all(&state).map_err(not_ok)?;
    let policy = shipped.replace("/var/lib/plumbline", &shown(&state)).replace(
        "/usr/bin/plumbline, /usr/local/bin/plumbline]\n          access: [change]",
        "/usr/bin/plumbline]\n          access: [change]",
    );
    with_policy(scratch, "tamper.yaml", &policy)?;
    let spine = Spine::start(tools, scratch)?;
    let victim = state.join("node.vkey");
    run(Command::new("sh").args(["-c", &format!("echo x >> '{}'", victim.display())])).map_err(not_ok)?;
    let changed = spine.daemon.wait_for_record("a change of the key", |record| {
        record["file"]["path"] == shown(&victim).as_str()
            && record["policy"]["uid"] == "files-of-plumbline-changed"
            && record["is_alert"] == true
    });
    equal("severity", &changed.map_err(not_ok)?["severity_id"], 5)?;
    // Its own writes, which it makes all the time, are not among them.
    std::thread::sleep(Duration::from_secs(2));
    let own = u64::from(spine.daemon.pid());
    let records = spine.daemon.records().map_err(not_ok)?;
    let of_own = records.iter().find(|record| {
        record["class_uid"] == 1001 && record.pointer("/actor/process/pid").and_then(Value::as_u64) == Some(own)
    });
    ensure(of_own.is_none(), || of_own.map(Value::to_string).unwrap_or_default())
}

pub(super) fn the_same_is_told_once(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let models = scratch.join("models");
    let policy = format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: throttled}}\nspec:\n  rules:\n    - name: r\n      severity: critical\n      \
         effect: alert\n      message: '{{path}}'\n      match: {{file: {{watch: [{}]}}}}\n      throttle: {{every: 1h, by: [path]}}\n",
        models.display()
    );
    let spine = {
        with_policy(scratch, "throttled.yaml", &policy)?;
        let spine = Spine::start(tools, scratch)?;
        // Alone: another policy that tells of the same would tell of it.
        fs::remove_file(scratch.join("policies/weights.yaml")).map_err(not_ok)?;
        spine.daemon.signal(rustix::process::Signal::HUP).map_err(not_ok)?;
        spine.daemon.wait_for("plumbline_policy_generation", |generation| generation >= 2.0).map_err(not_ok)?;
        spine
    };
    let file = spine.models.join("a");
    fs::write(&file, b"weights").map_err(not_ok)?;
    for _ in 0..3 {
        run(Command::new("cat").arg(&file)).map_err(not_ok)?;
    }
    let withheld = "plumbline_policy_alerts_withheld_total{policy=\"throttled\"";
    spine.daemon.wait_for(withheld, |count| count >= 3.0).map_err(not_ok)?;
    let records = spine.daemon.records().map_err(not_ok)?;
    let opens: Vec<&Value> = records
        .iter()
        .filter(|record| record["policy"]["name"] == "throttled" && record["file"]["path"] == shown(&file).as_str())
        .collect();
    let alerts = opens.iter().filter(|record| record["is_alert"] == true).count();
    // The write that made it was an open as well.
    ensure((opens.len(), alerts) == (4, 1), || format!("{} records, {alerts} alerts", opens.len()))
}

pub(super) fn a_lost_gpu_is_an_alert(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(library) = &tools.fake_nvml else { return Err(skipped("no simulated NVML is built")) };
    let scenario = shown(&tools.scripts.join("fake-nvml/scenarios/lost.yaml"));
    let shipped = fs::read_to_string(tools.scripts.join("../policies/gpu-health.yaml")).map_err(not_ok)?;
    with_policy(scratch, "gpu-health.yaml", &shipped)?;
    let config = format!(
        "policies: {}\ngpu: {{library: {}, interval_seconds: 1}}\nengines: {{discover: false}}\n",
        scratch.join("policies").display(),
        library.display()
    );
    let daemon =
        Daemon::start_with(tools, scratch, &config, &[("FAKE_NVML_SCENARIO", &scenario)]).map_err(Ended::NotOk)?;
    let alert = daemon
        .wait_for_record("the lost GPU", |record| record["policy"]["uid"] == "gpu-lost" && record["is_alert"] == true);
    let alert = alert.map_err(not_ok)?;
    equal("class", &alert["class_uid"], 2004)?;
    equal("kind", &alert["unmapped"]["plumbline"]["finding"]["kind"], "gpu.lost")?;
    let uuid = "GPU-5eed0000-0000-4000-8000-000000000001";
    equal("entity", &alert["unmapped"]["plumbline"]["finding"]["entity"], uuid)
}

pub(super) fn the_schema_is_one(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(python) = &tools.python else { return Err(skipped("no Python with `jsonschema` (PLUMBLINE_PYTHON)")) };
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let schema = scratch.join("schema.json");
    let (code, text) = plumbline(tools, &["policy", "schema"])?;
    ensure(code == Some(0), || text.clone())?;
    fs::write(&schema, text).map_err(not_ok)?;
    let script = tools.scripts.join("policy_schema.py");
    let output = run(Command::new(python).arg(script).arg(&schema).arg(tools.scripts.join("../policies")));
    let output = output.map_err(not_ok)?;
    let said = [output.stdout, output.stderr].concat();
    ensure(output.status.success(), || String::from_utf8_lossy(&said).into_owned())
}

/// A cgroup of its own, whose processes a policy may end.
struct Cell(PathBuf);

impl Cell {
    fn make() -> Result<Self, Ended> {
        let root = plumbline::probes::kernel::cgroup2_root().map_err(|error| skipped(&error.to_string()))?;
        let cell = root.join(format!("plumbline-cell-{}", std::process::id()));
        fs::create_dir_all(&cell).map_err(not_ok)?;
        Ok(Self(cell))
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

pub(super) fn who_may_be_killed_is(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let cell = Cell::make()?;
    let name = cell.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let models = scratch.join("models");
    let policy = |mode: &str| {
        format!(
            "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: cell}}\nspec:\n  mode: {mode}\n  subject: {{cgroup: /**/{name}}}\n  \
             rules:\n    - name: r\n      severity: critical\n      effect: kill\n      message: '{{path}}'\n      match: {{file: {{watch: \
             [{}]}}}}\n",
            models.display()
        )
    };
    let file = with_policy(scratch, "cell.yaml", &policy("monitor"))?;
    let spine = Spine::start(tools, scratch)?;
    let weights = spine.models.join("a");
    fs::write(&weights, b"weights").map_err(not_ok)?;
    // Opens the weights, and would sleep on; within the cell, or as a neighbour of it.
    let reader = |place: &str| {
        let script = format!("{place} exec 3<'{}'; exec sleep 10", weights.display());
        Command::new("sh").args(["-c", &script]).spawn().map_err(not_ok)
    };
    let into = format!("echo $$ > {}/cgroup.procs;", cell.0.display());
    let ends = |mut child: std::process::Child, within: Duration| -> Result<bool, Ended> {
        let deadline = std::time::Instant::now() + within;
        loop {
            if let Some(status) = child.try_wait().map_err(not_ok)? {
                return Ok(std::os::unix::process::ExitStatusExt::signal(&status) == Some(9));
            }
            if std::time::Instant::now() > deadline {
                child.kill().map_err(not_ok)?;
                child.wait().map_err(not_ok)?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // Monitored: told, and alive.
    let child = reader(&into)?;
    let pid = u64::from(child.id());
    let of = |pid: u64| {
        move |record: &Value| {
            record["policy"]["name"] == "cell"
                && record.pointer("/actor/process/pid").and_then(Value::as_u64) == Some(pid)
        }
    };
    let record = spine.daemon.wait_for_record("the monitored open", of(pid)).map_err(not_ok)?;
    equal("alert", &record["is_alert"], true)?;
    ensure(record["unmapped"]["plumbline"].get("killed").is_none(), || record.to_string())?;
    ensure(!ends(child, Duration::from_millis(300))?, || "a monitored process was killed".to_owned())?;
    // Enforced.
    fs::write(&file, policy("enforce")).map_err(not_ok)?;
    spine.daemon.signal(rustix::process::Signal::HUP).map_err(not_ok)?;
    spine.daemon.wait_for("plumbline_policy_generation", |generation| generation >= 2.0).map_err(not_ok)?;
    let (child, neighbour) = (reader(&into)?, reader("")?);
    let (pid, other) = (u64::from(child.id()), u64::from(neighbour.id()));
    ensure(ends(child, Duration::from_secs(5))?, || "the process in the cell was not killed".to_owned())?;
    let record = spine.daemon.wait_for_record("the enforced open", of(pid)).map_err(not_ok)?;
    equal("outcome", &record["unmapped"]["plumbline"]["killed"]["outcome"], "killed")?;
    spine.daemon.wait_for("plumbline_policy_enforced_total{policy=\"cell\"", |count| count >= 1.0).map_err(not_ok)?;
    let records = spine.daemon.records().map_err(not_ok)?;
    ensure(!records.iter().any(of(other)), || "a neighbour is spoken of".to_owned())?;
    ensure(!ends(neighbour, Duration::from_millis(300))?, || "a neighbour was killed".to_owned())
}
