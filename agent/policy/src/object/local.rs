//! `local`: a reader of watched files connected to a local socket, whose server may send on what it gets.

use super::{AFTER_READING_FIELD, AfterReading, Kind, When, holds, optional_globs, says_nothing};
use crate::facts::{Facts, Object};
use crate::fields::{Fields, Problems, text};
use crate::occurrence::OwnedObject;
use crate::pattern::Globs;
use crate::shape::{Field, Holds, Shape, optional, required};
use crate::template::Placeholder;
use crate::yaml::Node;

pub(crate) const MATCH: &[Field] =
    &[optional("local", Holds::One(&SHAPE), "a reader of watched files connected to a local socket")];
pub(crate) const EVENT: &[Field] =
    &[optional("local", Holds::One(&EVENT_SHAPE), "a reader of watched files connected to a local socket")];

pub(crate) static KIND: Kind = Kind { name: "local", placeholders: &[Placeholder::Path], read, read_event };

const NAME_ABOUT: &str = "the socket's path; an abstract name begins with `@`";

static SHAPE: Shape = Shape {
    what: "`local`",
    about: "A process whose tree has read watched files connected to a local socket (`AF_UNIX`).",
    fields: &[&[
        optional("name", Holds::Texts, "the socket's name matches a glob; an abstract name begins with `@`"),
        optional("notName", Holds::Texts, "the socket's name matches none of these globs"),
        AFTER_READING_FIELD,
    ]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`local`",
    about: "A local socket that was connected to.",
    fields: &[&[required("name", Holds::Text, NAME_ABOUT)]],
};

#[derive(Debug, Clone)]
pub(crate) struct LocalRule {
    name: Option<Globs>,
    not_name: Option<Globs>,
    pub(super) after_reading: Option<AfterReading>,
}

impl LocalRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Object::Local { name } = &facts.object else { return Err("local") };
        holds("name", self.name.as_ref().is_none_or(|globs| globs.matches(name)))?;
        holds("notName", !self.not_name.as_ref().is_some_and(|globs| globs.matches(name)))?;
        AfterReading::holds(&self.after_reading, facts)
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let before = problems.len();
    let name = optional_globs(&fields, "name", Globs::of_sockets, problems);
    let not_name = optional_globs(&fields, "notName", Globs::of_sockets, problems);
    let after_reading = AfterReading::read(&fields, problems);
    if !SHAPE.names().any(|name| fields.get(name).is_some()) {
        problems.push(says_nothing(&fields, "`local`", "write `notName: […]` with the sockets that are allowed"));
    }
    let rule = LocalRule { name, not_name, after_reading: after_reading? };
    (problems.len() == before).then_some(When::Local(rule))
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    Some(OwnedObject::Local { name: text(fields.get("name")?, "the name of a socket", problems)?.as_bytes().to_vec() })
}
