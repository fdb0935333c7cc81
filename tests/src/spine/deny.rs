//! What policies deny on this node, through the daemon: in a cgroup of its own, and of this node's loopback only.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{Spine, ensure, equal, not_ok, skipped};
use crate::{
    checks::{
        Ended,
        deny::{Cell, tries},
    },
    daemon::Tools,
};

/// The daemon that these checks ask for: nothing else, and a policy of this text.
struct Site {
    spine: Spine,
    policy: PathBuf,
    generation: f64,
    attempt: PathBuf,
}

impl Site {
    fn start(tools: &Tools, scratch: &Path, policy: &str) -> Result<Self, Ended> {
        let attempt = tools.beside("vm-init").ok_or_else(|| skipped("the program that makes attempts is not built"))?;
        let directory = scratch.join("policies");
        fs::create_dir_all(&directory).map_err(not_ok)?;
        let file = directory.join("cell.yaml");
        fs::write(&file, policy).map_err(not_ok)?;
        let spine = Spine::start_with(tools, scratch, &format!("{}probes: {{records_per_second: 0}}\n", super::QUIET))?;
        Ok(Self { spine, policy: file, generation: 1.0, attempt })
    }

    /// Puts another text in the policy's place.
    fn change(&mut self, policy: &str) -> Result<(), Ended> {
        fs::write(&self.policy, policy).map_err(not_ok)?;
        self.reload()
    }

    fn reload(&mut self) -> Result<(), Ended> {
        self.generation += 1.0;
        let wanted = self.generation;
        self.spine.daemon.signal(rustix::process::Signal::HUP).map_err(not_ok)?;
        let found = self.spine.daemon.wait_for("plumbline_policy_generation", |generation| generation >= wanted);
        found.map_err(|error| not_ok(format!("{error}\n{}", self.spine.daemon.said(&self.spine.scratch))))?;
        // What the core was told, the kernel is told right after.
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    }
}

fn policy(mode: &str, cell: &Cell, rule: &str) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: cell}}\nspec:\n  mode: {mode}\n  subject: {{cgroup: /**/{}}}\n  rules:\n    - \
         {{name: out, severity: high, effect: deny, message: '{{comm}} of {{cgroup}}', {rule}}}\n",
        cell.name()
    )
}

fn cell(name: &str) -> Result<Cell, Ended> {
    Cell::make(name).map_err(|why| skipped(&why))
}

pub(super) fn a_denied_connection_fails(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let cell = cell("daemon")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(not_ok)?;
    let to = listener.local_addr().map_err(not_ok)?;
    let rule = format!("match: {{connect: {{to: [127.0.0.0/8], port: {}}}}}", to.port());
    let mut site = Site::start(tools, scratch, &policy("monitor", &cell, &rule))?;
    let attempt = site.attempt.clone();
    let tries = |cell: Option<&Path>| tries(&attempt, cell, "tcp", &to.to_string()).map_err(not_ok);
    let of_port = |record: &Value| record["dst_endpoint"]["port"] == to.port() && record["policy"]["name"] == "cell";
    ensure(tries(Some(&cell.0))?, || "what is monitored was denied".to_owned())?;
    let told = site.spine.daemon.wait_for_record("the monitored connection", of_port).map_err(not_ok)?;
    equal("disposition", &told["disposition_id"], 19)?;

    site.change(&policy("enforce", &cell, &rule))?;
    ensure(!tries(Some(&cell.0))?, || "what is denied went".to_owned())?;
    ensure(tries(None)?, || "a neighbour was denied".to_owned())?;
    let is_denied = |record: &Value| of_port(record) && record["disposition_id"] == 2;
    let told = site.spine.daemon.wait_for_record("the denied connection", is_denied).map_err(not_ok)?;
    equal("action", &told["action_id"], 2)?;
    equal("status", &told["status_id"], 2)?;
    equal("alert", &told["is_alert"], true)?;
    let own = &told["unmapped"]["plumbline"];
    equal(
        "denial",
        &own["denial"],
        serde_json::json!({"outcome": "denied", "rules": [{"policy": "cell", "rule": "out"}]}),
    )?;
    equal("generation", &own["kernel_generation"], 2)?;
    let denied = "plumbline_policy_enforced_total{policy=\"cell\",rule=\"out\",effect=\"deny\",outcome=\"denied\"";
    site.spine.daemon.wait_for(denied, |count| count >= 1.0).map_err(not_ok)?;

    site.change(&policy("monitor", &cell, &rule))?;
    ensure(tries(Some(&cell.0))?, || "what is monitored again was denied".to_owned())
}

/// A process in the cell that tries again and again, and says what became of each attempt.
struct Load(Child);

impl Load {
    fn start(attempt: &Path, cell: &Path, to: SocketAddr) -> Result<Self, Ended> {
        let arguments = [cell.display().to_string(), "udp again and again".to_owned(), to.to_string()];
        let mut child = Command::new(attempt);
        child.arg("attempt").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(child.spawn().map_err(not_ok)?))
    }

    /// `true` for each that went, in order.
    fn stop(mut self) -> Result<Vec<bool>, Ended> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().ok_or_else(|| not_ok("no output"))?.read_to_string(&mut said).map_err(not_ok)?;
        self.0.wait().map_err(not_ok)?;
        ensure(said.bytes().all(|byte| matches!(byte, b'0' | b'1')), || said.clone())?;
        Ok(said.bytes().map(|byte| byte == b'1').collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn switching_under_load(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let cell = cell("load")?;
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(not_ok)?;
    let to = sink.local_addr().map_err(not_ok)?;
    let rule = format!("match: {{connect: {{to: [127.0.0.0/8], port: {}}}}}", to.port());
    let mut site = Site::start(tools, scratch, &policy("monitor", &cell, &rule))?;
    let load = Load::start(&site.attempt, &cell.0, to)?;
    let of_load = |record: &Value| record["dst_endpoint"]["port"] == to.port() && record["policy"]["name"] == "cell";
    site.spine.daemon.wait_for_record("the first attempt", of_load).map_err(not_ok)?;
    // Thrice denied; and while it is, other policies change and directories come and go, which must not be felt.
    const ROUNDS: usize = 3;
    let other = scratch.join("policies/other.yaml");
    for round in 0..ROUNDS {
        site.change(&policy("enforce", &cell, &rule))?;
        for change in 0..4 {
            let watch = scratch.join(format!("directory-{round}-{change}"));
            fs::create_dir_all(&watch).map_err(not_ok)?;
            let text = format!(
                "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: other}}\nspec:\n  rules:\n    - {{name: r, severity: low, effect: \
                 audit, message: m, match: {{file: {{watch: [{}]}}}}}}\n",
                watch.display()
            );
            fs::write(&other, text).map_err(not_ok)?;
            site.reload()?;
        }
        site.change(&policy("monitor", &cell, &rule))?;
    }
    let outcomes = load.stop()?;
    let switches = outcomes.windows(2).filter(|two| two[0] != two[1]).count();
    let (went, denied) =
        (outcomes.iter().filter(|went| **went).count(), outcomes.iter().filter(|went| !**went).count());
    println!("# under load: {went} attempts went, {denied} were denied, in {switches} switches");
    ensure(switches == 2 * ROUNDS && denied > 100 && went > 100, || {
        format!("{switches} switches, {went} went, {denied} denied")
    })?;
    // Each is recorded, as what became of it.
    let count = |records: &[Value], is_denied: bool| {
        records
            .iter()
            .filter(|record| of_load(record))
            .filter(|record| (record["disposition_id"] == 2) == is_denied)
            .count()
    };
    let mut records = Vec::new();
    for _ in 0..100 {
        records = site.spine.daemon.records().map_err(not_ok)?;
        if count(&records, false) + count(&records, true) >= outcomes.len() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let found = (count(&records, false), count(&records, true));
    ensure(found == (went, denied), || {
        format!("{found:?} recorded of {went} that went and {denied} that were denied")
    })?;
    // And no other rule is said to have missed one.
    let missed =
        records.iter().filter(|record| record["unmapped"]["plumbline"]["denial"]["outcome"] == "missed").count();
    ensure(missed == 0, || format!("{missed} missed"))
}

pub(super) fn a_denied_open_fails(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let cell = cell("opens")?;
    let models = scratch.join("models");
    fs::create_dir_all(&models).map_err(not_ok)?;
    let (weights, beside) = (models.join("w.gguf"), scratch.join("beside"));
    fs::write(&weights, "weights").and_then(|()| fs::write(&beside, "no weights")).map_err(not_ok)?;
    let rule = |except: &str| format!("match: {{file: {{watch: [{}]}}}}{except}", models.display());
    let mut site = Site::start(tools, scratch, &policy("monitor", &cell, &rule("")))?;
    let attempt = site.attempt.clone();
    let tries = |cell: Option<&Path>, kind: &str, file: &Path| {
        tries(&attempt, cell, kind, &file.display().to_string()).map_err(not_ok)
    };
    let inside = Some(cell.0.as_path());
    ensure(tries(inside, "open", &weights)?, || "what is monitored was denied".to_owned())?;
    site.change(&policy("enforce", &cell, &rule("")))?;
    for kind in ["open", "link"] {
        ensure(!tries(inside, kind, &weights)?, || format!("what is denied went: {kind}"))?;
    }
    ensure(!tries(inside, "create", &models.join("new.gguf"))?, || "a new file went".to_owned())?;
    ensure(tries(inside, "open", &beside)?, || "a file beside was denied".to_owned())?;
    ensure(tries(None, "open", &weights)?, || "a neighbour was denied".to_owned())?;
    let shown = weights.display().to_string();
    let is_denied = |record: &Value| record["disposition_id"] == 2 && record["file"]["path"] == shown.as_str();
    let told = site.spine.daemon.wait_for_record("the denied open", is_denied).map_err(not_ok)?;
    equal("policy", &told["policy"]["name"], "cell")?;
    equal("outcome", &told["unmapped"]["plumbline"]["denial"]["outcome"], "denied")?;
    let of_cell = told["unmapped"]["plumbline"]["cgroup"].as_str().is_some_and(|path| path.ends_with(&cell.name()));
    ensure(of_cell, || told.to_string())?;
    // An exception of the program that makes the attempts.
    site.change(&policy("enforce", &cell, &rule(&format!(", except: [{{exe: {}}}]", attempt.display()))))?;
    ensure(tries(inside, "open", &weights)?, || "what is excepted was denied".to_owned())?;
    site.change(&policy("monitor", &cell, &rule("")))?;
    ensure(tries(inside, "open", &weights)?, || "what is monitored again was denied".to_owned())
}

/// A mount namespace of one's own is no way to an exception, nor to take another's.
pub(super) fn a_name_of_ones_own_excuses_nobody(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let cell = cell("names")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(not_ok)?;
    let to = listener.local_addr().map_err(not_ok)?;
    let [engine, other, unknown] = ["engine", "other", "unknown"].map(|name| scratch.join(name));
    let rule = format!(
        "match: {{connect: {{to: [127.0.0.0/8], port: {}}}}}, except: [{{exe: {}}}]",
        to.port(),
        engine.display()
    );
    let site = Site::start(tools, scratch, &policy("enforce", &cell, &rule))?;
    for program in [&engine, &other, &unknown] {
        fs::copy(&site.attempt, program).map_err(not_ok)?;
    }
    let directly = |program: &Path| tries(program, Some(&cell.0), "tcp", &to.to_string()).map_err(not_ok);
    // `program`, seen at `at` by itself alone.
    let mounted = |program: &Path, at: &Path| {
        let script = "mount --bind \"$1\" \"$2\" && exec \"$2\" attempt \"$3\" tcp \"$4\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).args([program, at, &cell.0]).arg(to.to_string());
        match command.status().map_err(not_ok)?.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            other => Err(not_ok(format!("neither went nor denied: {other:?}"))),
        }
    };
    // The first start teaches the daemon what it is, and is denied for what is not known yet.
    let settled = |went: &dyn Fn() -> Result<bool, Ended>| {
        went()?;
        std::thread::sleep(Duration::from_millis(500));
        went()
    };
    ensure(settled(&|| directly(&engine))?, || "what is excepted was denied".to_owned())?;
    ensure(!settled(&|| directly(&other))?, || "another program went".to_owned())?;
    for program in [&other, &unknown] {
        ensure(!settled(&|| mounted(program, &engine))?, || "it went by the excepted one's name".to_owned())?;
    }
    // From the host's mount namespace, through that of another process.
    let through = scratch.join("through");
    fs::copy(&site.attempt, &through).map_err(not_ok)?;
    let mut keeper = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount --bind \"$1\" \"$2\" && echo && exec cat", "sh"])
        .args([&through, &engine])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(not_ok)?;
    let is_mounted = keeper.stdout.as_mut().is_some_and(|said| said.read_exact(&mut [0]).is_ok());
    ensure(is_mounted, || "nothing was mounted".to_owned())?;
    let seen_there = PathBuf::from(format!("/proc/{}/root{}", keeper.id(), engine.display()));
    let went = settled(&|| directly(&seen_there));
    drop(keeper.stdin.take());
    keeper.wait().map_err(not_ok)?;
    ensure(!went?, || "it went through another process's mount namespace".to_owned())?;
    // And it is said that the name is nobody's word.
    let is_unproven =
        |record: &Value| record["disposition_id"] == 2 && record["unmapped"]["plumbline"]["exe_name"] == "unproven";
    let told = site.spine.daemon.wait_for_record("the spoofed name", is_unproven).map_err(not_ok)?;
    equal("exe", &told["actor"]["process"]["file"]["path"], engine.display().to_string())?;
    settled(&|| mounted(&engine, &other))?;
    ensure(directly(&engine)?, || "a name that somebody gave it took its exception".to_owned())
}
