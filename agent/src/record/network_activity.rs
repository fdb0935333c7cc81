//! [`Connect`] as OCSF 4001 Network Activity, activity 1 Open.

use serde_json::{Map, Value, json};

use super::{Body, INFORMATIONAL, Keep};
use crate::event::{Connect, Protocol};

const CLASS_UID: u64 = 4001;
const ACTIVITY_OPEN: u64 = 1;

const DIRECTION_OUTBOUND: u8 = 2;
const DIRECTION_LOCAL: u8 = 4;

pub fn body(connect: &Connect, who: &str) -> Body {
    let (protocol, number) = match connect.protocol {
        Protocol::Tcp => ("tcp", 6),
        Protocol::Udp => ("udp", 17),
    };
    let direction = if connect.address.is_loopback() { DIRECTION_LOCAL } else { DIRECTION_OUTBOUND };
    let to = std::net::SocketAddr::new(connect.address, connect.port);
    let fields = json!({
        "dst_endpoint": { "ip": connect.address.to_string(), "port": connect.port },
        "connection_info": {
            "direction_id": direction,
            "protocol_name": protocol,
            "protocol_num": number,
            "protocol_ver_id": if connect.address.is_ipv4() { 4 } else { 6 },
        },
    });
    Body {
        class_uid: CLASS_UID,
        activity_id: ACTIVITY_OPEN,
        activity_name: "Open",
        severity_id: INFORMATIONAL,
        message: format!("{who} set out to connect to {to} ({protocol})"),
        keep: Keep::IfMatched,
        fields: match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        },
        own: Map::new(),
    }
}
