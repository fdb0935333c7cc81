//! `file`: something was done to a watched file.

use super::{Kind, Watched, When, holds, optional_globs};
use crate::facts::{Access, Accesses, Facts, File, Object};
use crate::fields::{Fields, Problems, boolean, integer, many, optional_text, text, word};
use crate::occurrence::OwnedObject;
use crate::pattern::Globs;
use crate::problem::Problem;
use crate::shape::{Field, Holds, Shape, optional, required, words};
use crate::template::Placeholder;
use crate::yaml::Node;

pub(crate) const MATCH: &[Field] = &[optional("file", Holds::One(&SHAPE), "something was done to a watched file")];
pub(crate) const EVENT: &[Field] =
    &[optional("file", Holds::One(&EVENT_SHAPE), "something was done to a watched file")];

pub(crate) static KIND: Kind = Kind {
    name: "file",
    placeholders: &[Placeholder::Path, Placeholder::Access, Placeholder::Percent],
    read,
    read_event,
};

static SHAPE: Shape = Shape {
    what: "`file`",
    about: "Something was done to a file at or below one of these directories.",
    fields: &[&[
        required("watch", Holds::TextList, "directories; each covers all that lies below it"),
        optional(
            "access",
            Holds::Words(words::<Access>),
            "any of these was done, `[open]` by default: `open` (opened, or its descriptor received), `read` (bytes of it \
             read or mapped), `map` (reached through a mapping), `write` (bytes or length changed), `rename` (renamed or \
             replaced), `link` (one more name, or its blocks shared), `unlink` (a name less), `exec` (it runs), `change` \
             (write, rename, link or unlink)",
        ),
        optional("path", Holds::Texts, "the path matches a glob; a path that is not known counts as one that does"),
        optional("artefact", Holds::Texts, "the model repository that the path claims, `org/name`, matches a glob"),
        optional("atLeast", Holds::One(&AT_LEAST), "so much of the file was read or mapped so far"),
        optional(
            "whileServed",
            Holds::Bool,
            "another tree of processes that still runs has read the file, or that is not known",
        ),
    ]],
};

static AT_LEAST: Shape = Shape {
    what: "`atLeast`",
    about: "How much of a file was read or mapped, by the process, since it first touched the file.",
    fields: &[&[
        optional("bytes", Holds::Integer(1, u64::MAX), "bytes, repeated ones included"),
        optional("percent", Holds::Integer(1, 100), "hundredths of the file's slices that were touched"),
    ]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`file`",
    about: "Something that was done to a file.",
    fields: &[&[
        required("path", Holds::Text, "its path"),
        optional("access", Holds::Words(words::<Access>), "what was done, `open` by default"),
        optional("watched", Holds::Text, "the watched directory that led to the file when `path` does not show it"),
        optional("artefact", Holds::Text, "the model repository that the path claims"),
        optional("bytes", Holds::Integer(0, u64::MAX), "how much of it was read or mapped so far"),
        optional("percent", Holds::Integer(0, 100), "hundredths of its slices that were touched so far"),
        optional("isServed", Holds::Bool, "whether another tree of processes that lives has read it"),
    ]],
};

#[derive(Debug, Clone)]
pub(crate) struct FileRule {
    pub(crate) watched: Watched,
    pub(crate) accesses: Accesses,
    pub(crate) path: Option<Globs>,
    pub(crate) artefact: Option<Globs>,
    pub(crate) at_least: Option<AtLeast>,
    pub(crate) while_served: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct AtLeast {
    bytes: Option<u64>,
    percent: Option<u8>,
}

impl FileRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let file = match &facts.object {
            Object::File(file) => *file,
            Object::Exec { path, .. } => File { accesses: Accesses::of([Access::Exec]), path, ..File::default() },
            _ => return Err("file"),
        };
        holds("access", self.accesses.any_of(file.accesses))?;
        // Of a truncated path nobody can say that it lies elsewhere.
        let is_below = match file.watched {
            Some(watched) => {
                self.watched.contains(watched) || (!file.path_truncated && self.watched.contains(file.path))
            }
            None => file.path_truncated || self.watched.contains(file.path),
        };
        holds("watch", is_below)?;
        holds("path", file.path_truncated || self.path.as_ref().is_none_or(|path| path.matches(file.path)))?;
        let claims = |globs: &Globs| file.artefact.is_some_and(|name| globs.matches(name.as_bytes()));
        holds("artefact", self.artefact.as_ref().is_none_or(claims))?;
        if let Some(AtLeast { bytes, percent }) = self.at_least {
            holds("atLeast", bytes.is_none_or(|least| file.bytes.is_some_and(|bytes| bytes >= least)))?;
            holds("atLeast", percent.is_none_or(|least| file.percent.is_some_and(|percent| percent >= least)))?;
        }
        // Who knows no better errs towards the alert.
        holds("whileServed", !self.while_served || file.is_served != Some(false))
    }

    /// Whether this matches whatever `other` does, as far as patterns can be compared.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        let globs = |mine: &Option<Globs>, others: &Option<Globs>| match (mine, others) {
            (None, _) => true,
            (Some(mine), Some(others)) => mine.covers(others),
            (Some(_), None) => false,
        };
        self.watched.covers(&other.watched)
            && other.accesses.is_within(self.accesses)
            && globs(&self.path, &other.path)
            && globs(&self.artefact, &other.artefact)
            && self.at_least.is_none()
            && (!self.while_served || other.while_served)
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let before = problems.len();
    let accesses = accesses(&fields, problems);
    let path = optional_globs(&fields, "path", Globs::of_files, problems);
    let artefact = optional_globs(&fields, "artefact", Globs::of_images, problems);
    let at_least = fields.get("atLeast").and_then(|node| at_least(node, problems));
    let while_served = fields.get("whileServed").and_then(|node| boolean(node, "`whileServed`", problems));
    can_match(&fields, accesses, at_least, while_served, problems);
    let watched = Watched::read(fields.get("watch")?, "`watch`", problems)?;
    (problems.len() == before).then_some(When::File(FileRule {
        watched,
        accesses: accesses?,
        path,
        artefact,
        at_least,
        while_served: while_served.unwrap_or_default(),
    }))
}

/// What is asked besides must be something that such accesses tell.
fn can_match(
    fields: &Fields<'_>,
    accesses: Option<Accesses>,
    at_least: Option<AtLeast>,
    while_served: Option<bool>,
    problems: &mut Problems,
) {
    let Some(accesses) = accesses else { return };
    if at_least.is_some() && !accesses.any_of(Accesses::of([Access::Read, Access::Map])) {
        let message = "the rule can never match: how much was taken is told of what is read, and `access` is not";
        problems.push(Problem::new(fields.place("atLeast"), message).help("write `access: [read]`"));
    }
    if while_served == Some(true) && !accesses.any_of(Accesses::of([Access::Change])) {
        let message = "the rule can never match: `whileServed` is told of what is changed, and `access` is not";
        problems.push(Problem::new(fields.place("whileServed"), message).help("write `access: [change]`"));
    }
}

fn accesses(fields: &Fields<'_>, problems: &mut Problems) -> Option<Accesses> {
    let Some(node) = fields.get("access") else { return Some(Accesses::of([Access::Open])) };
    let read = many(node, "`access`", problems, |item, problems| word::<Access>(item, "a kind of access", problems))?;
    Some(Accesses::of(read))
}

fn at_least(node: &Node, problems: &mut Problems) -> Option<AtLeast> {
    let fields = crate::subject::named(node, &AT_LEAST, problems)?;
    let bytes = fields.get("bytes").map(|node| integer(node, "a number of bytes", "1 or more", problems));
    let percent = fields.get("percent").map(|node| {
        let percent = integer::<u8>(node, "a number of hundredths", "1 to 100", problems)?;
        if !(1..=100).contains(&percent) {
            problems.push(
                Problem::new(&node.at, format!("{percent} is not a number of hundredths")).help("write 1 to 100"),
            );
            return None;
        }
        Some(percent)
    });
    // Given and wrong is not the same as left out.
    Some(AtLeast {
        bytes: bytes.map_or(Some(None), |read| read.map(Some))?,
        percent: percent.map_or(Some(None), |read| read.map(Some))?,
    })
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    let mut number = |name: &str| {
        fields.get(name).and_then(|node| integer::<u64>(node, &format!("`{name}`"), "0 or more", problems))
    };
    let (bytes, percent) = (number("bytes"), number("percent"));
    Some(OwnedObject::File {
        accesses: accesses(&fields, problems)?,
        watched: optional_text(&fields, "watched", problems),
        artefact: optional_text(&fields, "artefact", problems),
        bytes,
        percent: percent.and_then(|percent| u8::try_from(percent).ok()),
        is_served: fields.get("isServed").and_then(|node| boolean(node, "`isServed`", problems)),
        path: text(fields.get("path")?, "a path", problems)?.as_bytes().to_vec(),
        path_truncated: false,
    })
}
