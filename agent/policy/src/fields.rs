//! Reading one mapping of the tree, field by field.
//!
//! Every reader returns `Option`: `None` means that the mistake has been noted and the caller goes on with the next
//! field, so that one run shows every mistake of a file.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::problem::{Problem, did_you_mean, one_of, quoted};
use crate::shape::{Shape, Words};
use crate::yaml::{Key, Node, Value};

/// The mistakes found so far.
pub(crate) type Problems = Vec<Problem>;

/// A mapping all of whose keys are known and stand once.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    /// What this mapping is, for messages: "a rule".
    what: &'static str,
    pub(crate) at: Range<usize>,
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    /// Reads `node` as a mapping of this shape; notes unknown keys, twins, and fields that are missing.
    pub(crate) fn of(node: &'n Node, shape: &Shape, problems: &mut Problems) -> Option<Self> {
        let what = shape.what;
        let known: Vec<&'static str> = shape.names().collect();
        let Value::Map(entries) = &node.value else {
            problems.push(wrong_type(node, &format!("{what} is a mapping of {}", one_of(known.iter().copied()))));
            return None;
        };
        let mut seen: HashMap<&str, &Key> = HashMap::new();
        for (key, _) in entries {
            if let Some(first) = seen.get(key.name.as_str()) {
                problems.push(
                    Problem::new(&key.at, format!("{} stands twice in {what}", quoted(&key.name)))
                        .label("again")
                        .other(&first.at, "first")
                        .help("keep one of them; to give several values write a list"),
                );
            } else if !known.contains(&key.name.as_str()) {
                let problem = Problem::new(&key.at, format!("{what} has no field {}", quoted(&key.name)));
                problems.push(suggest(problem, &key.name, &known));
            }
            seen.entry(&key.name).or_insert(key);
        }
        // A mapping has no width of its own; its first key shows where it is.
        let at = entries.first().map_or_else(|| node.at.clone(), |(key, _)| key.at.clone());
        let fields = Self { what, at, entries };
        shape.fields().filter(|field| field.is_required).for_each(|field| fields.require(field.name, problems));
        Some(fields)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The place of a field's name, or of the mapping where the field is missing.
    pub(crate) fn place(&self, name: &str) -> &Range<usize> {
        self.entries.iter().find(|(key, _)| key.name == name).map_or(&self.at, |(key, _)| &key.at)
    }

    fn require(&self, name: &'static str, problems: &mut Problems) {
        // A misspelt field is one mistake, not two.
        let misspelt = || self.entries.iter().any(|(key, _)| did_you_mean(&key.name, [name]).is_some());
        if self.get(name).is_none() && !misspelt() {
            let message = format!("{} lacks `{name}`", self.what);
            problems.push(Problem::new(&self.at, message).label("in this mapping").help(format!("add `{name}:`")));
        }
    }

    /// Of `names`, the one field that is given; none or several is a mistake.
    pub(crate) fn exactly_one(
        &self,
        names: &[&'static str],
        problems: &mut Problems,
    ) -> Option<(&'static str, &'n Node)> {
        let given: Vec<_> = names.iter().filter_map(|&name| Some((name, self.get(name)?))).collect();
        match given[..] {
            [one] => Some(one),
            [] => {
                let message = format!("{} names nothing", self.what);
                problems.push(Problem::new(&self.at, message).help(format!("write {}", one_of(names.iter().copied()))));
                None
            }
            [_, (second, _), ..] => {
                let message = format!("{} names more than one kind of object", self.what);
                problems.push(
                    Problem::new(self.place(second), message)
                        .label("the second")
                        .help("write a rule for each; give them the same exceptions"),
                );
                None
            }
        }
    }
}

pub(crate) fn wrong_type(node: &Node, expected: &str) -> Problem {
    let problem = Problem::new(&node.at, format!("{expected}, not {}", node.value.kind()));
    match node.value {
        Value::Integer(_) | Value::Float(_) | Value::Bool(_) if expected.ends_with("text") => {
            problem.help("put it in quotes")
        }
        _ => problem,
    }
}

fn suggest(problem: Problem, word: &str, known: &[&str]) -> Problem {
    match did_you_mean(word, known.iter().copied()) {
        Some(meant) => problem.label(format!("did you mean `{meant}`?")).help(format!("write `{meant}`")),
        None => problem.label("unknown").help(format!("write {}", one_of(known.iter().copied()))),
    }
}

pub(crate) fn text<'n>(node: &'n Node, what: &str, problems: &mut Problems) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) if !text.is_empty() => Some(text),
        Value::Text(_) => {
            problems.push(Problem::new(&node.at, format!("{what} is empty")));
            None
        }
        _ => {
            problems.push(wrong_type(node, &format!("{what} is text")));
            None
        }
    }
}

/// A whole number in the range of `T`.
pub(crate) fn integer<T: TryFrom<i128>>(node: &Node, what: &str, range: &str, problems: &mut Problems) -> Option<T> {
    let Value::Integer(number) = node.value else {
        problems.push(wrong_type(node, &format!("{what} is a whole number")));
        return None;
    };
    let fitting = T::try_from(number).ok();
    if fitting.is_none() {
        problems.push(Problem::new(&node.at, format!("{number} is not {what}")).help(format!("write {range}")));
    }
    fitting
}

/// One word of a closed set; `what` comes with its article.
pub(crate) fn word<T: Words>(node: &Node, what: &str, problems: &mut Problems) -> Option<T> {
    let words = T::WORDS;
    let known = words.iter().map(|&(word, _)| word);
    let Value::Text(given) = &node.value else {
        problems.push(wrong_type(node, &format!("expected {}", one_of(known))));
        return None;
    };
    let found = words.iter().find(|(word, _)| *word == given).map(|&(_, meaning)| meaning);
    if found.is_none() {
        let known: Vec<&str> = known.collect();
        problems.push(suggest(Problem::new(&node.at, format!("{} is not {what}", quoted(given))), given, &known));
    }
    found
}

/// A list with at least one entry.
pub(crate) fn list<'n>(node: &'n Node, what: &str, problems: &mut Problems) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) if !items.is_empty() => Some(items),
        Value::List(_) | Value::Null => {
            problems.push(Problem::new(&node.at, format!("{what} is empty")).help("give at least one entry"));
            None
        }
        _ => {
            problems.push(wrong_type(node, &format!("{what} is a list")).help("begin each entry with `- `"));
            None
        }
    }
}

/// One value, or a list of which any may hold.
pub(crate) fn one_or_many<'n>(node: &'n Node, what: &str, problems: &mut Problems) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(_) | Value::Null => list(node, what, problems),
        _ => Some(std::slice::from_ref(node)),
    }
}

/// Reads every item; `None` if any was wrong, each having been noted.
pub(crate) fn each<'n, T>(
    items: &'n [Node],
    problems: &mut Problems,
    mut read: impl FnMut(&'n Node, &mut Problems) -> Option<T>,
) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = items.iter().map(|item| read(item, problems)).collect();
    read.into_iter().collect()
}

/// One value or a list of them, each read by `read`.
pub(crate) fn many<'n, T>(
    node: &'n Node,
    what: &str,
    problems: &mut Problems,
    read: impl FnMut(&'n Node, &mut Problems) -> Option<T>,
) -> Option<Vec<T>> {
    each(one_or_many(node, what, problems)?, problems, read)
}

/// `30s`, `5m`, `1h`, as nanoseconds: a second at least, a day at most.
pub(crate) fn duration(node: &Node, what: &str, problems: &mut Problems) -> Option<u64> {
    const DAY_NS: u64 = 86_400_000_000_000;
    let given = match &node.value {
        Value::Text(given) => given.clone(),
        Value::Integer(number) => number.to_string(),
        _ => {
            problems.push(wrong_type(node, &format!("{what} is text")).help("write it as in `5m`"));
            return None;
        }
    };
    let (number, unit) = given.split_at(given.find(|c: char| !c.is_ascii_digit()).unwrap_or(given.len()));
    let unit_ns = match unit {
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        "d" => Some(DAY_NS),
        _ => None,
    };
    let nanoseconds = unit_ns.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    let fitting = nanoseconds.filter(|ns| (1_000_000_000..=DAY_NS).contains(ns));
    if fitting.is_none() {
        problems.push(
            Problem::new(&node.at, format!("{} is not {what}", quoted(&given)))
                .help("write a number and `s`, `m` or `h`, from `1s` to `24h`, as in `5m`"),
        );
    }
    fitting
}

pub(crate) fn boolean(node: &Node, what: &str, problems: &mut Problems) -> Option<bool> {
    if let Value::Bool(value) = node.value {
        return Some(value);
    }
    problems.push(wrong_type(node, &format!("{what} is `true` or `false`")));
    None
}

/// A name that is safe in labels, file names and records.
pub(crate) fn name(node: &Node, problems: &mut Problems) -> Option<Arc<str>> {
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

/// A network port.
pub(crate) fn port(node: &Node, problems: &mut Problems) -> Option<u16> {
    integer(node, "a port", "0 to 65535", problems)
}

/// A port, or a range of them: `8000-8010`.
pub(crate) fn ports(node: &Node, problems: &mut Problems) -> Option<RangeInclusive<u16>> {
    let Value::Text(given) = &node.value else { return port(node, problems).map(|port| port..=port) };
    let ends = given.split_once('-').map(|(first, last)| (first.trim().parse::<u16>(), last.trim().parse::<u16>()));
    match ends {
        Some((Ok(first), Ok(last))) if first <= last => Some(first..=last),
        _ => {
            let problem = Problem::new(&node.at, format!("{} is not a range of ports", quoted(given)));
            problems.push(problem.help("write a number, or a range such as `8000-8010`"));
            None
        }
    }
}

/// Whether one of these is the port.
pub(crate) fn has_port(ports: &[RangeInclusive<u16>], port: u16) -> bool {
    ports.iter().any(|range| range.contains(&port))
}

/// Whether every port of `others` is one of these, range by range.
pub(crate) fn covers_ports(ports: &[RangeInclusive<u16>], others: &[RangeInclusive<u16>]) -> bool {
    others.iter().all(|other| ports.iter().any(|mine| mine.contains(other.start()) && mine.contains(other.end())))
}

/// Readers of optional fields take `None` where the field is not given, and where it was wrong, which was noted.
pub(crate) fn optional_text(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<String> {
    text(fields.get(name)?, &format!("`{name}`"), problems).map(str::to_owned)
}
