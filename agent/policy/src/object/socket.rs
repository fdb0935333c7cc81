//! `socket`: a socket was made whose traffic no hook sees.

use super::{Kind, When, holds};
use crate::facts::{Facts, Object};
use crate::fields::{Fields, Problems, many, text};
use crate::occurrence::OwnedObject;
use crate::problem::{Problem, did_you_mean, one_of, quoted};
use crate::shape::{Field, Holds, Shape, optional, required};
use crate::template::Placeholder;
use crate::yaml::Node;

pub(crate) const MATCH: &[Field] =
    &[optional("socket", Holds::One(&SHAPE), "a socket was made whose traffic is not seen")];
pub(crate) const EVENT: &[Field] =
    &[optional("socket", Holds::One(&EVENT_SHAPE), "a socket was made whose traffic is not seen")];

pub(crate) static KIND: Kind = Kind { name: "socket", placeholders: &[Placeholder::Family], read, read_event };

/// Families of sockets that are told when they are made; `AF_INET` and `AF_INET6` are raw ones, since others connect.
const FAMILIES: &[&str] = &["AF_INET", "AF_INET6", "AF_PACKET", "AF_RDS", "AF_TIPC", "AF_VSOCK", "AF_SMC", "AF_XDP"];

static SHAPE: Shape = Shape {
    what: "`socket`",
    about: "A socket was made whose traffic is not seen: raw, packet, vsock, and the like.",
    fields: &[&[required(
        "family",
        Holds::Words(families),
        "its address family; `AF_INET` and `AF_INET6` mean raw sockets",
    )]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`socket`",
    about: "A socket that was made.",
    fields: &[&[required("family", Holds::Word(families), "its address family")]],
};

fn families() -> Vec<&'static str> {
    FAMILIES.to_vec()
}

#[derive(Debug, Clone)]
pub(crate) struct SocketRule {
    families: Vec<String>,
}

impl SocketRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Object::Socket { family } = &facts.object else { return Err("socket") };
        holds("family", self.families.iter().any(|one| one == family))
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let families = many(fields.get("family")?, "`family`", problems, family)?;
    Some(When::Socket(SocketRule { families }))
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    Some(OwnedObject::Socket { family: family(fields.get("family")?, problems)? })
}

fn family(node: &Node, problems: &mut Problems) -> Option<String> {
    let given = text(node, "a family", problems)?;
    if FAMILIES.contains(&given) {
        return Some(given.to_owned());
    }
    let problem = Problem::new(&node.at, format!("{} is not a family of sockets", quoted(given)));
    problems.push(match did_you_mean(given, FAMILIES.iter().copied()) {
        Some(meant) => problem.help(format!("write `{meant}`")),
        None => problem.help(format!("write {}", one_of(FAMILIES.iter().copied()))),
    });
    None
}
