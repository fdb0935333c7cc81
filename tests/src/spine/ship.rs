//! What leaves the node: lines, webhooks, checkpoints; with receivers that are down, answer half, or twice.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{QUIET, Spine, ensure, equal, not_ok, skipped};
use crate::{
    checks::Ended,
    daemon::{Tools, run, run_with},
};

const SECRET: [u8; 32] = [7; 32];

/// What a receiver of webhooks got.
#[derive(Debug, Clone)]
struct Delivery {
    id: String,
    timestamp: String,
    signature: String,
    body: Vec<u8>,
}

/// Answers one connection after the other with these bytes, and from then on as it should.
fn receive(listener: TcpListener, answers: Vec<&'static [u8]>) -> Arc<Mutex<Vec<Delivery>>> {
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&got);
    std::thread::spawn(move || {
        let ok: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let mut answers = answers.into_iter();
        while let Ok((stream, _)) = listener.accept() {
            let mut stream = BufReader::new(stream);
            let (mut line, mut len) = (String::new(), 0);
            let mut delivery =
                Delivery { id: String::new(), timestamp: String::new(), signature: String::new(), body: Vec::new() };
            while stream.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                if let Some((name, value)) = line.trim_end().split_once(": ") {
                    match name {
                        "content-length" => len = value.parse().unwrap_or(0),
                        "webhook-id" => value.clone_into(&mut delivery.id),
                        "webhook-timestamp" => value.clone_into(&mut delivery.timestamp),
                        "webhook-signature" => value.clone_into(&mut delivery.signature),
                        _ => {}
                    }
                }
                line.clear();
            }
            delivery.body.resize(len, 0);
            if stream.read_exact(&mut delivery.body).is_ok() {
                seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(delivery);
            }
            let _ = stream.get_mut().write_all(answers.next().unwrap_or(ok));
        }
    });
    got
}

pub(super) fn receivers_that_misbehave_get_every_alert(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let secret = scratch.join("secret");
    fs::write(&secret, format!("whsec_{}\n", STANDARD.encode(SECRET))).map_err(not_ok)?;
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(not_ok)?;
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(not_ok)?;
    let lines = scratch.join("audit.jsonl");
    let config = format!(
        "{QUIET}audit: {{checkpoint_seconds: 1}}\njsonl: {{path: {}}}\nwebhook: {{url: \"http://{address}/hook\", secret_file: {}}}\n",
        lines.display(),
        secret.display()
    );
    let spine = Spine::start_with(tools, scratch, &config)?;
    let open = |name: &str| {
        let path = spine.models.join(name);
        fs::write(&path, b"weights").and_then(|()| fs::read(&path)).map_err(not_ok)?;
        spine.open_of(&path).map_err(not_ok)
    };
    open("while-down.gguf")?;
    let lag = r#"plumbline_export_lag_records{exporter="webhook"}"#;
    spine.daemon.wait_for(lag, |lag| lag > 0.0).map_err(not_ok)?;
    let errors = r#"plumbline_export_errors_total{exporter="webhook"}"#;
    spine.daemon.wait_for(errors, |errors| errors >= 1.0).map_err(not_ok)?;
    // It comes up: answers half a status line, then twice in one breath, then half a body, then as it should.
    let listener = TcpListener::bind(address).map_err(not_ok)?;
    let got = receive(
        listener,
        vec![
            b"HTTP/1.1 2",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nha",
        ],
    );
    spine.daemon.wait_for(lag, |lag| lag < 0.5).map_err(not_ok)?;
    for name in ["second.gguf", "third.gguf", "fourth.gguf"] {
        open(name)?;
        spine.daemon.wait_for("plumbline_log_checkpoint_records", |_| true).map_err(not_ok)?;
        std::thread::sleep(Duration::from_millis(1200));
    }
    let log = spine.daemon.log_dir();
    spine.daemon.wait_for(lag, |lag| lag < 0.5).map_err(not_ok)?;
    let all = spine.daemon.records().map_err(not_ok)?;
    spine.daemon.stop().map_err(not_ok)?;

    let deliveries = got.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mut seen: Vec<u64> = Vec::new();
    for delivery in &deliveries {
        let record: Value = serde_json::from_slice(&delivery.body).map_err(not_ok)?;
        equal("the delivery's name", &record["metadata"]["uid"], delivery.id.as_str())?;
        seen.extend(record["metadata"]["sequence"].as_u64());
    }
    let wanted = all.iter().filter(|record| record["is_alert"] == true);
    let wanted: Vec<u64> = wanted.filter_map(|record| record["metadata"]["sequence"].as_u64()).collect();
    ensure(wanted.len() >= 4 && wanted.iter().all(|seq| seen.contains(seq)), || format!("{wanted:?} in {seen:?}"))?;
    // What was sent twice has one name, so that it can be dropped.
    let first = deliveries.first().ok_or_else(|| not_ok("nothing came"))?;
    let again = deliveries.iter().filter(|delivery| delivery.id == first.id).count();
    ensure(again >= 2, || "a half answered delivery did not come again".to_owned())?;
    check_signature(tools, first)?;

    // Every record is a line, byte for byte, once.
    let cat = run(Command::new(&tools.plumbline).args(["audit", "cat"]).arg(log)).map_err(not_ok)?;
    let written = fs::read(&lines).map_err(not_ok)?;
    ensure(written == cat.stdout, || {
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        format!("{} lines are not the {} records", lines(&written), lines(&cat.stdout))
    })
}

/// The signature, by a program that is not ours.
fn check_signature(tools: &Tools, delivery: &Delivery) -> Result<(), Ended> {
    let Some(python) = &tools.python else { return Err(skipped("no Python (PLUMBLINE_PYTHON)")) };
    let script = "import base64,hashlib,hmac,sys\nbody=sys.stdin.buffer.read()\nsigned=f'{sys.argv[1]}.{sys.argv[2]}.'.encode()+body\n\
                  print('v1,'+base64.b64encode(hmac.new(bytes([7]*32),signed,hashlib.sha256).digest()).decode())";
    let said = run_with(Command::new(python).args(["-c", script, &delivery.id, &delivery.timestamp]), &delivery.body)
        .map_err(not_ok)?;
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    ensure(said == delivery.signature, || format!("{said} is not {}", delivery.signature))
}

/// A witness as a process of its own.
struct Witness {
    child: Child,
}

impl Witness {
    fn start(tools: &Tools, scratch: &Path, log: &Path, address: SocketAddr) -> Result<Self, Ended> {
        let mut child = Command::new(&tools.plumbline)
            .args(["witness", "--listen", &address.to_string(), "--key"])
            .arg(scratch.join("witness.key"))
            .arg("--log")
            .arg(log)
            .arg("--state-dir")
            .arg(scratch.join("witness-state"))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(not_ok)?;
        let mut said = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut said).map_err(not_ok)?;
        }
        ensure(said.contains("listens on"), || said.clone())?;
        Ok(Self { child })
    }

    /// The checkpoint that it keeps.
    fn kept(scratch: &Path) -> Result<PathBuf, Ended> {
        let entries = fs::read_dir(scratch.join("witness-state")).map_err(not_ok)?;
        let path = entries.filter_map(|entry| Some(entry.ok()?.path())).find(|path| path.extension().is_some());
        path.ok_or_else(|| not_ok("the witness keeps nothing"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn a_witness_shows_a_rollback(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let key = scratch.join("witness.key");
    let made = run(Command::new(&tools.plumbline)
        .args(["audit", "keygen", "--witness", "--name", "witness.example/w1", "--out"])
        .arg(&key))
    .map_err(not_ok)?;
    let witness_vkey = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(not_ok)?;
    let anchors = scratch.join("checkpoints.jsonl");
    let config = format!(
        "{QUIET}audit:\n  checkpoint_seconds: 1\n  checkpoint_file: {}\n  witnesses: [{{url: \"http://{address}\", vkey: \"{witness_vkey}\"}}]\n",
        anchors.display()
    );
    let spine = Spine::start_with(tools, scratch, &config)?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    let witness = Witness::start(tools, scratch, &vkey, address)?;
    let path = spine.models.join("w.gguf");
    fs::write(&path, b"weights").and_then(|()| fs::read(&path)).map_err(not_ok)?;
    spine.open_of(&path).map_err(not_ok)?;
    // The witness was down at first: it is asked again.
    let signed = r#"plumbline_exported_total{exporter="witness:witness.example/w1"}"#;
    spine.daemon.wait_for(signed, |count| count >= 1.0).map_err(not_ok)?;
    let lag = r#"plumbline_export_lag_records{exporter="witness:witness.example/w1"}"#;
    spine.daemon.wait_for(lag, |lag| lag < 0.5).map_err(not_ok)?;
    let older = scratch.join("older");
    copy_log(&log, &older)?;
    fs::read(&path).map_err(not_ok)?;
    let before = fs::read(Witness::kept(scratch)?).map_err(not_ok)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read(Witness::kept(scratch)?).map_err(not_ok)? == before {
        ensure(Instant::now() < deadline, || "the witness signed nothing more".to_owned())?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let state = spine.daemon.state.clone();
    spine.daemon.stop().map_err(not_ok)?;
    drop(witness);

    // The node keeps the same note, with both signatures; it verifies the log of today and not the one of before.
    let kept = Witness::kept(scratch)?;
    let own = fs::read_dir(state.join("witness")).map_err(not_ok)?.filter_map(Result::ok).map(|entry| entry.path());
    let own = own.last().ok_or_else(|| not_ok("the node keeps no cosigned checkpoint"))?;
    ensure(fs::read_to_string(own).map_err(not_ok)?.contains("— witness.example/w1 "), || {
        "no cosignature".to_owned()
    })?;
    let verify = |log: &Path| {
        let output = run(Command::new(&tools.plumbline)
            .args(["audit", "verify"])
            .arg(log)
            .arg("--key")
            .arg(&vkey)
            .arg("--expect-at-least")
            .arg(&kept))
        .map_err(not_ok)?;
        Ok::<_, Ended>((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (code, said) = verify(&log)?;
    ensure(code == Some(0), || said.clone())?;
    let (code, said) = verify(&older)?;
    ensure(code == Some(1) && said.contains("cut or rolled back"), || said.clone())?;
    // And each published checkpoint is a line of the file.
    let lines = fs::read_to_string(&anchors).map_err(not_ok)?;
    let last: Value = serde_json::from_str(lines.lines().last().unwrap_or_default()).map_err(not_ok)?;
    equal("last checkpoint", &last["checkpoint"], fs::read_to_string(log.join("checkpoint")).map_err(not_ok)?)
}

fn copy_log(from: &Path, to: &Path) -> Result<(), Ended> {
    fs::create_dir_all(to).map_err(not_ok)?;
    // The checkpoint first: what is copied later can only be more.
    fs::copy(from.join("checkpoint"), to.join("checkpoint")).map_err(not_ok)?;
    for entry in fs::read_dir(from).map_err(not_ok)? {
        let path = entry.map_err(not_ok)?.path();
        if path.extension().is_some_and(|extension| extension == "plog") {
            fs::copy(&path, to.join(path.file_name().unwrap_or_default())).map_err(not_ok)?;
        }
    }
    Ok(())
}
