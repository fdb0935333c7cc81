//! `device`: a device node was opened that leads to a GPU, or around what is watched.

use super::{Kind, When, holds, optional_globs};
use crate::facts::{DeviceKind, Facts, Object};
use crate::fields::{Fields, Problems, many, text, word};
use crate::occurrence::OwnedObject;
use crate::pattern::Globs;
use crate::shape::{Field, Holds, Shape, optional, required, words};
use crate::template::Placeholder;
use crate::yaml::Node;

pub(crate) const MATCH: &[Field] = &[optional("device", Holds::One(&SHAPE), "a device node was opened")];
pub(crate) const EVENT: &[Field] = &[optional("device", Holds::One(&EVENT_SHAPE), "a device node was opened")];

pub(crate) static KIND: Kind = Kind { name: "device", placeholders: &[Placeholder::Path], read, read_event };

const KINDS_ABOUT: &str = "`gpu` (`/dev/nvidia*`), `block` (the disk that watched files lie on) or `bypass` (RDMA verbs, GPUDirect \
                           Storage)";

static SHAPE: Shape = Shape {
    what: "`device`",
    about: "A device node was opened.",
    fields: &[&[
        required("kind", Holds::Words(words::<DeviceKind>), KINDS_ABOUT),
        optional("path", Holds::Texts, "its path matches a glob"),
    ]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`device`",
    about: "A device node that was opened.",
    fields: &[&[
        required("kind", Holds::Word(words::<DeviceKind>), KINDS_ABOUT),
        required("path", Holds::Text, "its path"),
    ]],
};

#[derive(Debug, Clone)]
pub(crate) struct DeviceRule {
    kinds: Vec<DeviceKind>,
    path: Option<Globs>,
}

impl DeviceRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Object::Device { kind, path } = &facts.object else { return Err("device") };
        holds("kind", self.kinds.contains(kind))?;
        holds("path", self.path.as_ref().is_none_or(|globs| globs.matches(path)))
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let before = problems.len();
    let path = optional_globs(&fields, "path", Globs::of_files, problems);
    let kinds =
        many(fields.get("kind")?, "`kind`", problems, |item, problems| word(item, "a kind of device", problems))?;
    (problems.len() == before).then_some(When::Device(DeviceRule { kinds, path }))
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    let kind = fields.get("kind").and_then(|node| word(node, "a kind of device", problems));
    let path = text(fields.get("path")?, "a path", problems)?.as_bytes().to_vec();
    Some(OwnedObject::Device { kind: kind?, path })
}
