//! Text → tree of nodes that know their place.
//!
//! Syntax only: what the fields mean is decided in `parse`. The tree is generic so that every mistake of a file can be
//! reported at once; a derived `Deserialize` would stop at the first. Bounds on hostile input (size, depth, aliases)
//! are set here.

use std::fmt;
use std::ops::Range;
use std::string::FromUtf8Error;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{AliasLimits, DuplicateKeyPolicy, MergeKeyPolicy};
use serde_yaml::{Error, Location, Options, Spanned};

use crate::problem::{InvalidPolicy, Problem};

/// A policy file larger than this is refused unread.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 16;
const MAX_NODES: usize = 100_000;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Bytes of the source.
    pub(crate) at: Range<usize>,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order written, twins included.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) at: Range<usize>,
    pub(crate) name: String,
}

impl Node {
    /// The values without their places, the fields of mappings sorted: two nodes that say the same are written the same.
    pub(crate) fn written(&self) -> String {
        match &self.value {
            Value::List(items) => format!("[{}]", items.iter().map(Self::written).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let mut fields: Vec<String> =
                    entries.iter().map(|(key, node)| format!("{:?}:{}", key.name, node.written())).collect();
                fields.sort();
                format!("{{{}}}", fields.join(","))
            }
            Value::Text(text) => format!("{text:?}"),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null => "null".to_owned(),
        }
    }
}

impl Value {
    /// What this is, for the sentence "expected a list, found …".
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "a number",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads one document.
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    if text.len() > MAX_DOCUMENT_BYTES {
        let message = format!("the file is {} bytes long; a policy may have {MAX_DOCUMENT_BYTES}", text.len());
        return Err(Problem::new(&(0..0), message).label("too long").help("split it into several files"));
    }
    if text.trim().is_empty() {
        return Err(Problem::new(&(0..0), "the file is empty").help("see docs/policies.md for a first policy"));
    }
    serde_yaml::from_str_with_options(text, options()).map_err(|error| syntax_problem(text, &error))
}

fn options() -> Options {
    let mut budget = serde_yaml::Budget::default();
    budget.max_depth = MAX_DEPTH;
    budget.max_nodes = MAX_NODES;
    budget.max_documents = 2;
    budget.max_total_scalar_bytes = 4 * MAX_DOCUMENT_BYTES;
    let mut alias_limits = AliasLimits::default();
    alias_limits.max_total_replayed_events = MAX_NODES;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.alias_limits = alias_limits;
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    options.merge_keys = MergeKeyPolicy::Error;
    options.strict_booleans = true;
    options.with_snippet = false;
    options
}

/// The parser's complaint in our words where we know better what to write.
fn syntax_problem(text: &str, error: &Error) -> Problem {
    let mut error = error.without_snippet();
    // Where it happened below an alias, the cause says more.
    while let Error::AliasError { error: cause, .. } = error {
        error = cause;
    }
    let at = error.location().map_or(0..0, |location| bytes_of(text, &location));
    if let Some(tab) = indenting_tab(text, at.start) {
        return Problem::new(&(tab..tab + 1), "a tab indents this line; YAML forbids it")
            .label("tab")
            .help("indent with spaces");
    }
    match error {
        Error::MultipleDocuments { .. } => {
            Problem::new(&at, "a second document begins here; a file holds one").help("move it to a file of its own")
        }
        Error::MergeKeyNotAllowed { .. } => {
            Problem::new(&at, "merge keys (`<<`) are not part of the policy language").help("write the fields out")
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            let message = "the document is too deep, too large or repeats itself too often through aliases";
            Problem::new(&at, message)
                .help(format!("stay within {MAX_DEPTH} levels and {MAX_NODES} values; write aliases out"))
        }
        other => Problem::new(&at, format!("this is not valid YAML: {}", first_line(&other.render()))),
    }
}

/// The mistake of a file that is not text; what is text up to there is shown.
pub(crate) fn not_utf8(name: &str, error: &FromUtf8Error) -> InvalidPolicy {
    let valid = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let problem = Problem::new(&(valid..valid + char::REPLACEMENT_CHARACTER.len_utf8()), "the file is not UTF-8");
    InvalidPolicy::new(name, &text, vec![problem.label("not a character").help("save it as UTF-8")])
}

/// A tab in the indentation of the line of `near`, or of the next one, where the parser stumbled.
fn indenting_tab(text: &str, near: usize) -> Option<usize> {
    let near = text.floor_char_boundary(near.min(text.len()));
    let mut start = text[..near].rfind('\n').map_or(0, |end| end + 1);
    for line in text[start..].split_inclusive('\n').take(2) {
        let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = line[..indentation].find('\t') {
            return Some(start + tab);
        }
        start += line.len();
    }
    None
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    // The place is drawn beside it.
    line.split(" at line ").next().unwrap_or(line).to_owned()
}

/// The place of a node as bytes of the source; a parser that gives no byte offsets gives line and column.
fn bytes_of(text: &str, location: &Location) -> Range<usize> {
    let span = location.span();
    if let (Some(start), Some(length)) = (span.byte_offset(), span.byte_len()) {
        let start = usize::try_from(start).unwrap_or(usize::MAX).min(text.len());
        let length = usize::try_from(length).unwrap_or(0);
        return start..start.saturating_add(length).min(text.len());
    }
    let line = usize::try_from(location.line()).unwrap_or(1).max(1) - 1;
    let column = usize::try_from(location.column()).unwrap_or(1).max(1) - 1;
    let start_of_line: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let offset: usize = text[start_of_line..].chars().take(column).map(char::len_utf8).sum();
    start_of_line + offset..start_of_line + offset
}

/// As [`bytes_of`], where the text is not at hand; places of values always come with byte offsets.
fn bytes_of_value(location: &Location) -> Range<usize> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset().unwrap_or(0)).unwrap_or(0);
    let length = usize::try_from(span.byte_len().unwrap_or(0)).unwrap_or(0);
    start..start.saturating_add(length)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: bytes_of_value(&spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { at: bytes_of_value(&spanned.referenced), name: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}
