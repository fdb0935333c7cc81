//! `bpf`: a map, program or link of plumbline's own was reached for by `bpf(2)`.

use super::{Kind, When, holds};
use crate::facts::{BpfHow, BpfKind, Facts, Object};
use crate::fields::{Fields, Problems, many, text, word};
use crate::occurrence::OwnedObject;
use crate::shape::{Field, Holds, Shape, optional, required, words};
use crate::template::Placeholder;
use crate::yaml::Node;

const ABOUT: &str = "plumbline's own maps, programs or links in the kernel were reached for";

pub(crate) const MATCH: &[Field] = &[optional("bpf", Holds::One(&SHAPE), ABOUT)];
pub(crate) const EVENT: &[Field] = &[optional("bpf", Holds::One(&EVENT_SHAPE), ABOUT)];

pub(crate) static KIND: Kind =
    Kind { name: "bpf", placeholders: &[Placeholder::How, Placeholder::Object], read, read_event };

const HOW_ABOUT: &str = "`open` (a descriptor was got by its number, as tools do that only look) or `change` (what it holds was \
                         changed, or it was taken away)";
const KIND_ABOUT: &str = "`map`, `program` or `link`";

static SHAPE: Shape = Shape {
    what: "`bpf`",
    about: "A map, program or link of plumbline's own was reached for by `bpf(2)`, by another process.",
    fields: &[&[
        required("how", Holds::Words(words::<BpfHow>), HOW_ABOUT),
        optional("kind", Holds::Words(words::<BpfKind>), KIND_ABOUT),
    ]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`bpf`",
    about: "What was reached for.",
    fields: &[&[
        required("how", Holds::Word(words::<BpfHow>), HOW_ABOUT),
        required("kind", Holds::Word(words::<BpfKind>), KIND_ABOUT),
        optional("name", Holds::Text, "its name in the kernel, of at most 15 bytes"),
    ]],
};

#[derive(Debug, Clone)]
pub(crate) struct BpfRule {
    how: Vec<BpfHow>,
    kinds: Option<Vec<BpfKind>>,
}

impl BpfRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Object::Bpf { kind, how, .. } = &facts.object else { return Err("bpf") };
        holds("how", self.how.contains(how))?;
        holds("kind", self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind)))
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let before = problems.len();
    let kinds = fields
        .get("kind")
        .and_then(|node| many(node, "`kind`", problems, |item, problems| word(item, "a kind of object", problems)));
    let how = many(fields.get("how")?, "`how`", problems, |item, problems| word(item, "a way", problems))?;
    (problems.len() == before).then_some(When::Bpf(BpfRule { how, kinds }))
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    let kind = fields.get("kind").and_then(|node| word(node, "a kind of object", problems));
    let how = fields.get("how").and_then(|node| word(node, "a way", problems));
    let name = match fields.get("name") {
        Some(node) => text(node, "a name", problems)?.as_bytes().to_vec(),
        None => Vec::new(),
    };
    Some(OwnedObject::Bpf { kind: kind?, name, how: how? })
}
