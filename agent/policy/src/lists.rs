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

/// Values by which a document may grow through its lists.
const MAX_NODES: usize = 100_000;

/// After so many mistakes nobody reads on.
const ENOUGH: usize = 50;

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

/// The lists of one mapping; an entry may be, or hold, a list that stands before.
fn read(node: &Node, problems: &mut Problems) -> Option<Named> {
    let Value::Map(entries) = &node.value else {
        problems.push(crate::fields::wrong_type(node, "`lists` is a mapping of names to lists"));
        return None;
    };
    let mut named: HashMap<String, (bool, Vec<Node>)> = HashMap::new();
    let mut order = Vec::new();
    let mut left = MAX_NODES;
    for (key, node) in entries {
        if problems.len() > ENOUGH {
            break;
        }
        if !is_name(&key.name) {
            problems.push(
                Problem::new(&key.at, format!("{} is not the name of a list", quoted(&key.name)))
                    .help("write lower-case letters, digits and hyphens"),
            );
        }
        if named.contains_key(&key.name) {
            problems
                .push(Problem::new(&key.at, format!("two lists are called {}", quoted(&key.name))).help("join them"));
        }
        if list(node, &format!("list `{}`", key.name), problems).is_none() {
            continue;
        }
        let mut node = node.clone();
        let mut expansion = Expansion { lists: &named, left, problems };
        expansion.walk(&mut node);
        left = expansion.left;
        let Value::List(entries) = node.value else { continue };
        order.push(key.name.clone());
        named.insert(key.name.clone(), (false, entries));
    }
    let entries = order.into_iter().filter_map(|name| named.remove(&name).map(|(_, entries)| (name, entries)));
    Some(entries.collect())
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
        None => problem.help(format!("known are {}", one_of(known.take(12)))),
    }
}

/// Puts the lists into the tree of a policy or of a document of exceptions.
pub(crate) fn expand(root: &mut Node, library: &[Lists], problems: &mut Problems) {
    let Value::Map(document) = &mut root.value else { return };
    let Some(spec) = document.iter().find(|(key, _)| key.name == "spec").map(|(_, node)| node) else { return };
    let Value::Map(entries) = &spec.value else { return };
    let field = |name: &str| entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node);
    let own = field("lists").and_then(|node| read(node, problems)).unwrap_or_default();
    let mut lists: HashMap<String, (bool, Vec<Node>)> = HashMap::new();
    for item in field("include").and_then(|node| list(node, "`include`", problems)).unwrap_or_default() {
        include(item, library, &mut lists, problems);
    }
    // A policy's own word goes before what it includes.
    lists.extend(own.into_iter().map(|(name, entries)| (name, (false, entries))));
    let mut expansion = Expansion { lists: &lists, left: MAX_NODES, problems };
    for (key, node) in document {
        match (&*key.name, &mut node.value) {
            ("spec", Value::Map(entries)) => {
                for (key, node) in entries.iter_mut() {
                    match &*key.name {
                        "subject" => expansion.field(node),
                        "rules" => expansion.items(node, &["name", "message"]),
                        "exceptions" => expansion.items(node, &[]),
                        _ => {}
                    }
                }
            }
            ("tests", _) => expansion.items(node, &["name"]),
            _ => {}
        }
    }
}

fn include(
    item: &Node,
    library: &[Lists],
    lists: &mut HashMap<String, (bool, Vec<Node>)>,
    problems: &mut Problems,
) -> Option<()> {
    let name = text(item, "the name of a document of lists", problems)?;
    let Some(found) = library.iter().find(|lists| lists.name == name) else {
        let problem = Problem::new(&item.at, format!("no document of lists is called {}", quoted(name)));
        let known = library.iter().map(|lists| lists.name.as_str());
        problems.push(match did_you_mean(name, known.clone()) {
            Some(meant) => problem.help(format!("write `{meant}`")),
            None if library.is_empty() => problem.help("put a file of `kind: Lists` into the same directory"),
            None => problem.help(format!("write {}", one_of(known.take(12)))),
        });
        return None;
    };
    for (list, entries) in &found.lists {
        if lists.insert(list.clone(), (true, entries.clone())).is_some() {
            problems.push(
                Problem::new(&item.at, format!("another document that is included has a list `{list}` as well"))
                    .help("rename one, or define the list under `spec.lists`"),
            );
        }
    }
    Some(())
}

struct Expansion<'a> {
    lists: &'a HashMap<String, (bool, Vec<Node>)>,
    /// Values that may still be put in.
    left: usize,
    problems: &'a mut Problems,
}

impl Expansion<'_> {
    /// A list of mappings, each without the fields whose text is for people.
    fn items(&mut self, node: &mut Node, prose: &[&str]) {
        let Value::List(items) = &mut node.value else { return };
        for item in items {
            let Value::Map(entries) = &mut item.value else { continue };
            for (_, node) in entries.iter_mut().filter(|(key, _)| !prose.contains(&&*key.name)) {
                self.field(node);
            }
        }
    }

    /// The value of a field, which may be a list by its name.
    fn field(&mut self, node: &mut Node) {
        match self.entries_of(node) {
            Some(entries) => node.value = Value::List(entries),
            None => self.walk(node),
        }
    }

    fn walk(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| self.field(node)),
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
        if self.problems.len() > ENOUGH || self.left == 0 {
            return None;
        }
        let Some((is_included, entries)) = self.lists.get(name) else {
            self.problems.push(unknown(name, node, self.lists.keys().map(String::as_str)));
            return None;
        };
        // Before anything is copied.
        let nodes: usize = entries.iter().map(count).sum();
        let Some(left) = self.left.checked_sub(nodes) else {
            self.problems.push(
                Problem::new(&node.at, format!("the lists make this document larger than {MAX_NODES} values"))
                    .help("split it"),
            );
            self.left = 0;
            return None;
        };
        self.left = left;
        let placed = |entry: &Node| if *is_included { moved(entry, &node.at) } else { entry.clone() };
        Some(entries.iter().map(placed).collect())
    }
}

/// Values in a tree.
fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| count(node)).sum(),
        _ => 0,
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
