//! Lists with a name: `$name` in a policy stands for all entries of the list, wherever several values may stand.
//!
//! A policy has lists of its own (`spec.lists`) and those of documents of `kind: Lists` that it includes. They are put
//! into the tree before anything is read, so that the rest of the language knows nothing of them. Entries keep their
//! place where the list is in the same file; included ones have the place where they are used.

use std::collections::HashMap;
use std::ops::Range;

use crate::fields::{Fields, Problems, list, name, text};
use crate::parse::{API_VERSION, KINDS, METADATA};
use crate::problem::{Problem, did_you_mean, one_of, quoted};
use crate::shape::{Field, Holds, Shape, optional, required};
use crate::yaml::{Node, Value};

/// What a policy may become by its lists.
const MAX_ENTRIES: usize = 100_000;

pub(crate) const FIELD: Field =
    optional("lists", Holds::Lists, "lists of values by name; `$name` puts one in where several values may stand");

pub(crate) static DOCUMENT: Shape = Shape {
    what: "a document of lists",
    about: "Lists that several policies share: a file of its own, which policies include by its name.",
    fields: &[&[
        required("apiVersion", Holds::Word(API_VERSION), "`plumbline/v1`"),
        required("kind", Holds::Word(KINDS), "`Lists`"),
        required("metadata", Holds::One(&METADATA), "what it is called"),
        required("spec", Holds::One(&SPEC), "its lists"),
    ]],
};

static SPEC: Shape = Shape {
    what: "`spec`",
    about: "The lists.",
    fields: &[&[required("lists", Holds::Lists, "lists of values by name")]],
};

/// One document of lists.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) name: String,
    pub(crate) name_at: Range<usize>,
    lists: Named,
}

type Named = Vec<(String, Vec<Node>)>;

impl Lists {
    pub(crate) fn read(root: &Node, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::of(root, &DOCUMENT, problems)?;
        crate::parse::version_and_kind(&fields, problems);
        let metadata = fields.get("metadata").and_then(|node| Fields::of(node, &METADATA, problems));
        let node = metadata.and_then(|fields| fields.get("name"));
        let called = node.and_then(|node| Some((name(node, problems)?.to_string(), node.at.clone())));
        let spec = fields.get("spec").and_then(|node| Fields::of(node, &SPEC, problems));
        let lists = spec.and_then(|fields| fields.get("lists")).and_then(|node| read(node, problems));
        let (name, name_at) = called?;
        Some(Self { name, name_at, lists: lists? })
    }
}

/// The lists of one mapping; an entry may be a list that stands before.
fn read(node: &Node, problems: &mut Problems) -> Option<Named> {
    let Value::Map(entries) = &node.value else {
        problems.push(crate::fields::wrong_type(node, "`lists` is a mapping of names to lists"));
        return None;
    };
    let mut named: Named = Vec::new();
    for (key, node) in entries {
        if !is_name(&key.name) {
            problems.push(
                Problem::new(&key.at, format!("{} is not the name of a list", quoted(&key.name)))
                    .help("write lower-case letters, digits and hyphens"),
            );
        }
        if named.iter().any(|(name, _)| *name == key.name) {
            problems
                .push(Problem::new(&key.at, format!("two lists are called {}", quoted(&key.name))).help("join them"));
        }
        let Some(items) = list(node, &format!("list `{}`", key.name), problems) else { continue };
        let mut entries = Vec::new();
        for item in items {
            match reference(item) {
                Some(name) => match named.iter().find(|(other, _)| other == name) {
                    Some((_, other)) => entries.extend(other.iter().cloned()),
                    None => problems.push(unknown(name, item, named.iter().map(|(name, _)| name.as_str()))),
                },
                None => entries.push(item.clone()),
            }
        }
        if entries.len() > MAX_ENTRIES {
            problems.push(Problem::new(&key.at, format!("list `{}` has more than {MAX_ENTRIES} entries", key.name)));
            entries.clear();
        }
        named.push((key.name.clone(), entries));
    }
    Some(named)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The list that a text stands for.
fn reference(node: &Node) -> Option<&str> {
    let Value::Text(text) = &node.value else { return None };
    text.strip_prefix('$').filter(|name| is_name(name))
}

fn unknown<'a>(name: &str, node: &Node, known: impl Iterator<Item = &'a str> + Clone) -> Problem {
    let problem = Problem::new(&node.at, format!("there is no list {}", quoted(name)));
    match did_you_mean(name, known.clone()) {
        Some(meant) => problem.help(format!("write `${meant}`")),
        None if known.clone().next().is_none() => {
            problem.help("define it under `spec.lists`, or include the document of lists that has it")
        }
        None => problem.help(format!("known are {}", one_of(known))),
    }
}

/// Puts the lists into the policy's tree.
pub(crate) fn expand(root: &mut Node, library: &[Lists], problems: &mut Problems) {
    let Value::Map(document) = &mut root.value else { return };
    let Some(spec) = document.iter().find(|(key, _)| key.name == "spec").map(|(_, node)| node) else { return };
    let Value::Map(entries) = &spec.value else { return };
    let field = |name: &str| entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node);
    let own = field("lists").and_then(|node| read(node, problems)).unwrap_or_default();
    let mut lists: HashMap<String, (bool, Vec<Node>)> = HashMap::new();
    if let Some(items) = field("include").and_then(|node| list(node, "`include`", problems)) {
        for item in items {
            let Some(name) = text(item, "the name of a document of lists", problems) else { continue };
            let Some(found) = library.iter().find(|lists| lists.name == name) else {
                let problem = Problem::new(&item.at, format!("no document of lists is called {}", quoted(name)));
                let known = library.iter().map(|lists| lists.name.as_str());
                problems.push(match did_you_mean(name, known.clone()) {
                    Some(meant) => problem.help(format!("write `{meant}`")),
                    None if library.is_empty() => problem.help("put a file of `kind: Lists` into the same directory"),
                    None => problem.help(format!("write {}", one_of(known))),
                });
                continue;
            };
            lists.extend(found.lists.iter().map(|(name, entries)| (name.clone(), (true, entries.clone()))));
        }
    }
    // A policy's own word goes before what it includes.
    lists.extend(own.into_iter().map(|(name, entries)| (name, (false, entries))));
    let mut expansion = Expansion { lists: &lists, left: MAX_ENTRIES, problems };
    for (key, node) in document {
        match (&*key.name, &mut node.value) {
            ("spec", Value::Map(entries)) => {
                for (_, node) in entries.iter_mut().filter(|(key, _)| key.name == "rules" || key.name == "subject") {
                    expansion.walk(node);
                }
            }
            ("tests", _) => expansion.walk(node),
            _ => {}
        }
    }
}

struct Expansion<'a> {
    lists: &'a HashMap<String, (bool, Vec<Node>)>,
    /// Entries that may still be put in.
    left: usize,
    problems: &'a mut Problems,
}

/// Fields whose text is for people.
const PROSE: &[&str] = &["name", "message", "description", "text"];

impl Expansion<'_> {
    fn walk(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Map(entries) => {
                for (_, node) in entries.iter_mut().filter(|(key, _)| !PROSE.contains(&&*key.name)) {
                    match self.entries_of(node) {
                        Some(entries) => node.value = Value::List(entries),
                        None => self.walk(node),
                    }
                }
            }
            Value::List(items) => {
                let mut walked = Vec::with_capacity(items.len());
                for mut item in items.drain(..) {
                    match self.entries_of(&item) {
                        Some(entries) => walked.extend(entries),
                        None => {
                            self.walk(&mut item);
                            walked.push(item);
                        }
                    }
                }
                *items = walked;
            }
            _ => {}
        }
    }

    /// The entries of the list that `node` stands for; none where that was a mistake, which is noted.
    fn entries_of(&mut self, node: &Node) -> Option<Vec<Node>> {
        let name = reference(node)?;
        let Some((is_included, entries)) = self.lists.get(name) else {
            self.problems.push(unknown(name, node, self.lists.keys().map(String::as_str)));
            // Something must stand there, or its emptiness would be a second mistake.
            return None;
        };
        let Some(left) = self.left.checked_sub(entries.len()) else {
            self.problems.push(
                Problem::new(&node.at, format!("the lists make this policy larger than {MAX_ENTRIES} entries"))
                    .help("split the policy"),
            );
            self.left = 0;
            return None;
        };
        self.left = left;
        let placed = |entry: &Node| if *is_included { moved(entry, &node.at) } else { entry.clone() };
        Some(entries.iter().map(placed).collect())
    }
}

/// The same value, with the place of another.
fn moved(node: &Node, at: &Range<usize>) -> Node {
    let value = match &node.value {
        Value::List(items) => Value::List(items.iter().map(|item| moved(item, at)).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .iter()
                .map(|(key, node)| (crate::yaml::Key { at: at.clone(), name: key.name.clone() }, moved(node, at)))
                .collect(),
        ),
        other => other.clone(),
    };
    Node { at: at.clone(), value }
}
