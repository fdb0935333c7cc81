//! What was seen → an allow-list that a person can review: a document of `kind: Exceptions`.
//!
//! Every event that a rule matches becomes part of an entry that would excuse it: who did it, by executable and by where
//! it runs, and to what. Nothing is guessed: of a process whose executable is not known no entry is made, and that is
//! said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use crate::facts::{Facts, Object};
use crate::policy::Effect;
use crate::set::PolicySet;
use crate::subject::unit;

/// More directories or destinations than this in one entry are not reviewed by anybody.
const MAX_OBJECTS: usize = 64;
/// More entries than this are not either.
const MAX_ENTRIES: usize = 1024;

/// What was seen so far.
#[derive(Debug)]
pub struct Learner<'s> {
    set: &'s PolicySet,
    entries: BTreeMap<Entry, Seen>,
    events: u64,
    matched: u64,
    /// Matches that no entry can excuse.
    nameless: u64,
    left_out: u64,
}

/// The part of an entry that events have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    policy: Arc<str>,
    rule: Arc<str>,
    /// Field and value, as YAML.
    who: Vec<(&'static str, String)>,
    port: Option<u16>,
}

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    first_ms: u64,
    last_ms: u64,
    /// Field and values, as YAML.
    objects: BTreeSet<String>,
    field: Option<&'static str>,
    is_wide: bool,
}

impl<'s> Learner<'s> {
    pub fn new(set: &'s PolicySet) -> Self {
        Self { set, entries: BTreeMap::new(), events: 0, matched: 0, nameless: 0, left_out: 0 }
    }

    /// Takes in one event, which happened at this time (milliseconds since 1970).
    pub fn see(&mut self, facts: &Facts<'_>, unix_ms: u64) {
        self.events += 1;
        let verdict = self.set.decide(facts);
        for matched in verdict.matched() {
            self.matched += 1;
            let Some(who) = who(facts) else {
                self.nameless += 1;
                continue;
            };
            // The kernel denies by who and where to, and knows neither paths nor names.
            let (field, object, port) = object(facts, matched.effect == Effect::Deny);
            if field.is_some() && object.is_none() {
                self.nameless += 1;
                continue;
            }
            let entry = Entry { policy: Arc::clone(&matched.policy), rule: Arc::clone(&matched.rule), who, port };
            if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&entry) {
                self.left_out += 1;
                continue;
            }
            let seen = self.entries.entry(entry).or_insert_with(|| Seen { first_ms: unix_ms, ..Seen::default() });
            seen.count += 1;
            seen.first_ms = seen.first_ms.min(unix_ms);
            seen.last_ms = seen.last_ms.max(unix_ms);
            seen.field = seen.field.or(field);
            if seen.objects.len() < MAX_OBJECTS {
                seen.objects.extend(object);
            } else if let Some(object) = object
                && !seen.objects.contains(&object)
            {
                seen.is_wide = true;
            }
        }
    }

    /// Matches of rules so far.
    pub fn matched(&self) -> u64 {
        self.matched
    }

    /// The document; `time` writes milliseconds since 1970 for people.
    pub fn document(&self, name: &str, time: impl Fn(u64) -> String) -> String {
        let mut out = format!(
            "# Learned by `plumbline policy learn` from {} events, of which rules matched {}. Each entry excuses what was seen,\n\
             # wrong or right: review it before this file goes into the directory of policies.\n",
            self.events, self.matched
        );
        if self.nameless > 0 {
            let _ = writeln!(
                out,
                "# {} matches are not excused: the executable, or what it was done to, is not known.",
                self.nameless
            );
        }
        if self.left_out > 0 {
            let _ =
                writeln!(out, "# {} matches are left out: there are more than {MAX_ENTRIES} entries.", self.left_out);
        }
        let _ =
            write!(out, "apiVersion: plumbline/v1\nkind: Exceptions\nmetadata:\n  name: {name}\nspec:\n  exceptions:");
        // A rule none of whose entries is narrow enough stands for nothing.
        let rules: BTreeSet<(&str, &str)> = self
            .entries
            .iter()
            .filter(|(_, seen)| !seen.is_wide)
            .map(|(entry, _)| (&*entry.policy, &*entry.rule))
            .collect();
        out.push_str(if rules.is_empty() { " []\n" } else { "\n" });
        let mut before: Option<(&str, &str)> = None;
        for (entry, seen) in &self.entries {
            let rule = (&*entry.policy, &*entry.rule);
            if before != Some(rule) {
                let hash = if rules.contains(&rule) { "" } else { "# " };
                let _ =
                    write!(out, "{hash}    - policy: {}\n{hash}      rule: {}\n{hash}      except:\n", rule.0, rule.1);
                before = Some(rule);
            }
            let _ =
                writeln!(out, "        # {} times, from {} to {}", seen.count, time(seen.first_ms), time(seen.last_ms));
            let mut fields: Vec<String> = entry.who.iter().map(|(field, value)| format!("{field}: {value}")).collect();
            if let Some(field) = seen.field.filter(|_| !seen.objects.is_empty()) {
                let objects: Vec<&str> = seen.objects.iter().map(String::as_str).collect();
                fields.push(format!("{field}: [{}]", objects.join(", ")));
            }
            fields.extend(entry.port.map(|port| format!("port: {port}")));
            if seen.is_wide {
                // What would excuse anything is for a person to write.
                let _ = writeln!(
                    out,
                    "        # not excused: more than {MAX_OBJECTS} values of `{}`, these among them\n        # - {}",
                    seen.field.unwrap_or_default(),
                    fields.join("\n        #   ")
                );
            } else {
                let _ = writeln!(out, "        - {}", fields.join("\n          "));
            }
        }
        out
    }
}

/// Who did it: the executable, and the narrowest thing known of where it runs.
fn who(facts: &Facts<'_>) -> Option<Vec<(&'static str, String)>> {
    let subject = &facts.subject;
    let mut fields = vec![("exe", glob(subject.exe?))];
    if let Some(pod) = subject.pod {
        fields.push(("namespace", glob(pod.namespace.as_bytes())));
        if let Some(image) = subject.image {
            fields.push(("image", glob(image.as_bytes())));
        }
    } else if let Some(unit) = subject.cgroup.and_then(unit) {
        fields.push(("unit", glob(unit)));
    } else if let Some(cgroup) = subject.cgroup.filter(|cgroup| cgroup.len() > 1) {
        fields.push(("cgroup", glob(cgroup)));
    } else {
        fields.push(("uid", subject.uid?.to_string()));
    }
    Some(fields)
}

/// The field of an exception that names what it was done to, its value, and the port.
fn object(facts: &Facts<'_>, by_kernel: bool) -> (Option<&'static str>, Option<String>, Option<u16>) {
    match facts.object {
        Object::File(file) if !by_kernel && file.path_truncated => (Some("path"), None, None),
        Object::File(file) if !by_kernel => {
            let directory = file.path.iter().rposition(|byte| *byte == b'/').filter(|end| *end > 0);
            // A file at the root has no directory of its own.
            let pattern = match directory {
                Some(end) => format!("{}/*", escaped(&file.path[..end])),
                None => escaped(file.path),
            };
            (Some("path"), Some(quoted(&pattern)), None)
        }
        Object::Exec { path, .. } if !by_kernel => (Some("path"), Some(glob(path)), None),
        Object::Connect { address, port, names, .. } => {
            let name = names.first().filter(|name| !by_kernel && is_host(name));
            let to = match name {
                Some(name) => format!("{{matchName: {}}}", quoted(name)),
                None => quoted(&network(address)),
            };
            (Some("to"), Some(to), Some(port))
        }
        _ => (None, None, None),
    }
}

fn network(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

fn is_host(name: &str) -> bool {
    let fine = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(fine)
}

/// A glob that matches these bytes alone, but for those that are not UTF-8, of which each is any.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
                out.push('\\');
            }
            out.push(character);
        }
        out.extend(chunk.invalid().iter().map(|_| '?'));
    }
    out
}

fn glob(bytes: &[u8]) -> String {
    quoted(&escaped(bytes))
}

/// A JSON string, which is a YAML one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
