//! `memory`: the memory of a process that has read watched files, or of plumbline itself, was reached into.

use super::{Kind, When, holds};
use crate::facts::{Facts, MemoryHow, Object};
use crate::fields::{Fields, Problems, many, word};
use crate::occurrence::OwnedObject;
use crate::shape::{Field, Holds, Shape, required, words};
use crate::template::Placeholder;
use crate::yaml::Node;

pub(crate) const MATCH: &[Field] = &[crate::shape::optional(
    "memory",
    Holds::One(&SHAPE),
    "the memory of a reader of watched files, or of plumbline, was reached into",
)];
pub(crate) const EVENT: &[Field] = &[crate::shape::optional(
    "memory",
    Holds::One(&EVENT_SHAPE),
    "the memory of a reader of watched files, or of plumbline, was reached into",
)];

pub(crate) static KIND: Kind = Kind { name: "memory", placeholders: &[Placeholder::How], read, read_event };

const HOW_ABOUT: &str = "`attach` (it asked for the rights of a debugger), `process_vm_readv`, `ptrace` or `proc_mem` \
                         (`/proc/PID/mem` was opened)";

static SHAPE: Shape = Shape {
    what: "`memory`",
    about: "The memory of a process that has read watched files, or of plumbline itself, was reached into by another.",
    fields: &[&[required("how", Holds::Words(words::<MemoryHow>), HOW_ABOUT)]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`memory`",
    about: "How it was reached into.",
    fields: &[&[required("how", Holds::Word(words::<MemoryHow>), HOW_ABOUT)]],
};

#[derive(Debug, Clone)]
pub(crate) struct MemoryRule {
    how: Vec<MemoryHow>,
}

impl MemoryRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Object::Memory { how } = &facts.object else { return Err("memory") };
        holds("how", self.how.contains(how))
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let how = many(fields.get("how")?, "`how`", problems, |item, problems| word(item, "a way", problems))?;
    Some(When::Memory(MemoryRule { how }))
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    Some(OwnedObject::Memory { how: word(fields.get("how")?, "a way", problems)? })
}
