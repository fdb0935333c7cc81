//! What goes wrong is told in words and disturbs nobody else.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{QUIET, Spine, ensure, equal, not_ok, priced, skipped, verdict};
use crate::{
    checks::Ended,
    daemon::{Tools, records, run},
    fake_engine::FakeEngine,
};

pub(super) fn a_killed_daemon_recovers(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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
    let told: Vec<Value> = records(tools, &log)
        .map_err(not_ok)?
        .iter()
        .map(|record| record["unmapped"]["plumbline"]["kind"].clone())
        .filter(|kind| ["epoch", "recovered", "gap"].iter().any(|told| *kind == **told))
        .collect();
    equal("what is told", &Value::from(told), vec!["epoch", "recovered", "epoch", "gap"])?;
    verdict(tools, &log, &vkey, 2, "declared")
}

pub(super) fn a_full_disk_is_declared(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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

pub(super) fn a_policy_mistake_is_shown(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let file = scratch.join("policies/weights.yaml");
    let good = fs::read_to_string(&file).map_err(not_ok)?;
    fs::write(&file, good.replace("severity: high", "severty: high")).map_err(not_ok)?;
    spine.daemon.signal(Signal::HUP).map_err(not_ok)?;
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

pub(super) fn a_dead_engine_is_absent(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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

pub(super) fn no_privileges(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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

/// A mount namespace in which `/sys/kernel/btf` is empty stands for a kernel built without it.
pub(super) fn no_btf(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let without_btf = |arguments: &str| {
        let script = format!("mount -t tmpfs none /sys/kernel/btf && exec {} {arguments}", tools.plumbline.display());
        run(Command::new("unshare").args(["--mount", "sh", "-c", &script])).map_err(not_ok)
    };
    let doctor = without_btf("doctor")?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure(said.contains("type info (BTF)   absent: /sys/kernel/btf/vmlinux"), || said.clone())?;
    ensure(said.contains("absent: the kernel's type information is not readable"), || said.clone())?;
    let config = scratch.join("nothing.yaml");
    let nothing = format!("state_dir: {}/state\nlisten: null\n{QUIET}", scratch.display());
    fs::write(&config, nothing).map_err(not_ok)?;
    let useless = without_btf(&format!("run --config {}", config.display()))?;
    let said = String::from_utf8_lossy(&useless.stderr).into_owned();
    ensure(!useless.status.success() && said.contains("nothing useful is left"), || said.clone())?;
    // With an engine to read, there is something left: it runs until it is told to stop.
    let engine = FakeEngine::start().map_err(not_ok)?;
    let useful = format!("state_dir: {}/state\nlisten: null\n{}", scratch.display(), priced(&engine));
    fs::write(&config, useful).map_err(not_ok)?;
    let script = format!(
        "mount -t tmpfs none /sys/kernel/btf && exec timeout --signal=TERM 3 {} run --config {}",
        tools.plumbline.display(),
        config.display()
    );
    let useful = run(Command::new("unshare").args(["--mount", "sh", "-c", &script])).map_err(not_ok)?;
    let said = String::from_utf8_lossy(&useful.stderr).into_owned();
    ensure(said.contains("engine answers") && said.contains("stopping"), || said.clone())
}

/// Processes that are enough to fill the ring of their lives, 1 MiB, several times over.
const FLOOD: usize = 4000;

pub(super) fn lost_lives_are_read_anew(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(python) = &tools.python else { return Err(skipped("no Python (PLUMBLINE_PYTHON)")) };
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join("h.gguf");
    fs::write(&path, b"weights").map_err(not_ok)?;
    let program = format!("import sys; sys.stdin.readline(); open({:?}).read(); sys.stdin.readline()", path.display());
    // Known as a shell, until it becomes something else while nobody looks.
    let mut child = Command::new("sh")
        .args(["-c", "read go; exec \"$0\" -c \"$1\""])
        .arg(python)
        .arg(program)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(not_ok)?;
    let pid = child.id();
    let outcome = (|| {
        let mut say = child.stdin.take().ok_or_else(|| not_ok("no pipe to the shell"))?;
        let first = spine.models.join("first.gguf");
        fs::write(&first, b"weights").and_then(|()| fs::read(&first)).map_err(not_ok)?;
        // What came before it in time is known with it: the shell is.
        spine.open_of(&first).map_err(not_ok)?;

        spine.daemon.signal(Signal::STOP).map_err(not_ok)?;
        let flooded = (0..FLOOD).try_for_each(|_| Command::new("true").status().map(drop)).map_err(not_ok);
        let became = say.write_all(b"go\n").map_err(not_ok);
        std::thread::sleep(Duration::from_millis(500));
        spine.daemon.signal(Signal::CONT).map_err(not_ok)?;
        flooded.and(became)?;
        let lost = "plumbline_lost_total{place=\"ring\",what=\"exec\"}";
        spine.daemon.wait_for(lost, |count| count > 0.0).map_err(not_ok)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !spine.daemon.said(scratch).contains("read anew") {
            ensure(Instant::now() < deadline, || "the table of processes is not read anew".to_owned())?;
            std::thread::sleep(Duration::from_millis(100));
        }
        say.write_all(b"\n").map_err(not_ok)?;
        let is_it = |record: &Value| {
            record["actor"]["process"]["pid"] == pid && record["file"]["path"] == path.display().to_string()
        };
        let record = spine.daemon.wait_for_record("its open", is_it).map_err(not_ok)?;
        let shown = record["actor"]["process"]["file"]["path"].as_str().unwrap_or_default().to_owned();
        ensure(shown.contains("python"), || format!("it runs {shown:?}"))
    })();
    let _ = child.kill();
    let _ = child.wait();
    outcome
}
