//! `exec`: a program began to run.

use super::{AFTER_READING_FIELD, AfterReading, Kind, When, holds, optional_globs, says_nothing};
use crate::facts::{Facts, Object};
use crate::fields::{Fields, Problems, boolean, text};
use crate::occurrence::OwnedObject;
use crate::pattern::Globs;
use crate::shape::{Field, Holds, Shape, optional, required};
use crate::template::Placeholder;
use crate::yaml::Node;

pub(crate) const MATCH: &[Field] = &[optional("exec", Holds::One(&SHAPE), "a program began to run")];
pub(crate) const EVENT: &[Field] = &[optional("exec", Holds::One(&EVENT_SHAPE), "a program began to run")];

pub(crate) static KIND: Kind = Kind { name: "exec", placeholders: &[Placeholder::Path], read, read_event };

static SHAPE: Shape = Shape {
    what: "`exec`",
    about: "A program began to run. The subject is the process as it is from then on: its `exe` is the program's.",
    fields: &[&[
        optional("path", Holds::Texts, "the program's path matches a glob"),
        optional("notPath", Holds::Texts, "the program's path matches none of these globs"),
        optional("nameless", Holds::Bool, "the file has no name any more, or never had one: removed, or a memfd"),
        AFTER_READING_FIELD,
    ]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`exec`",
    about: "A program that began to run.",
    fields: &[&[
        required("path", Holds::Text, "its path"),
        optional("nameless", Holds::Bool, "whether its file has no name"),
    ]],
};

#[derive(Debug, Clone)]
pub(crate) struct ExecRule {
    path: Option<Globs>,
    not_path: Option<Globs>,
    nameless: Option<bool>,
    pub(super) after_reading: Option<AfterReading>,
}

impl ExecRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Object::Exec { path, is_nameless } = &facts.object else { return Err("exec") };
        holds("path", self.path.as_ref().is_none_or(|globs| globs.matches(path)))?;
        holds("notPath", !self.not_path.as_ref().is_some_and(|globs| globs.matches(path)))?;
        holds("nameless", self.nameless.is_none_or(|wanted| wanted == *is_nameless))?;
        AfterReading::holds(&self.after_reading, facts)
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let before = problems.len();
    let path = optional_globs(&fields, "path", Globs::of_files, problems);
    let not_path = optional_globs(&fields, "notPath", Globs::of_files, problems);
    let nameless = fields.get("nameless").and_then(|node| boolean(node, "`nameless`", problems));
    let after_reading = AfterReading::read(&fields, problems);
    if !SHAPE.names().any(|name| fields.get(name).is_some()) {
        problems.push(says_nothing(&fields, "`exec`", "name a `path`, or what was read before with `afterReading`"));
    }
    let rule = ExecRule { path, not_path, nameless, after_reading: after_reading? };
    (problems.len() == before).then_some(When::Exec(rule))
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    let is_nameless = fields.get("nameless").and_then(|node| boolean(node, "`nameless`", problems)).unwrap_or(false);
    let path = text(fields.get("path")?, "a path", problems)?.as_bytes().to_vec();
    Some(OwnedObject::Exec { path, is_nameless })
}
