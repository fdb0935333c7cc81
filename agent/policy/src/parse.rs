//! Tree → checked policy: the one place that knows the fields of the language.
//!
//! Every function notes what is wrong and goes on; a policy comes out only when nothing was noted. The fields are
//! described for users in `docs/policies.md`, which must be changed together with this file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::destination::{Destinations, name as host_name};
use crate::facts::{Access, Protocol};
use crate::fields::{Fields, Problems, each, integer, list, one_or_many, text, word};
use crate::pattern::{Globs, WatchPath};
use crate::policy::{Effect, Exception, Policy, Rule, Severity, Watched, When};
use crate::problem::{InvalidPolicy, Problem, did_you_mean, one_of, quoted};
use crate::template::{Kind, Template};
use crate::test_case::{OwnedFacts, OwnedObject, OwnedSubject, TestCase};
use crate::yaml::{self, Node, Value};

const API_VERSIONS: &[(&str, ())] = &[("plumbline/v1", ())];
const KINDS: &[(&str, ())] = &[("Policy", ())];
const OBJECTS: &[&str] = &["file", "connect"];
/// The kernel keeps 15 bytes of a task's name.
const MAX_COMM_BYTES: usize = 15;
/// Shorter prefixes of container ids could be those of strangers; 12 is what container tools show.
const MIN_CONTAINER_DIGITS: usize = 12;

impl Policy {
    /// Reads one policy file; `name` is what its mistakes are reported under.
    pub fn parse(name: &str, text: &str) -> Result<Self, InvalidPolicy> {
        let mut problems = Problems::new();
        let policy = match yaml::parse(text) {
            Ok(root) => policy(&root, &mut problems),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        match policy {
            Some(policy) if problems.is_empty() => Ok(policy),
            _ => Err(InvalidPolicy::new(name, text, problems)),
        }
    }
}

fn policy(root: &Node, problems: &mut Problems) -> Option<Policy> {
    let fields = Fields::of(root, "a policy", &["apiVersion", "kind", "metadata", "spec", "tests"], problems)?;
    if let Some(node) = fields.required("apiVersion", problems) {
        word(node, "the version of the policy language that is read here", API_VERSIONS, problems);
    }
    if let Some(node) = fields.required("kind", problems) {
        word(node, "a kind of document that is read here", KINDS, problems);
    }
    let metadata = fields.required("metadata", problems).and_then(|node| metadata(node, problems));
    let rules = fields.required("spec", problems).and_then(|node| {
        let spec = Fields::of(node, "`spec`", &["rules"], problems)?;
        rules(spec.required("rules", problems)?, problems)
    });
    let tests = match (fields.get("tests"), &rules) {
        (Some(node), rules) => tests(node, rules.as_deref(), problems),
        (None, _) => Some(Vec::new()),
    };
    let ((name, name_at), description) = metadata?;
    Some(Policy { name, name_at, description, rules: rules?, tests: tests? })
}

fn metadata(node: &Node, problems: &mut Problems) -> Option<(Named, String)> {
    let fields = Fields::of(node, "`metadata`", &["name", "description"], problems)?;
    let description = match fields.get("description") {
        Some(node) => text(node, "a description", problems)?.to_owned(),
        None => String::new(),
    };
    let node = fields.required("name", problems)?;
    Some(((name(node, problems)?, node.at.clone()), description))
}

/// A name that is safe in labels, file names and records.
fn name(node: &Node, problems: &mut Problems) -> Option<Arc<str>> {
    let given = text(node, "a name", problems)?;
    let plain = given.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if plain && given.len() <= 63 && !given.starts_with('-') && !given.ends_with('-') {
        return Some(given.into());
    }
    problems.push(
        Problem::new(&node.at, format!("{} is not a name", quoted(given)))
            .help("write 1 to 63 lower-case letters, digits and hyphens, no hyphen first or last"),
    );
    None
}

fn rules(node: &Node, problems: &mut Problems) -> Option<Vec<Rule>> {
    let items = list(node, "`rules`", problems)?;
    let mut seen: HashMap<Arc<str>, Range<usize>> = HashMap::new();
    each(items, problems, |item, problems| {
        let (rule, at) = rule(item, problems);
        if let Some((name, at)) = at {
            if let Some(first) = seen.get(&name) {
                problems.push(
                    Problem::new(&at, format!("two rules are called {}", quoted(&name)))
                        .label("again")
                        .other(first, "first")
                        .help("give each rule its own name"),
                );
            }
            seen.entry(name).or_insert(at);
        }
        rule
    })
}

/// A name and where it stands.
type Named = (Arc<str>, Range<usize>);

/// The rule, and apart from it its name, which may be known where the rule is not.
fn rule(node: &Node, problems: &mut Problems) -> (Option<Rule>, Option<Named>) {
    let known = &["name", "severity", "effect", "message", "match", "except"];
    let Some(fields) = Fields::of(node, "a rule", known, problems) else { return (None, None) };
    let named = fields.required("name", problems).and_then(|node| Some((name(node, problems)?, node.at.clone())));
    let severity =
        fields.required("severity", problems).and_then(|node| word(node, "a severity", Severity::WORDS, problems));
    let effect = fields.required("effect", problems).and_then(|node| word(node, "an effect", Effect::WORDS, problems));
    let when = fields.required("match", problems).and_then(|node| when(node, problems));
    let placeholders = match &when {
        Some(When::Connect { after_reading: Some(_), .. }) => Kind::ConnectAfterReading,
        Some(When::Connect { .. }) => Kind::Connect,
        _ => Kind::File,
    };
    let message = fields.required("message", problems).and_then(|node| {
        let text = text(node, "a message", problems)?;
        // Which placeholders are right depends on the kind of event.
        when.as_ref()?;
        Template::parse(text, &node.at, placeholders).map_err(|problem| problems.push(problem)).ok()
    });
    let except = match fields.get("except") {
        Some(node) => list(node, "`except`", problems)
            .and_then(|items| each(items, problems, |item, problems| exception(item, when.as_ref(), problems))),
        None => Some(Vec::new()),
    };
    let rule = (|| {
        let (name, _) = named.clone()?;
        Some(Rule { name, severity: severity?, effect: effect?, message: message?, when: when?, except: except? })
    })();
    (rule, named)
}

fn when(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, "`match`", OBJECTS, problems)?;
    match fields.exactly_one(OBJECTS, problems)? {
        ("file", node) => {
            let fields = Fields::of(node, "`file`", &["watch", "access"], problems)?;
            let accesses = match fields.get("access") {
                Some(node) => each(list(node, "`access`", problems)?, problems, |item, problems| {
                    word(item, "a kind of access", Access::WORDS, problems)
                })?,
                None => vec![Access::Open],
            };
            let watched = watched(fields.required("watch", problems)?, "`watch`", problems)?;
            Some(When::File { watched, accesses })
        }
        (_, node) => {
            let fields = Fields::of(node, "`connect`", &["notTo", "protocol", "afterReading"], problems)?;
            let protocols = match fields.get("protocol") {
                Some(node) => each(one_or_many(node, "`protocol`", problems)?, problems, |item, problems| {
                    word(item, "a protocol", Protocol::WORDS, problems)
                }),
                None => Some(vec![Protocol::Tcp, Protocol::Udp]),
            };
            let after_reading = match fields.get("afterReading") {
                Some(node) => Some(watched(node, "`afterReading`", problems)?),
                None => None,
            };
            let items = list(fields.required("notTo", problems)?, "`notTo`", problems)?;
            let not_to = Destinations::read(items, problems)?;
            Some(When::Connect { not_to, protocols: protocols?, after_reading })
        }
    }
}

/// Directories to watch.
fn watched(node: &Node, what: &str, problems: &mut Problems) -> Option<Watched> {
    let items = list(node, what, problems)?;
    let watch = each(items, problems, |item, problems| {
        let text = text(item, "a watched directory", problems)?;
        WatchPath::parse(text, &item.at).map_err(|problem| problems.push(problem)).ok()
    })?
    .concat();
    let covered = Globs::covered_by(&watch).map_err(|error| {
        problems.push(Problem::new(&node.at, format!("the directories cannot be compiled: {error}")));
    });
    Some(Watched { watch, covered: covered.ok()? })
}

fn exception(node: &Node, when: Option<&When>, problems: &mut Problems) -> Option<Exception> {
    let known = &["exe", "comm", "uid", "container", "cgroup", "unit", "descendantsOf", "path", "to", "port"];
    let fields = Fields::of(node, "an exception", known, problems)?;
    if !known.iter().any(|name| fields.get(name).is_some()) {
        if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
            problems.push(
                Problem::new(&node.at, "an empty exception would excuse everybody")
                    .help(format!("name whom to excuse by {}", one_of(known.iter().copied()))),
            );
        }
        return None;
    }
    for (name, fits, kind) in [
        ("path", !matches!(when, Some(When::Connect { .. })), "file"),
        ("to", !matches!(when, Some(When::File { .. })), "connect"),
        ("port", !matches!(when, Some(When::File { .. })), "connect"),
    ] {
        if fields.get(name).is_some() && !fits {
            let message = format!("`{name}` can only excuse in rules that match `{kind}`");
            problems.push(Problem::new(fields.place(name), message).help("take it out, or move it to such a rule"));
        }
    }
    let before = problems.len();
    let exception = Exception {
        exe: fields.get("exe").and_then(|node| globs(node, "`exe`", Globs::of_files, problems)),
        comm: fields.get("comm").and_then(|node| many(node, "`comm`", problems, comm)),
        uid: fields.get("uid").and_then(|node| {
            many(node, "`uid`", problems, |node, problems| integer(node, "a user id", "0 to 4294967295", problems))
        }),
        container: fields.get("container").and_then(|node| many(node, "`container`", problems, container)),
        cgroup: fields.get("cgroup").and_then(|node| globs(node, "`cgroup`", Globs::of_cgroups, problems)),
        unit: fields.get("unit").and_then(|node| globs(node, "`unit`", Globs::of_units, problems)),
        descendants_of: fields.get("descendantsOf").and_then(|node| {
            let fields = Fields::of(node, "`descendantsOf`", &["exe"], problems)?;
            globs(fields.required("exe", problems)?, "`exe`", Globs::of_files, problems)
        }),
        path: fields.get("path").and_then(|node| globs(node, "`path`", Globs::of_files, problems)),
        to: fields.get("to").and_then(|node| Destinations::read(one_or_many(node, "`to`", problems)?, problems)),
        port: fields.get("port").and_then(|node| many(node, "`port`", problems, port)),
    };
    // A field that could not be read must not leave an exception that is wider than what was written.
    (problems.len() == before).then_some(exception)
}

fn many<'n, T>(
    node: &'n Node,
    what: &str,
    problems: &mut Problems,
    read: impl FnMut(&'n Node, &mut Problems) -> Option<T>,
) -> Option<Vec<T>> {
    each(one_or_many(node, what, problems)?, problems, read)
}

type ReadGlobs = fn(&[(&str, Range<usize>)]) -> Result<Globs, Vec<Problem>>;

fn globs(node: &Node, what: &str, read: ReadGlobs, problems: &mut Problems) -> Option<Globs> {
    let patterns = many(node, what, problems, |node, problems| {
        Some((text(node, &format!("a pattern in {what}"), problems)?, node.at.clone()))
    })?;
    read(&patterns).map_err(|found| problems.extend(found)).ok()
}

fn comm(node: &Node, problems: &mut Problems) -> Option<Box<[u8]>> {
    let given = text(node, "the name of a task", problems)?;
    if given.len() > MAX_COMM_BYTES {
        let kept = &given[..given.floor_char_boundary(MAX_COMM_BYTES)];
        problems.push(
            Problem::new(&node.at, format!("{} is longer than a task's name can be", quoted(given)))
                .help(format!("the kernel keeps {MAX_COMM_BYTES} bytes: write `{kept}`")),
        );
        return None;
    }
    Some(given.as_bytes().into())
}

fn container(node: &Node, problems: &mut Problems) -> Option<String> {
    let given = text(node, "the prefix of a container id", problems)?;
    let hexadecimal = given.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !hexadecimal || !(MIN_CONTAINER_DIGITS..=64).contains(&given.len()) {
        problems.push(
            Problem::new(&node.at, format!("{} is not the prefix of a container id", quoted(given)))
                .help(format!("write {MIN_CONTAINER_DIGITS} to 64 lower-case hexadecimal digits")),
        );
        return None;
    }
    Some(given.to_owned())
}

fn port(node: &Node, problems: &mut Problems) -> Option<u16> {
    integer(node, "a port", "0 to 65535", problems)
}

fn tests(node: &Node, rules: Option<&[Rule]>, problems: &mut Problems) -> Option<Vec<TestCase>> {
    let items = list(node, "`tests`", problems)?;
    each(items, problems, |item, problems| test(item, rules, problems))
}

fn test(node: &Node, rules: Option<&[Rule]>, problems: &mut Problems) -> Option<TestCase> {
    const EXPECTATIONS: &[(&str, Option<Effect>)] =
        &[("alert", Some(Effect::Alert)), ("audit", Some(Effect::Audit)), ("none", None)];
    let fields = Fields::of(node, "a test", &["name", "event", "expect", "rule"], problems)?;
    let name = fields.required("name", problems).and_then(|node| text(node, "the name of a test", problems));
    let expect =
        fields.required("expect", problems).and_then(|node| word(node, "an expectation", EXPECTATIONS, problems));
    let rule = match fields.get("rule") {
        Some(node) => Some(Arc::from(text(node, "the name of a rule", problems)?)),
        None => None,
    };
    if let (Some(rules), Some(rule)) = (rules, &rule)
        && !rules.iter().any(|known| known.name == *rule)
    {
        let problem = Problem::new(fields.place("rule"), format!("this policy has no rule {}", quoted(rule)));
        let known = rules.iter().map(|rule| &*rule.name);
        problems.push(match did_you_mean(rule, known.clone()) {
            Some(meant) => problem.help(format!("write `{meant}`")),
            None => problem.help(format!("write {}", one_of(known))),
        });
    }
    let event = fields.required("event", problems).and_then(|node| event(node, problems));
    Some(TestCase { name: name?.to_owned(), event: event?, expect: expect?, rule })
}

fn event(node: &Node, problems: &mut Problems) -> Option<OwnedFacts> {
    let fields = Fields::of(node, "an event", &["file", "connect", "process"], problems)?;
    let subject = match fields.get("process") {
        Some(node) => process(node, problems),
        None => Some(OwnedSubject::default()),
    };
    let object = match fields.exactly_one(OBJECTS, problems)? {
        ("file", node) => {
            let fields = Fields::of(node, "`file`", &["path", "watched", "access"], problems)?;
            let access = match fields.get("access") {
                Some(node) => word(node, "a kind of access", Access::WORDS, problems)?,
                None => Access::Open,
            };
            let watched = optional_text(&fields, "watched", problems);
            let path = text(fields.required("path", problems)?, "a path", problems)?.to_owned();
            OwnedObject::File { access, path, watched }
        }
        (_, node) => {
            let fields = Fields::of(node, "`connect`", &["address", "port", "protocol", "names"], problems)?;
            let protocol = match fields.get("protocol") {
                Some(node) => word(node, "a protocol", Protocol::WORDS, problems),
                None => Some(Protocol::Tcp),
            };
            let port = fields.required("port", problems).and_then(|node| port(node, problems));
            let names = match fields.get("names") {
                Some(node) => each(list(node, "`names`", problems)?, problems, host_name),
                None => Some(Vec::new()),
            };
            let node = fields.required("address", problems)?;
            let given = text(node, "an address", problems)?;
            let Ok(address) = given.parse() else {
                let message = format!("{} is not an IP address", quoted(given));
                problems.push(
                    Problem::new(&node.at, message)
                        .help("names are not resolved: write the address, and under `names` what it was resolved as"),
                );
                return None;
            };
            OwnedObject::Connect { protocol: protocol?, address, port: port?, names: names? }
        }
    };
    Some(OwnedFacts { subject: subject?, object })
}

fn process(node: &Node, problems: &mut Problems) -> Option<OwnedSubject> {
    let known = &["pid", "uid", "comm", "exe", "ancestors", "cgroup", "container", "pod", "hasRead"];
    let fields = Fields::of(node, "a process", known, problems)?;
    let mut number = |name: &str| match fields.get(name) {
        Some(node) => integer(node, &format!("`{name}`"), "0 to 4294967295", problems),
        None => Some(0),
    };
    let (pid, uid) = (number("pid"), number("uid"));
    let ancestors = match fields.get("ancestors") {
        Some(node) => each(list(node, "`ancestors`", problems)?, problems, |item, problems| {
            let fields = Fields::of(item, "an ancestor", &["exe"], problems)?;
            Some(text(fields.required("exe", problems)?, "`exe`", problems)?.to_owned())
        }),
        None => Some(Vec::new()),
    };
    let has_read = match fields.get("hasRead") {
        Some(node) => each(list(node, "`hasRead`", problems)?, problems, |item, problems| {
            Some(text(item, "a path", problems)?.to_owned())
        }),
        None => Some(Vec::new()),
    };
    Some(OwnedSubject {
        pid: pid?,
        uid: uid?,
        comm: optional_text(&fields, "comm", problems).unwrap_or_default(),
        exe: optional_text(&fields, "exe", problems),
        ancestors: ancestors?,
        cgroup: optional_text(&fields, "cgroup", problems),
        container: optional_text(&fields, "container", problems),
        pod_uid: optional_text(&fields, "pod", problems),
        has_read: has_read?,
    })
}

fn optional_text(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<String> {
    text(fields.get(name)?, &format!("`{name}`"), problems).map(str::to_owned)
}
