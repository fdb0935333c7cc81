//! What was done, to what: one file per kind of object.
//!
//! A kind has a mapping under `match`, another under a test's `event`, and placeholders of its own. Adding one is its
//! file, its variant in [`When`] and [`crate::Object`], and its line in [`MATCH`], [`EVENT_FIELDS`] and [`KINDS`].

mod bpf;
pub(crate) mod connect;
mod device;
mod exec;
pub(crate) mod file;
pub(crate) mod finding;
mod local;
mod memory;
mod socket;

use std::ops::Range;

use crate::facts::{Facts, Taken};
use crate::fields::{Fields, Problems, each, list, text};
use crate::occurrence::OwnedObject;
use crate::pattern::{Globs, WatchPath};
use crate::problem::Problem;
use crate::shape::{Field, Holds, Shape, optional, required};
use crate::subject::globs;
use crate::template::Placeholder;
use crate::yaml::{Node, Value};

pub(crate) static MATCH: Shape = Shape {
    what: "`match`",
    about: "What the rule speaks of: exactly one kind of object.",
    fields: &[
        file::MATCH,
        connect::MATCH,
        exec::MATCH,
        device::MATCH,
        memory::MATCH,
        bpf::MATCH,
        local::MATCH,
        socket::MATCH,
        finding::MATCH,
    ],
};

pub(crate) const EVENT_FIELDS: &[&[Field]] = &[
    file::EVENT,
    connect::EVENT,
    exec::EVENT,
    device::EVENT,
    memory::EVENT,
    bpf::EVENT,
    local::EVENT,
    socket::EVENT,
    finding::EVENT,
];

/// How a kind of object is read.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// What its events fill besides what every process does.
    pub(crate) placeholders: &'static [Placeholder],
    pub(crate) read: fn(&Node, &mut Problems) -> Option<When>,
    pub(crate) read_event: fn(&Node, &mut Problems) -> Option<OwnedObject>,
}

pub(crate) static KINDS: [&Kind; 9] = [
    &file::KIND,
    &connect::KIND,
    &exec::KIND,
    &device::KIND,
    &memory::KIND,
    &bpf::KIND,
    &local::KIND,
    &socket::KIND,
    &finding::KIND,
];

impl Kind {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().copied().find(|kind| kind.name == name)
    }
}

/// The events a rule speaks of.
#[derive(Debug, Clone)]
pub(crate) enum When {
    File(file::FileRule),
    Connect(connect::ConnectRule),
    Exec(exec::ExecRule),
    Device(device::DeviceRule),
    Memory(memory::MemoryRule),
    Bpf(bpf::BpfRule),
    Local(local::LocalRule),
    Socket(socket::SocketRule),
    Finding(finding::FindingRule),
}

impl When {
    /// Reads the one object that `match` names.
    pub(crate) fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::of(node, &MATCH, problems)?;
        let names: Vec<&'static str> = MATCH.names().collect();
        let (name, node) = fields.exactly_one(&names, problems)?;
        (Kind::find(name)?.read)(node, problems)
    }

    pub(crate) fn kind(&self) -> &'static Kind {
        match self {
            Self::File(_) => &file::KIND,
            Self::Connect(_) => &connect::KIND,
            Self::Exec(_) => &exec::KIND,
            Self::Device(_) => &device::KIND,
            Self::Memory(_) => &memory::KIND,
            Self::Bpf(_) => &bpf::KIND,
            Self::Local(_) => &local::KIND,
            Self::Socket(_) => &socket::KIND,
            Self::Finding(_) => &finding::KIND,
        }
    }

    /// Whether the event is one of those; `Err` names the first field that does not hold.
    pub(crate) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        match self {
            Self::File(rule) => rule.covers(facts),
            Self::Connect(rule) => rule.covers(facts),
            Self::Exec(rule) => rule.covers(facts),
            Self::Device(rule) => rule.covers(facts),
            Self::Memory(rule) => rule.covers(facts),
            Self::Bpf(rule) => rule.covers(facts),
            Self::Local(rule) => rule.covers(facts),
            Self::Socket(rule) => rule.covers(facts),
            Self::Finding(rule) => rule.covers(facts),
        }
    }

    pub(crate) fn after_reading(&self) -> Option<&AfterReading> {
        match self {
            Self::Connect(rule) => rule.after_reading.as_ref(),
            Self::Exec(rule) => rule.after_reading.as_ref(),
            Self::Local(rule) => rule.after_reading.as_ref(),
            _ => None,
        }
    }

    /// The directories that it wants watched.
    pub(crate) fn watched(&self) -> &[WatchPath] {
        match self {
            Self::File(rule) => &rule.watched.watch,
            other => other.after_reading().map_or(&[], |read| &read.watched.watch),
        }
    }

    /// Everything that a message may name.
    pub(crate) fn placeholders(&self) -> Vec<Placeholder> {
        let read = self.after_reading().map(|_| Placeholder::Read);
        let of_process = if matches!(self, Self::Finding(_)) { &[][..] } else { Placeholder::OF_PROCESSES };
        of_process.iter().chain(self.kind().placeholders).copied().chain(read).collect()
    }
}

/// Directories, and the names at or below them.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) watch: Vec<WatchPath>,
    covered: Globs,
}

impl Watched {
    /// Directories to watch.
    pub(crate) fn read(node: &Node, what: &str, problems: &mut Problems) -> Option<Self> {
        let items = list(node, what, problems)?;
        let watch = each(items, problems, |item, problems| {
            let text = text(item, "a watched directory", problems)?;
            WatchPath::parse(text, &item.at).map_err(|problem| problems.push(problem)).ok()
        })?
        .concat();
        let covered = Globs::covered_by(&watch).map_err(|error| {
            problems.push(Problem::new(&node.at, format!("the directories cannot be compiled: {error}")));
        });
        Some(Self { watch, covered: covered.ok()? })
    }

    /// Globs of what lies at or below the directories.
    pub(crate) fn patterns(&self) -> &[String] {
        self.covered.patterns()
    }

    pub(crate) fn contains(&self, path: &[u8]) -> bool {
        self.covered.matches(path)
    }

    /// Whether all that lies below the directories of `other` lies below these.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.covered.covers(&other.covered)
    }
}

static AFTER_READING: Shape = Shape {
    what: "`afterReading`",
    about: "Files that the process, or another of its tree, has read before. A list of directories is short for `watch`.",
    fields: &[&[
        required("watch", Holds::TextList, "directories; each covers all that lies below it"),
        optional("path", Holds::Texts, "the file's path matches a glob"),
    ]],
};

pub(crate) const AFTER_READING_FIELD: Field = optional(
    "afterReading",
    Holds::TextListOr(&AFTER_READING),
    "the rule matches only when the process, or another of its tree, has read a file below one of these directories",
);

/// Files that must have been read before.
#[derive(Debug, Clone)]
pub(crate) struct AfterReading {
    pub(crate) watched: Watched,
    path: Option<Globs>,
}

impl AfterReading {
    pub(crate) fn read(fields: &Fields<'_>, problems: &mut Problems) -> Option<Option<Self>> {
        let Some(node) = fields.get("afterReading") else { return Some(None) };
        if !matches!(node.value, Value::Map(_)) {
            return Some(Some(Self { watched: Watched::read(node, "`afterReading`", problems)?, path: None }));
        }
        let fields = Fields::of(node, &AFTER_READING, problems)?;
        let before = problems.len();
        let path = fields.get("path").and_then(|node| globs(node, "`path`", Globs::of_files, problems));
        let watched = Watched::read(fields.get("watch")?, "`watch`", problems)?;
        (problems.len() == before).then_some(Some(Self { watched, path }))
    }

    pub(crate) fn holds(this: &Option<Self>, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Some(this) = this else { return Ok(()) };
        let has = |taken: &Taken<'_>| {
            // A file whose name nobody told lies where its watched directory is.
            let below = [taken.watched, taken.path].into_iter().flatten().any(|path| this.watched.contains(path));
            below && this.path.as_ref().is_none_or(|path| taken.path.is_none_or(|name| path.matches(name)))
        };
        if facts.subject.has_read.iter().any(has) { Ok(()) } else { Err("afterReading") }
    }
}

/// `Ok` where it holds, else the field's name.
pub(crate) fn holds(name: &'static str, is_so: bool) -> Result<(), &'static str> {
    if is_so { Ok(()) } else { Err(name) }
}

/// A field of globs that may be left out; `Err` where it was wrong, which was noted.
pub(crate) fn optional_globs(
    fields: &Fields<'_>,
    name: &'static str,
    read: crate::subject::ReadGlobs,
    problems: &mut Problems,
) -> Option<Globs> {
    globs(fields.get(name)?, &format!("`{name}`"), read, problems)
}

/// The place of a mapping that says too little.
pub(crate) fn says_nothing(fields: &Fields<'_>, what: &str, help: &str) -> Problem {
    let at: &Range<usize> = &fields.at;
    Problem::new(at, format!("{what} would match every event of its kind")).help(help)
}
