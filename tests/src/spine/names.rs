//! Names of addresses, from a real resolver's question to the record of the connection.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::{QUIET, Spine, ensure, equal, not_ok, skipped};
use crate::{
    bypass::names::NameServer,
    checks::Ended,
    daemon::{Tools, run},
};

/// Every connection is recorded, and those to loopback that are not known by an allowed name alert.
const POLICY: &str = "\
apiVersion: plumbline/v1
kind: Policy
metadata: {name: names}
spec:
  rules:
    - name: all
      severity: informational
      effect: audit
      message: connected
      match: {connect: {notTo: [192.0.2.1]}}
    - name: unknown
      severity: high
      effect: alert
      message: \"{comm} connected to {address}, resolved as {names}\"
      match: {connect: {notTo: [10.0.0.0/8, {matchPattern: \"kno*.test\"}]}}
";

/// Resolves by the C library, as `/etc/resolv.conf` says, and connects to where nobody listens.
const RESOLVE: &str = "\
import socket, sys
to = socket.getaddrinfo(sys.argv[1], 9, socket.AF_INET, socket.SOCK_STREAM)[0][4]
socket.socket().connect_ex(to)
";

/// Asks a server that nothing names, and connects to what it says.
const ASK_A_STRANGER: &str = "\
import socket
asked = bytes([9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3]) + b'bad' + bytes([4]) + b'test' + bytes([0, 0, 1, 0, 1])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(asked, ('127.0.0.77', 53))
    told = sock.recvfrom(512)[0]
socket.socket().connect_ex(('.'.join(map(str, told[-4:])), 9))
";

pub(super) fn connections_say_their_names(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    NameServer::get().map_err(|why| skipped(&why))?;
    let python = tools.python.clone().unwrap_or_else(|| "python3".into());
    let policies = scratch.join("policies");
    fs::create_dir_all(&policies).map_err(not_ok)?;
    fs::write(policies.join("names.yaml"), POLICY).map_err(not_ok)?;
    let spine = Spine::start_with(tools, scratch, QUIET)?;
    let resolv_conf = scratch.join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.77\n").map_err(not_ok)?;

    let connection = |address: &str, then: &dyn Fn()| -> Result<Value, Ended> {
        then();
        let record = spine.daemon.wait_for_record(&format!("a connection to {address}"), |record| {
            record["class_uid"] == 4001 && record["activity_id"] == 1 && record["dst_endpoint"]["ip"] == address
        });
        record.map_err(not_ok)
    };
    // Whom a process may believe is asked of itself, or of its parent where it is gone already: here that is the shell.
    let resolve = |name: &str| {
        let script =
            "mount --make-rprivate / && mount --bind \"$1\" /etc/resolv.conf && \"$2\" -c \"$3\" \"$4\"; sleep 0.3";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&resolv_conf).arg(&python).args([RESOLVE, name]);
        run(&mut command)
    };
    let dns = |record: &Value| record["unmapped"]["plumbline"]["dns"].clone();

    let allowed = connection("127.0.0.105", &|| drop(resolve("known.test")))?;
    equal("state", &dns(&allowed)["state"], "matched")?;
    equal("name", &dns(&allowed)["names"][0]["name"], "known.test")?;
    equal("server", &dns(&allowed)["names"][0]["server"], "127.0.0.77")?;
    equal("hostname", &allowed["dst_endpoint"]["hostname"], "known.test")?;
    let message = allowed["message"].as_str().unwrap_or_default();
    ensure(message == "connected", || format!("message: {message}"))?;
    ensure(allowed["is_alert"] != true, || format!("an alert: {allowed}"))?;

    let stranger = connection("127.0.0.108", &|| drop(resolve("stranger.test")))?;
    equal("alert", &stranger["is_alert"], true)?;
    let message = stranger["message"].as_str().unwrap_or_default();
    ensure(message.ends_with("resolved as stranger.test"), || format!("message: {message}"))?;

    let untrusted = connection("127.0.0.103", &|| drop(run(Command::new(&python).args(["-c", ASK_A_STRANGER]))))?;
    equal("state", &dns(&untrusted)["state"], "untrusted")?;
    equal("doubt", &dns(&untrusted)["names"][0]["doubt"], "not_configured")?;
    ensure(untrusted["dst_endpoint"].get("hostname").is_none(), || format!("{untrusted}"))?;
    equal("alert", &untrusted["is_alert"], true)?;

    let connect = "import socket; socket.socket().connect_ex(('127.0.0.99', 9))";
    let bare = connection("127.0.0.99", &|| drop(run(Command::new(&python).args(["-c", connect]))))?;
    equal("state", &dns(&bare)["state"], "none")?;
    let answers = "plumbline_dns_messages_total{outcome=\"answer\"}";
    spine.daemon.wait_for(answers, |count| count >= 2.0).map(drop).map_err(not_ok)
}
