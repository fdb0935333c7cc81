//! What an address was resolved as, beside a connection to it.
//!
//! `unmapped.plumbline.dns` says what is known of the names and who said it; OCSF's `dst_endpoint.hostname` has a name only where
//! the answer of a configured server holds, and then the latest.

use serde_json::{Map, Value, json};

use super::{actor, text};
use crate::identity::dns::{Known, Resolved};

/// Names that one record tells of.
const MAX_NAMES: usize = 4;

/// Shorter than RFC 1035 allows, so that no escaped name fills a record.
const MAX_NAME_CHARS: usize = 253;

/// What stands in `unmapped.plumbline.dns`.
pub fn evidence(resolved: &Resolved) -> Value {
    let mut object = Map::from_iter([("state".to_owned(), Value::from(resolved.state.as_str()))]);
    let names: Vec<Value> = resolved.names.iter().take(MAX_NAMES).map(name).collect();
    let left_out = resolved.names.len() - names.len();
    if !names.is_empty() {
        object.insert("names".into(), names.into());
    }
    if left_out > 0 {
        object.insert("names_left_out".into(), left_out.into());
    }
    object.into()
}

fn name(known: &Known) -> Value {
    let told = &known.told;
    let mut object = Map::from_iter([
        ("name".to_owned(), Value::from(cut(&told.name))),
        ("server".to_owned(), told.server.ip().to_string().into()),
        ("first_boot_ns".to_owned(), known.first_boot_ns.into()),
        ("until_boot_ns".to_owned(), known.until_boot_ns.into()),
    ]);
    if let Some(by) = &told.asked_by {
        let uid = actor::process_uid(by.pid, by.start_boot_ns);
        object.insert("asked_by".into(), json!({ "pid": by.pid, "uid": uid, "name": text::shown(&by.comm) }));
    }
    if !told.aliases.is_empty() {
        object.insert("aliases".into(), told.aliases.iter().map(|alias| cut(alias)).collect::<Vec<_>>().into());
    }
    if let Some(doubt) = known.doubt {
        object.insert("doubt".into(), doubt.as_str().into());
    }
    object.into()
}

/// The name for `dst_endpoint.hostname`, where it is one as OCSF has it.
pub fn hostname(resolved: &Resolved) -> Option<&str> {
    let is_hostname = |name: &&str| {
        name.len() <= MAX_NAME_CHARS
            && name.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
    };
    resolved.matched().find(is_hostname)
}

/// What is said of it in a message: never that the address is the name's, only that it was resolved as it.
pub fn in_words(resolved: &Resolved) -> String {
    match resolved.matched().next() {
        Some(name) => format!(", which was resolved as {}", cut(name)),
        None => String::new(),
    }
}

fn cut(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).collect()
}
