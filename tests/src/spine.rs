//! The spine, end to end, with the real daemon: kernel events to signed records, sources to series, faults to words.

use std::{
    fs,
    net::TcpListener,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    checks::Ended,
    daemon::{Daemon, Tools, records, run, run_with},
    fake_engine::FakeEngine,
    llama::Llama,
    otlp::{NoReceiver, Receiver},
};

/// Quiet sources, so that a check sees only what it is about.
const QUIET: &str = "gpu: {enabled: false}\nengines: {discover: false}\n";

/// One check: its sentence, and what runs it. `Err(Ended::Skipped)` needs a reason.
type Check = (&'static str, fn(&Tools, &Path) -> Result<(), Ended>);

const CHECKS: &[Check] = &[
    ("a read of the weights becomes a signed policy event with lineage, path and inode", a_read_is_recorded),
    ("a read through a hugging face cache names the model it claims to be", a_cache_read_names_the_model),
    ("a name that is not utf-8 is kept exactly and shown safely", a_hostile_name_is_kept),
    ("a process in a container's cgroup is recorded with its container", a_container_is_named),
    ("a connection from one network namespace to another is a policy event", a_forbidden_connection_is_recorded),
    ("an allow-listed program is recorded without an alert", an_allowed_read_is_no_alert),
    ("one flipped byte is found and placed, by our verifier and by one in python", a_flipped_byte_is_placed),
    ("a killed daemon recovers its log and says so", a_killed_daemon_recovers),
    ("a full disk is loud, loses nothing silently and breaks nothing", a_full_disk_is_declared),
    ("a policy mistake keeps the last good set, and prevents a start", a_policy_mistake_is_shown),
    ("every record is valid ocsf 1.8.0", records_are_valid_ocsf),
    ("promtool accepts the page", promtool_accepts_the_page),
    ("the price per token agrees with a calculation by hand to one percent", the_price_is_right),
    ("a real llama.cpp is found, priced, and seen opening its weights", a_real_llama),
    ("an engine that is down is absent and counted, and disturbs nobody", a_dead_engine_is_absent),
    ("a simulated gpu is labelled as simulated", a_simulated_gpu_says_so),
    ("without a driver the gpu is absent with a reason", an_absent_gpu_has_a_reason),
    ("without privileges the daemon says what is missing and serves the rest", no_privileges),
    ("by otlp every series and every record reach a receiver that was down at first", otlp_reaches_a_receiver),
];

/// Runs every check in a directory of its own.
pub fn run_all(tools: &Tools, scratch: &Path, only: Option<&str>, told: &mut dyn FnMut(&str, Ended)) {
    for (number, (name, check)) in CHECKS.iter().enumerate() {
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let ended = check(tools, &scratch.join(number.to_string())).map_or_else(|ended| ended, |()| Ended::Ok);
        told(name, ended);
    }
}

/// A daemon with one watched directory of its own.
struct Spine {
    daemon: Daemon,
    models: PathBuf,
    scratch: PathBuf,
}

impl Spine {
    fn start(tools: &Tools, scratch: &Path) -> Result<Self, Ended> {
        Self::start_with(tools, scratch, QUIET)
    }

    fn start_with(tools: &Tools, scratch: &Path, config: &str) -> Result<Self, Ended> {
        let models = scratch.join("models");
        let policies = scratch.join("policies");
        fs::create_dir_all(&models).and_then(|()| fs::create_dir_all(&policies)).map_err(not_ok)?;
        fs::write(policies.join("weights.yaml"), weights_policy(&models)).map_err(not_ok)?;
        let egress = tools.scripts.join("../policies/egress.yaml");
        fs::copy(egress, policies.join("egress.yaml")).map_err(not_ok)?;
        let config = format!("policies: {}\n{config}", policies.display());
        let daemon = Daemon::start(tools, scratch, &config).map_err(Ended::NotOk)?;
        daemon.wait_for("plumbline_watched_directories", |count| count >= 1.0).map_err(Ended::NotOk)?;
        Ok(Self { daemon, models, scratch: scratch.to_owned() })
    }

    /// The record of an open of `path`, matched exactly.
    fn open_of(&self, path: &Path) -> Result<Value, String> {
        let shown = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
        self.daemon.wait_for_record(&format!("an open of {shown}"), |record| {
            record["class_uid"] == 1001 && record["file"]["path"] == shown.as_str()
        })
    }
}

fn weights_policy(models: &Path) -> String {
    let models = models.display();
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: weights}}\nspec:\n  rules:\n    - name: stranger\n      \
         severity: high\n      effect: alert\n      message: \"{{comm}} opened {{path}}\"\n      match:\n        file: {{watch: [{models}], \
         access: [open]}}\n      except:\n        - exe: [\"{models}/../bin/llama-server\", \"/usr/lib/plumbline-test/llama-server\"]\n"
    )
    .replace("/models/../bin", "/bin")
}

fn not_ok(error: impl std::fmt::Display) -> Ended {
    Ended::NotOk(error.to_string())
}

fn skipped(why: &str) -> Ended {
    Ended::Skipped(why.to_owned())
}

fn ensure(holds: bool, what: impl Fn() -> String) -> Result<(), Ended> {
    if holds { Ok(()) } else { Err(Ended::NotOk(what())) }
}

fn equal(what: &str, found: &Value, expected: impl Into<Value>) -> Result<(), Ended> {
    let expected = expected.into();
    ensure(*found == expected, || format!("{what}: found {found}, expected {expected}"))
}

fn a_read_is_recorded(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join("llama.safetensors");
    fs::write(&path, b"weights").map_err(not_ok)?;
    let mut reader = Command::new("cat").arg(&path).stdout(std::process::Stdio::null()).spawn().map_err(not_ok)?;
    let pid = reader.id();
    reader.wait().map_err(not_ok)?;
    let record = spine
        .daemon
        .wait_for_record("cat's open", |record| record["actor"]["process"]["pid"] == pid && record["class_uid"] == 1001)
        .map_err(not_ok)?;
    let inode = fs::metadata(&path).map_err(not_ok)?.ino();
    equal("path", &record["file"]["path"], path.display().to_string())?;
    equal("inode", &record["unmapped"]["plumbline"]["inode"], inode)?;
    equal("policy", &record["policy"]["name"], "weights")?;
    equal("alert", &record["is_alert"], true)?;
    equal("severity", &record["severity_id"], 4)?;
    equal("parent", &record["actor"]["process"]["parent_process"]["pid"], std::process::id())?;
    let exe = fs::canonicalize("/bin/cat").map_err(not_ok)?;
    equal("executable", &record["actor"]["process"]["file"]["path"], exe.display().to_string())?;
    let ancestry = record["actor"]["process"]["ancestry"].as_array().map_or(0, Vec::len);
    ensure(ancestry >= 2, || format!("ancestry of {ancestry}"))?;
    let matches = r#"plumbline_policy_matches_total{policy="weights",rule="stranger",effect="alert""#;
    spine.daemon.wait_for(matches, |count| count >= 1.0).map_err(not_ok)?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    spine.daemon.stop().map_err(not_ok)?;
    verdict(tools, &log, &vkey, 0, "intact")
}

fn a_cache_read_names_the_model(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let sha = "5d0f1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";
    let repository = spine.models.join("models--meta-llama--Llama-3.1-8B");
    let (blobs, snapshot) = (repository.join("blobs"), repository.join("snapshots/0123"));
    fs::create_dir_all(&blobs).and_then(|()| fs::create_dir_all(&snapshot)).map_err(not_ok)?;
    fs::write(blobs.join(sha), b"weights").map_err(not_ok)?;
    let link = snapshot.join("model.safetensors");
    symlink(format!("../../blobs/{sha}"), &link).map_err(not_ok)?;
    fs::read(&link).map_err(not_ok)?;
    let record = spine.open_of(&blobs.join(sha)).map_err(not_ok)?;
    let claim = &record["enrichments"][0]["data"];
    equal("state", &claim["state"], "claimed")?;
    equal("repository", &claim["artefact"]["repository"], "meta-llama/Llama-3.1-8B")?;
    equal("digest", &claim["artefact"]["claimed_sha256"], sha)
}

fn a_hostile_name_is_kept(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join(std::ffi::OsStr::from_bytes(b"we\xffights\n\x1b[31m\xe2\x80\xae.bin"));
    fs::write(&path, b"weights").map_err(not_ok)?;
    fs::read(&path).map_err(not_ok)?;
    let exact = STANDARD.encode(path.as_os_str().as_bytes());
    let record = spine
        .daemon
        .wait_for_record("the hostile name", |record| record["unmapped"]["plumbline"]["path_b64"] == exact.as_str())
        .map_err(not_ok)?;
    let shown = record["file"]["name"].as_str().unwrap_or_default().to_owned();
    ensure(shown == "we\u{fffd}ights\u{fffd}\u{fffd}[31m\u{fffd}.bin", || format!("shown as {shown:?}"))
}

fn a_container_is_named(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let root = plumbline::probes::kernel::cgroup2_root().map_err(|error| skipped(&error.to_string()))?;
    let id = "8f3b0a52c1d94e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b";
    let pod = "3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60";
    let slice = root.join(format!("kubepods-burstable-pod{}.slice", pod.replace('-', "_")));
    let cgroup = slice.join(format!("cri-containerd-{id}.scope"));
    fs::create_dir_all(&cgroup).map_err(not_ok)?;
    let outcome = (|| {
        let spine = Spine::start(tools, scratch)?;
        let path = spine.models.join("x.gguf");
        fs::write(&path, b"weights").map_err(not_ok)?;
        let script = format!("echo $$ > {}/cgroup.procs && exec cat {}", cgroup.display(), path.display());
        run(Command::new("sh").args(["-c", &script])).map_err(not_ok)?;
        let record = spine
            .daemon
            .wait_for_record("the open from the container", |record| {
                record["actor"]["process"]["container"]["uid"] == id
            })
            .map_err(not_ok)?;
        equal("runtime", &record["actor"]["process"]["container"]["runtime"], "containerd")?;
        equal("pod", &record["actor"]["process"]["container"]["pod_uuid"], pod)
    })();
    let _ = fs::remove_dir(&cgroup);
    let _ = fs::remove_dir(&slice);
    outcome
}

fn a_forbidden_connection_is_recorded(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    if run(Command::new("ip").arg("-V")).is_err() {
        return Err(skipped("the program `ip` is missing (Debian package iproute2)"));
    }
    let spine = Spine::start(tools, scratch)?;
    let tag = std::process::id() % 100_000;
    let (left, right) = (format!("plumb-a-{tag}"), format!("plumb-b-{tag}"));
    // Two hosts on one wire, with addresses that belong to documentation (RFC 5737).
    let setup = format!(
        "set -e; ip netns add {left}; ip netns add {right}; ip -n {left} link add wire type veth peer name wire netns {right}; \
         ip -n {left} addr add 203.0.113.1/24 dev wire; ip -n {right} addr add 203.0.113.2/24 dev wire; \
         ip -n {left} link set wire up; ip -n {right} link set wire up"
    );
    let output = run(Command::new("sh").args(["-c", &setup])).map_err(not_ok)?;
    let outcome = (|| {
        ensure(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())?;
        let connect = "exec 3<>/dev/tcp/203.0.113.2/4444";
        run(Command::new("ip").args(["netns", "exec", &left, "bash", "-c", connect])).map_err(not_ok)?;
        let record = spine
            .daemon
            .wait_for_record("the connection", |record| {
                record["class_uid"] == 4001 && record["dst_endpoint"]["ip"] == "203.0.113.2"
            })
            .map_err(not_ok)?;
        equal("port", &record["dst_endpoint"]["port"], 4444)?;
        equal("policy", &record["policy"]["name"], "egress")?;
        equal("alert", &record["is_alert"], true)?;
        equal("who", &record["actor"]["process"]["name"], "bash")?;
        let own = fs::metadata("/proc/self/ns/net").map_err(not_ok)?.ino();
        let there = &record["unmapped"]["plumbline"]["namespaces"]["net"];
        ensure(there.is_u64() && *there != own, || format!("network namespace {there}, ours is {own}"))
    })();
    let _ = run(Command::new("sh").args(["-c", &format!("ip netns del {left}; ip netns del {right}")]));
    outcome
}

fn an_allowed_read_is_no_alert(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join("y.gguf");
    let engine = spine.scratch.join("bin/llama-server");
    fs::write(&path, b"weights").map_err(not_ok)?;
    fs::create_dir_all(spine.scratch.join("bin")).and_then(|()| fs::copy("/bin/cat", &engine)).map_err(not_ok)?;
    run(Command::new(&engine).arg(&path)).map_err(not_ok)?;
    let exe = engine.display().to_string();
    let record = spine
        .daemon
        .wait_for_record("the engine's open", |record| record["actor"]["process"]["file"]["path"] == exe.as_str())
        .map_err(not_ok)?;
    equal("path", &record["file"]["path"], path.display().to_string())?;
    equal("alert", &record["is_alert"], Value::Null)?;
    equal("disposition", &record["disposition_id"], 17)
}

fn a_flipped_byte_is_placed(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join("z.gguf");
    fs::write(&path, b"weights").map_err(not_ok)?;
    fs::read(&path).map_err(not_ok)?;
    spine.open_of(&path).map_err(not_ok)?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    spine.daemon.stop().map_err(not_ok)?;
    verdict(tools, &log, &vkey, 0, "intact")?;
    let segment = fs::read_dir(&log)
        .map_err(not_ok)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment")))
        .ok_or_else(|| not_ok("no segment"))?;
    let mut bytes = fs::read(&segment).map_err(not_ok)?;
    let needle = b"z.gguf";
    let at = bytes.windows(needle.len()).position(|window| window == needle).ok_or_else(|| not_ok("no record"))?;
    bytes[at] ^= 1;
    fs::write(&segment, bytes).map_err(not_ok)?;
    let name = segment.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    verdict(tools, &log, &vkey, 1, &name)
}

/// What our verifier and the one in Python say.
fn verdict(tools: &Tools, log: &Path, vkey: &Path, code: i32, says: &str) -> Result<(), Ended> {
    let ours = run(Command::new(&tools.plumbline).args(["audit", "verify"]).arg(log).arg("--key").arg(vkey));
    let ours = ours.map_err(not_ok)?;
    let said = String::from_utf8_lossy(&ours.stdout).into_owned();
    ensure(ours.status.code() == Some(code) && said.contains(says), || {
        format!("exit {:?}: {said}", ours.status.code())
    })?;
    let Some(python) = &tools.python else {
        return Err(skipped("no Python with `cryptography` (PLUMBLINE_PYTHON); our own verifier agreed"));
    };
    let key = fs::read_to_string(vkey).map_err(not_ok)?;
    let theirs = run(Command::new(python).arg(tools.scripts.join("verify_log.py")).arg(log).arg(key.trim()));
    let theirs = theirs.map_err(not_ok)?;
    // The short script proves bytes and signatures; it does not read declared losses.
    let code = if code == 2 { 0 } else { code };
    ensure(theirs.status.code() == Some(code), || {
        format!("python: exit {:?}: {}", theirs.status.code(), String::from_utf8_lossy(&theirs.stdout))
    })
}

fn a_killed_daemon_recovers(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join("k.gguf");
    fs::write(&path, b"weights").map_err(not_ok)?;
    fs::read(&path).map_err(not_ok)?;
    spine.open_of(&path).map_err(not_ok)?;
    // Dropped without SIGTERM: killed.
    drop(spine);
    let spine = Spine::start(tools, scratch)?;
    let start = spine
        .daemon
        .wait_for_record("the second start", |record| {
            record["unmapped"]["plumbline"]["previous"].as_str().is_some_and(|text| text.starts_with("not closed"))
        })
        .map_err(not_ok)?;
    equal("class", &start["class_uid"], 6002)?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    spine.daemon.stop().map_err(not_ok)?;
    verdict(tools, &log, &vkey, 0, "intact")
}

fn a_full_disk_is_declared(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let state = scratch.join("state");
    fs::create_dir_all(&state).map_err(not_ok)?;
    let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "plumbline-test"]).arg(&state));
    let mounted = mounted.map_err(not_ok)?;
    ensure(mounted.status.success(), || String::from_utf8_lossy(&mounted.stderr).into_owned())?;
    let outcome = (|| {
        let spine = Spine::start(tools, scratch)?;
        let path = spine.models.join("f.gguf");
        fs::write(&path, b"weights").map_err(not_ok)?;
        fs::read(&path).map_err(not_ok)?;
        spine.open_of(&path).map_err(not_ok)?;
        let filler = state.join("filler");
        // Fills the file system to the last block: writing ends with an error, and that is the point.
        let _ = fs::write(&filler, vec![0; 1 << 20]);
        let lost = r#"plumbline_lost_total{place="log""#;
        let deadline = Instant::now() + Duration::from_secs(20);
        while spine.daemon.metric(lost).map_err(not_ok)?.is_none() {
            ensure(Instant::now() < deadline, || "no loss was counted on a full disk".to_owned())?;
            fs::read(&path).map_err(not_ok)?;
        }
        fs::remove_file(&filler).map_err(not_ok)?;
        let declared = spine
            .daemon
            .wait_for_record("the declared loss", |record| record["unmapped"]["plumbline"]["kind"] == "loss")
            .map_err(not_ok)?;
        let said = fs::read_to_string(scratch.join("daemon.log")).map_err(not_ok)?;
        ensure(said.contains("audit log cannot be written"), || "nothing was said aloud".to_owned())?;
        equal("place", &declared["unmapped"]["plumbline"]["place"], "log")?;
        let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
        let counted = spine.daemon.metric(lost).map_err(not_ok)?.unwrap_or_default();
        spine.daemon.stop().map_err(not_ok)?;
        let sum: u64 = records(tools, &log)
            .map_err(not_ok)?
            .iter()
            .filter(|record| record["unmapped"]["plumbline"]["kind"] == "loss")
            .filter_map(|record| record["unmapped"]["plumbline"]["count"].as_u64())
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a few records")]
        let agree = (sum as f64 - counted).abs() < 0.5;
        ensure(agree, || format!("declared {sum}, counted {counted}"))?;
        // Incomplete, but declared.
        verdict(tools, &log, &vkey, 2, "declared")
    })();
    let _ = run(Command::new("umount").arg(&state));
    outcome
}

fn a_policy_mistake_is_shown(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let file = scratch.join("policies/weights.yaml");
    let good = fs::read_to_string(&file).map_err(not_ok)?;
    fs::write(&file, good.replace("severity: high", "severty: high")).map_err(not_ok)?;
    spine.daemon.signal(rustix::process::Signal::HUP).map_err(not_ok)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !spine.daemon.said(scratch).contains("last good ones stay in force") {
        ensure(Instant::now() < deadline, || "the mistake was not told".to_owned())?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let path = spine.models.join("p.gguf");
    fs::write(&path, b"weights").map_err(not_ok)?;
    fs::read(&path).map_err(not_ok)?;
    equal("policy still in force", &spine.open_of(&path).map_err(not_ok)?["policy"]["name"], "weights")?;
    spine.daemon.stop().map_err(not_ok)?;
    // And no start without a good set: file, line, what to write instead.
    let config = scratch.join("config.yaml");
    let refused = run(Command::new(&tools.plumbline).args(["run", "--config"]).arg(&config)).map_err(not_ok)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure(!refused.status.success(), || "it started without policies".to_owned())?;
    ensure(said.contains("weights.yaml:7") && said.contains("severity"), || said.clone())?;
    fs::write(&file, good).map_err(not_ok)
}

fn records_are_valid_ocsf(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(python) = &tools.python else {
        return Err(skipped("no Python with `ocsf-json-schema` (PLUMBLINE_PYTHON)"));
    };
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join("models--a--b/blobs/0");
    fs::create_dir_all(spine.models.join("models--a--b/blobs")).map_err(not_ok)?;
    fs::write(&path, b"weights").map_err(not_ok)?;
    fs::read(&path).map_err(not_ok)?;
    spine.open_of(&path).map_err(not_ok)?;
    let _refused = std::net::TcpStream::connect_timeout(&([192, 0, 2, 1], 9).into(), Duration::from_millis(50));
    spine.daemon.wait_for_record("the connection", |record| record["class_uid"] == 4001).map_err(not_ok)?;
    let log = spine.daemon.log_dir();
    spine.daemon.stop().map_err(not_ok)?;
    let all = run(Command::new(&tools.plumbline).args(["audit", "cat"]).arg(log)).map_err(not_ok)?;
    let said =
        run_with(Command::new(python).arg(tools.scripts.join("validate_ocsf.py")), &all.stdout).map_err(not_ok)?;
    ensure(said.status.success(), || {
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
    })
}

fn promtool_accepts_the_page(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(promtool) = &tools.promtool else { return Err(skipped("no promtool (PLUMBLINE_PROMTOOL)")) };
    let engine = FakeEngine::start().map_err(not_ok)?;
    let spine = Spine::start_with(tools, scratch, &priced(&engine))?;
    spine.daemon.wait_for("plumbline_engine_generation_tokens_total", |_| true).map_err(not_ok)?;
    let page = spine.daemon.metrics().map_err(not_ok)?;
    let said = run_with(Command::new(promtool).args(["check", "metrics"]), page.as_bytes()).map_err(not_ok)?;
    ensure(said.status.success() && said.stderr.is_empty(), || {
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
    })?;
    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let page = crate::daemon::get(spine.daemon.address, "/metrics", accept).map_err(not_ok)?;
    ensure(page.ends_with("# EOF\n"), || "the OpenMetrics page has no end mark".to_owned())
}

fn priced(engine: &FakeEngine) -> String {
    format!(
        "gpu: {{enabled: false}}\nprices: {{currency: EUR, node_per_hour: 3.6}}\nengines:\n  discover: false\n  targets:\n    - name: \
         fake\n      url: http://{}/metrics\n      dialect: llamacpp\n      interval: 250ms\n",
        engine.address
    )
}

fn the_price_is_right(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let engine = FakeEngine::start().map_err(not_ok)?;
    let spine = Spine::start_with(tools, scratch, &priced(&engine))?;
    std::thread::sleep(Duration::from_secs(12));
    // 3.6 EUR an hour is 0.001 EUR a second; the engine makes exactly 100 tokens a second.
    let per_token = spine
        .daemon
        .wait_for(
            r#"plumbline_cost_per_token{currency="EUR",basis="node",engine="fake",model="",kind="generated""#,
            |_| true,
        )
        .map_err(not_ok)?;
    let by_hand = 0.001 / FakeEngine::TOKENS_PER_SECOND;
    ensure((per_token / by_hand - 1.0).abs() < 0.01, || format!("{per_token} against {by_hand} by hand"))
}

/// Real weights, a real server, real requests; the price against the server's own page.
fn a_real_llama(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let (Some(server), Some(model)) = (&tools.llama_server, &tools.llama_model) else {
        return Err(skipped("llama.cpp is not built; `cargo xtask engine llama` builds and caches it"));
    };
    let config = "gpu: {enabled: false}\nprices: {currency: EUR, node_per_hour: 3.6}\nengines: {discover: true}\n";
    let spine = Spine::start_with(tools, scratch, config)?;
    let weights = spine.models.join("smollm2.gguf");
    fs::copy(model, &weights).map_err(not_ok)?;
    let llama = Llama::start(server, &weights).map_err(not_ok)?;
    let (path, pid) = (weights.display().to_string(), llama.pid());
    spine
        .daemon
        .wait_for_record("llama.cpp opening its weights", |record| {
            record["file"]["path"] == path.as_str() && record["actor"]["process"]["pid"] == pid
        })
        .map_err(not_ok)?;
    let tokens = "plumbline_engine_generation_tokens_total{engine=\"llamacpp-";
    spine.daemon.wait_for(tokens, |_| true).map_err(not_ok)?;
    for _ in 0..4 {
        llama.complete(48).map_err(not_ok)?;
    }
    let own = llama.tokens().map_err(not_ok)?;
    spine.daemon.wait_for(tokens, |ours| (ours - own).abs() < 0.5).map_err(not_ok)?;
    let page = spine.daemon.metrics().map_err(not_ok)?;
    let value = |start: &str, part: &str| {
        let line = page
            .lines()
            .find(|line| line.starts_with(start) && line.contains(part) && line.contains("window=\"start\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .ok_or_else(|| not_ok(format!("no {start} {part}")))
    };
    let window_seconds = value("plumbline_cost_window_seconds", "")?;
    let per_token = value("plumbline_cost_per_token", "kind=\"generated\"")?;
    // 3.6 EUR an hour, idle time included, over the tokens that llama.cpp itself counted.
    let by_hand = 3.6 / 3600.0 * window_seconds / own;
    println!("# llama.cpp: {own} tokens in {window_seconds:.1} s; {per_token:.9} EUR per token, {by_hand:.9} by hand");
    ensure((per_token / by_hand - 1.0).abs() < 0.01, || format!("{per_token} against {by_hand} by hand"))
}

fn a_dead_engine_is_absent(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(not_ok)?;
    let engine = FakeEngine::start().map_err(not_ok)?;
    let config =
        priced(&engine) + &format!("    - {{name: dead, url: \"http://{nobody}/metrics\", interval: 250ms}}\n");
    let spine = Spine::start_with(tools, scratch, &config)?;
    spine
        .daemon
        .wait_for(r#"plumbline_engine_generation_tokens_total{engine="fake""#, |tokens| tokens > 0.0)
        .map_err(not_ok)?;
    spine
        .daemon
        .wait_for(r#"plumbline_engine_scrape_errors_total{engine="dead""#, |errors| errors >= 2.0)
        .map_err(not_ok)?;
    let page = spine.daemon.metrics().map_err(not_ok)?;
    ensure(!page.contains(r#"generation_tokens_total{engine="dead""#), || "a dead engine has tokens".to_owned())?;
    equal("up", &Value::from(spine.daemon.metric(r#"plumbline_engine_up{engine="dead""#).map_err(not_ok)?), 0.0)
}

fn a_simulated_gpu_says_so(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(library) = &tools.fake_nvml else { return Err(skipped("libfake_nvml.so is not built")) };
    let scenario = tools.scripts.join("fake-nvml/scenarios/h100-pair.yaml");
    let config = format!("gpu: {{library: {}}}\nengines: {{discover: false}}\n", library.display());
    let scenario = scenario.display().to_string();
    let daemon = Daemon::start_with(tools, scratch, &config, &[("FAKE_NVML_SCENARIO", &scenario)]).map_err(not_ok)?;
    daemon.wait_for("plumbline_gpu_info", |one| (one - 1.0).abs() < 0.1).map_err(not_ok)?;
    let page = daemon.metrics().map_err(not_ok)?;
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("plumbline_gpu_")).collect();
    ensure(rows.len() > 10, || format!("{} rows", rows.len()))?;
    let unlabelled = rows.iter().find(|row| !row.contains(r#"simulated="true""#));
    ensure(unlabelled.is_none(), || format!("{unlabelled:?}"))
}

fn an_absent_gpu_has_a_reason(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let config = "gpu: {library: /nonexistent/libnvidia-ml.so.1}\nengines: {discover: false}\n";
    let daemon = Daemon::start(tools, scratch, config).map_err(not_ok)?;
    daemon.wait_for(r#"plumbline_source_up{source="gpu"}"#, |up| up < 0.5).map_err(not_ok)?;
    let status: Value = serde_json::from_str(&daemon.get("/api/v1/status").map_err(not_ok)?).map_err(not_ok)?;
    let absent = status["absent"].to_string();
    ensure(absent.contains("gpu") && absent.contains("libnvidia-ml.so.1"), || absent.clone())?;
    let page = daemon.metrics().map_err(not_ok)?;
    ensure(!page.contains("plumbline_gpu_utilization"), || "an absent GPU has a utilization".to_owned())
}

fn no_privileges(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    if run(Command::new("setpriv").arg("--version")).is_err() {
        return Err(skipped("the program `setpriv` is missing"));
    }
    // The unprivileged user must be able to reach binary and state.
    let bin = scratch.join("plumbline");
    fs::create_dir_all(scratch).and_then(|()| fs::copy(&tools.plumbline, &bin)).map_err(not_ok)?;
    let open_up = format!("chmod -R a+rX {0} && chmod a+rwx {0}", scratch.display());
    run(Command::new("sh").args(["-c", &open_up])).map_err(not_ok)?;
    let unprivileged = |arguments: &[&str]| {
        run(Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
            .arg(&bin)
            .args(arguments))
    };
    let doctor = unprivileged(&["doctor"]).map_err(not_ok)?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure(said.contains("absent: none of those that loading programs takes"), || said.clone())?;
    let config = scratch.join("nothing.yaml");
    let nothing = format!("state_dir: {}/state\nlisten: null\n{QUIET}", scratch.display());
    fs::write(&config, nothing).map_err(not_ok)?;
    let config = config.display().to_string();
    let useless = unprivileged(&["run", "--config", &config]).map_err(not_ok)?;
    let said = String::from_utf8_lossy(&useless.stderr).into_owned();
    ensure(!useless.status.success() && said.contains("nothing useful is left"), || said.clone())
}

fn otlp_reaches_a_receiver(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let receiver = Receiver::start(tools, scratch, 2).map_err(|error| match error {
        NoReceiver::Missing(why) => skipped(&why),
        NoReceiver::Broken(why) => not_ok(why),
    })?;
    let engine = FakeEngine::start().map_err(not_ok)?;
    let otlp = format!("otlp: {{endpoint: \"http://127.0.0.1:{}\", interval_seconds: 1}}\n", receiver.port);
    let config = priced(&engine) + "audit: {checkpoint_seconds: 1}\n" + &otlp;
    let spine = Spine::start_with(tools, scratch, &config)?;
    let path = spine.models.join("shipped.gguf");
    fs::write(&path, b"weights").map_err(not_ok)?;
    fs::read(&path).map_err(not_ok)?;
    spine.open_of(&path).map_err(not_ok)?;

    let arrived = receiver
        .wait_for("the open", |said| said["body"].as_str().is_some_and(|body| body.contains("shipped.gguf")))
        .map_err(not_ok)?;
    equal("event", &arrived["event_name"], "plumbline.file_open")?;
    equal("severity", &arrived["severity_text"], "High")?;
    equal("class", &arrived["attributes"]["ocsf.class_uid"], 1001)?;
    equal("who", &arrived["resource"]["service.name"], "plumbline")?;
    let tokens =
        receiver.wait_for("the tokens", |said| said["name"] == "plumbline.engine.generation_tokens").map_err(not_ok)?;
    equal("unit", &tokens["unit"], "{token}")?;
    equal("kind", &tokens["kind"], "sum")?;
    equal("monotonic", &tokens["monotonic"], true)?;
    equal("cumulative", &tokens["cumulative"], true)?;
    equal("engine", &tokens["points"][0]["attributes"]["engine"], "fake")?;
    let memory = receiver.wait_for("the memory", |said| said["name"] == "plumbline.memory.resident").map_err(not_ok)?;
    equal("unit", &memory["unit"], "By")?;

    let errors = r#"plumbline_export_errors_total{exporter="otlp-logs"}"#;
    spine.daemon.wait_for(errors, |errors| (errors - 2.0).abs() < 0.5).map_err(not_ok)?;
    let lag = r#"plumbline_export_lag_records{exporter="otlp-logs"}"#;
    spine.daemon.wait_for(lag, |lag| lag < 0.5).map_err(not_ok)?;
    let refused = receiver.said().iter().filter(|said| said["signal"] == "refused").count();
    equal("refused requests of both signals", &refused.into(), 4)?;
    // A receiver that refused took nothing, so nothing may have come twice.
    let numbers: Vec<u64> = receiver.logs().iter().filter_map(sequence_number).collect();
    ensure(numbers.iter().copied().eq(0..numbers.len() as u64), || format!("arrived: {numbers:?}"))?;

    // The end of the first run is shipped by the second, which goes on at the cursor.
    let log = spine.daemon.log_dir();
    spine.daemon.stop().map_err(not_ok)?;
    let spine = Spine::start_with(tools, scratch, &config)?;
    receiver.wait_for("the stop", |said| said["event_name"] == "plumbline.stop").map_err(not_ok)?;
    spine.daemon.stop().map_err(not_ok)?;
    let cat = run(Command::new(&tools.plumbline).args(["audit", "cat"]).arg(&log)).map_err(not_ok)?;
    let kept: Vec<&str> = std::str::from_utf8(&cat.stdout).map_err(not_ok)?.lines().collect();
    let arrived = receiver.logs();
    for record in &arrived {
        let number = sequence_number(record).and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX);
        let exact = kept.get(number).is_some_and(|&kept| record["body"] == kept);
        ensure(exact, || format!("record {number} did not arrive as it is kept: {record}"))?;
    }
    let last = arrived.iter().filter_map(sequence_number).max().unwrap_or_default();
    let missing: Vec<u64> =
        (0..=last).filter(|&number| !arrived.iter().any(|record| sequence_number(record) == Some(number))).collect();
    ensure(missing.is_empty(), || format!("lost: {missing:?} of {last}"))
}

fn sequence_number(record: &Value) -> Option<u64> {
    record["attributes"]["audit.sequence.number"].as_u64()
}
