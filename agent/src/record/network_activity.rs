//! What leaves the node as OCSF 4001 Network Activity: 1 Open, 2 Close, 4 Fail, 5 Refuse, 6 Traffic.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::{Body, INFORMATIONAL, Keep, actor, names, text};
use crate::{
    event::{Connect, ConnectEnd, ConnectHow, LocalConnect, Outcome, Protocol, SocketOpen},
    identity::{Identity, dns::Resolved, tree::Taken},
};

const CLASS_UID: u64 = 4001;
const OPEN: (u64, &str) = (1, "Open");
const CLOSE: (u64, &str) = (2, "Close");
const FAIL: (u64, &str) = (4, "Fail");
const REFUSE: (u64, &str) = (5, "Refuse");
const TRAFFIC: (u64, &str) = (6, "Traffic");
const OTHER: (u64, &str) = (99, "Socket");
const LOW: u64 = 2;

const DIRECTION_OUTBOUND: u8 = 2;
const DIRECTION_LOCAL: u8 = 4;

pub fn connect(connect: &Connect, who: &str, identity: Option<&Identity>) -> Body {
    let (activity, verb) = match connect.how {
        ConnectHow::Begin => (OPEN, "set out to connect to"),
        ConnectHow::Datagram => (TRAFFIC, "sent a datagram to"),
        ConnectHow::Inherited => (TRAFFIC, "sent over a connection of another process to"),
    };
    let to = SocketAddr::new(connect.address, connect.port);
    let resolved = resolved(identity);
    let message = format!("{who} {verb} {to} ({}){}", name(connect.protocol).0, names::in_words(&resolved));
    let mut body =
        body(activity, message, endpoint(connect.protocol, (connect.address, connect.port), connect.source, &resolved));
    body.own.insert("how".into(), connect.how.as_str().into());
    body.own.insert("dns".into(), names::evidence(&resolved));
    body.own.extend(has_read(identity));
    body
}

pub fn end(end: &ConnectEnd, who: &str, identity: Option<&Identity>) -> Body {
    let activity = match end.outcome {
        Outcome::Closed | Outcome::Broken(_) => CLOSE,
        Outcome::Refused => REFUSE,
        Outcome::TimedOut | Outcome::Failed(_) => FAIL,
    };
    let to = SocketAddr::new(end.address, end.port);
    let outcome = end.outcome.as_str();
    let message = format!(
        "the connection of {who} to {to} ended ({outcome}): {} bytes sent, {} received",
        end.bytes_sent, end.bytes_received
    );
    let resolved = resolved(identity);
    let mut fields = endpoint(end.protocol, (end.address, end.port), end.source, &resolved);
    fields.insert("traffic".into(), json!({ "bytes_out": end.bytes_sent, "bytes_in": end.bytes_received }));
    fields.insert("duration".into(), (end.duration_ns / 1_000_000).into());
    let mut body = body(activity, message, fields);
    body.own.insert("outcome".into(), outcome.into());
    body.own.insert("dns".into(), names::evidence(&resolved));
    body.own.insert("duration_ns".into(), end.duration_ns.into());
    body.own.extend(has_read(identity));
    if let Outcome::Broken(errno) | Outcome::Failed(errno) = end.outcome {
        body.own.insert("errno".into(), errno.into());
    }
    body
}

pub fn socket(socket: SocketOpen, who: &str) -> Body {
    let (family, kind) = (socket.family_name(), socket.kind_name());
    let message =
        format!("{who} asked for a socket whose traffic is not seen: {family}, {kind}, protocol {}", socket.protocol);
    // OCSF wants an endpoint; of the other side nothing is known but the family.
    let fields = Map::from_iter([("dst_endpoint".to_owned(), json!({ "svc_name": family }))]);
    let body = body(OTHER, message, fields);
    let own = Map::from_iter([
        ("family".to_owned(), Value::from(family)),
        ("type".to_owned(), kind.into()),
        ("protocol".to_owned(), socket.protocol.into()),
    ]);
    Body { severity_id: LOW, keep: Keep::Always, own, ..body }
}

/// To a local socket: evidence only of whoever has read weights, whose bytes the server may send on in its own name.
pub fn local(connect: &LocalConnect, who: &str, identity: Option<&Identity>) -> Option<Body> {
    let own = has_read(identity);
    if own.is_empty() {
        return None;
    }
    // An abstract name begins with a NUL, which is shown as `@` everywhere.
    let path = match connect.name.split_first() {
        Some((0, name)) => format!("@{}", text::shown(name)),
        _ => text::shown(connect.name.strip_suffix(&[0]).unwrap_or(&connect.name)),
    };
    let message = format!("{who} has read watched files and connected to the local socket {path}");
    let fields = Map::from_iter([("dst_endpoint".to_owned(), json!({ "svc_name": path }))]);
    let mut body = Body { severity_id: LOW, keep: Keep::Always, own, ..body(OPEN, message, fields) };
    body.own.insert("family".into(), "AF_UNIX".into());
    body.own.insert("server_pid".into(), connect.server_pid.into());
    Some(body)
}

/// Bytes of what was read that one record tells of, beyond the first file: names may be 4 KiB each.
const MAX_READ_BYTES: usize = 8192;

/// The other half of "read weights, then connected": what the tree of processes has read, the latest first, and how much of
/// it is left out.
pub(super) fn has_read(identity: Option<&Identity>) -> Map<String, Value> {
    let mut own = Map::new();
    let Some(has_read) = identity.map(|identity| &identity.has_read).filter(|read| !read.files.is_empty()) else {
        return own;
    };
    let (mut files, mut bytes, mut left_out) = (Vec::new(), 0, has_read.left_out);
    for taken in &has_read.files {
        let half = half(taken);
        bytes += half.to_string().len();
        if files.is_empty() || bytes <= MAX_READ_BYTES {
            files.push(half);
        } else {
            left_out += 1;
        }
    }
    own.insert("has_read".into(), files.into());
    if left_out > 0 {
        own.insert("has_read_left_out".into(), left_out.into());
    }
    own
}

fn half(taken: &Taken) -> Value {
    let reader = &taken.reader;
    json!({
        "path": taken.path.as_deref().map(text::shown),
        "inode": { "dev": taken.key.dev, "ino": taken.key.ino },
        "bytes_read": taken.bytes_read,
        "bytes_faulted": taken.bytes_faulted,
        "first_boot_ns": taken.first_boot_ns,
        "last_boot_ns": taken.last_boot_ns,
        "process": {
            "pid": reader.pid,
            "uid": actor::process_uid(reader.pid, reader.start_boot_ns),
            "name": text::shown(&reader.comm),
            "path": reader.exe.as_deref().map(text::shown),
        },
    })
}

fn name(protocol: Protocol) -> (&'static str, u8) {
    match protocol {
        Protocol::Tcp => ("tcp", 6),
        Protocol::Udp => ("udp", 17),
    }
}

fn resolved(identity: Option<&Identity>) -> Resolved {
    identity.map(|identity| identity.dns.clone()).unwrap_or_default()
}

fn endpoint(
    protocol: Protocol,
    (address, port): (IpAddr, u16),
    source: Option<IpAddr>,
    resolved: &Resolved,
) -> Map<String, Value> {
    let (protocol, number) = name(protocol);
    let direction = if address.is_loopback() { DIRECTION_LOCAL } else { DIRECTION_OUTBOUND };
    let connection = json!({
        "direction_id": direction,
        "protocol_name": protocol,
        "protocol_num": number,
        "protocol_ver_id": if address.is_ipv4() { 4 } else { 6 },
    });
    let mut endpoint = json!({ "ip": address.to_string(), "port": port });
    if let (Some(name), Some(endpoint)) = (names::hostname(resolved), endpoint.as_object_mut()) {
        endpoint.insert("hostname".to_owned(), name.into());
    }
    let mut fields =
        Map::from_iter([("dst_endpoint".to_owned(), endpoint), ("connection_info".to_owned(), connection)]);
    if let Some(source) = source {
        fields.insert("src_endpoint".into(), json!({ "ip": source.to_string() }));
    }
    fields
}

fn body((activity_id, activity_name): (u64, &'static str), message: String, fields: Map<String, Value>) -> Body {
    Body {
        class_uid: CLASS_UID,
        activity_id,
        activity_name,
        severity_id: INFORMATIONAL,
        message,
        keep: Keep::IfMatched,
        fields,
        own: Map::new(),
    }
}
