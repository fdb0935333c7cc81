//! The commands of a reviewer, on a log that is being written meanwhile.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::{QUIET, Spine, ensure, equal, not_ok, verdict};
use crate::{
    checks::Ended,
    daemon::{Tools, run},
};

/// Runs `plumbline audit …`, expects the exit code, and gives what was said.
fn audit(tools: &Tools, code: i32, arguments: &[&str]) -> Result<String, Ended> {
    let output = run(Command::new(&tools.plumbline).arg("audit").args(arguments)).map_err(not_ok)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure(output.status.code() == Some(code), || {
        format!("{arguments:?}: exit {:?}: {said}{}", output.status.code(), String::from_utf8_lossy(&output.stderr))
    })?;
    Ok(said)
}

pub(super) fn every_command_works_while_the_daemon_writes(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let config = format!("{QUIET}audit: {{checkpoint_seconds: 1, epoch_seconds: 2, segment_bytes: 30000}}\n");
    let spine = Spine::start_with(tools, scratch, &config)?;
    let path = spine.models.join("r.gguf");
    fs::write(&path, b"weights").map_err(not_ok)?;
    for _ in 0..30 {
        fs::read(&path).map_err(not_ok)?;
    }
    let record = spine.open_of(&path).map_err(not_ok)?;
    let seq = record["metadata"]["sequence"].as_u64().unwrap_or_default();
    spine.daemon.wait_for("plumbline_log_epoch", |epoch| epoch >= 1.0).map_err(not_ok)?;
    #[expect(clippy::cast_precision_loss, reason = "a few records")]
    let signed = |size: f64| size > seq as f64;
    spine.daemon.wait_for("plumbline_log_checkpoint_records", signed).map_err(not_ok)?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    let (log_text, vkey_text) = (log.display().to_string(), vkey.display().to_string());
    let at = |name: &str| scratch.join(name).display().to_string();
    let seq_text = seq.to_string();

    let said = audit(tools, 0, &["verify", &log_text, "--key", &vkey_text, "--format", "json"])?;
    let report: Value = serde_json::from_str(&said).map_err(not_ok)?;
    equal("verdict", &report["verdict"], "intact")?;
    audit(tools, 4, &["verify", "/nonexistent", "--key", &vkey_text])?;

    // One record's proof, checked without the log.
    audit(tools, 0, &["prove", &log_text, "--seq", &seq_text, "--out", &at("proof")])?;
    fs::write(at("record"), audit(tools, 0, &["cat", &log_text, "--seq", &seq_text])?).map_err(not_ok)?;
    let check = |code, record: &str| {
        audit(tools, code, &["prove", "--check", &at("proof"), "--record", record, "--key", &vkey_text])
    };
    let said = check(0, &at("record"))?;
    ensure(said.starts_with("proved"), || said.clone())?;
    let bytes = fs::read_to_string(at("record")).map_err(not_ok)?;
    fs::write(at("changed"), bytes.replace("r.gguf", "s.gguf")).map_err(not_ok)?;
    check(1, &at("changed"))?;

    // A checkpoint kept elsewhere, then and now.
    fs::copy(log.join("checkpoint"), at("kept")).map_err(not_ok)?;
    fs::read(&path).map_err(not_ok)?;
    let said = audit(tools, 0, &["consistency", &at("kept"), &log_text, "--key", &vkey_text])?;
    ensure(said.starts_with("consistent"), || said.clone())?;

    let said = audit(tools, 0, &["query", &log_text, "--kind", "file_open", "--path", "/r.gguf", "--last", "1h"])?;
    ensure(said.lines().count() >= 31 && said.contains("ALERT file_open"), || said.clone())?;
    let said = audit(tools, 0, &["query", &log_text, "--kind", "file_open", "--to", "2001-01-01"])?;
    ensure(said.is_empty(), || said.clone())?;
    audit(tools, 4, &["query", &log_text, "--last", "yesterday"])?;
    let said = audit(tools, 0, &["tail", &log_text, "-n", "3"])?;
    ensure(said.lines().count() == 3, || said.clone())?;
    let said = audit(tools, 0, &["stat", &log_text, "--format", "json"])?;
    let stat: Value = serde_json::from_str(&said).map_err(not_ok)?;
    ensure(stat["records"].as_u64() > Some(seq), || said.clone())?;
    let said = audit(tools, 0, &["report", &log_text, "--key", &vkey_text, "--last", "1h"])?;
    ensure(said.contains("| weights | ") && said.contains("| file_open | attached"), || said.clone())?;
    let said = audit(tools, 0, &["report", &log_text, "--format", "html"])?;
    ensure(said.starts_with("<!doctype html>") && !said.contains("<script"), || said.clone())?;

    // The bundle stands on its own, and so do its own instructions.
    audit(tools, 0, &["export", &log_text, "--evidence", "--out", &at("evidence"), "--key", &vkey_text])?;
    audit(tools, 4, &["export", &log_text, "--evidence", "--out", &at("evidence"), "--key", &vkey_text])?;
    let sums = run(Command::new("sha256sum").args(["--quiet", "-c", "SHA256SUMS"]).current_dir(at("evidence")));
    ensure(sums.map_err(not_ok)?.status.success(), || "SHA256SUMS do not fit".to_owned())?;
    let evidence = scratch.join("evidence");
    verdict(tools, &evidence.join("log"), &evidence.join("node.vkey"), 0, "intact")?;
    audit(tools, 0, &["verify", &at("evidence/log"), "--key", &vkey_text, "--at-rest"])?;
    let tiles = fs::read(evidence.join("tiles/checkpoint")).map_err(not_ok)?;
    ensure(tiles == fs::read(evidence.join("log/checkpoint")).map_err(not_ok)?, || "another checkpoint".to_owned())?;

    // Keys.
    let made = audit(tools, 0, &["keygen", "--name", "log.example/a", "--out", &at("new.key")])?;
    ensure(made.starts_with("log.example/a+"), || made.clone())?;
    audit(tools, 4, &["keygen", "--name", "log.example/a", "--out", &at("new.key")])?;
    audit(tools, 3, &["verify", &log_text, "--key", made.trim()])?;
    let enrolled = audit(tools, 0, &["enroll", "--config", &at("config.yaml"), "--format", "json"])?;
    let enrolled: Value = serde_json::from_str(&enrolled).map_err(not_ok)?;
    equal("vkey", &enrolled["vkey"], fs::read_to_string(&vkey).map_err(not_ok)?.trim())
}
