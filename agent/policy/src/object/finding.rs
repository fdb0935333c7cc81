//! `finding`: something is wrong with a part of the node, or with the evidence itself.
//!
//! What makes a finding, and from which value on, is data of the rule that finds it; a policy only says what is to be done.

use super::{Kind, When, holds, says_nothing};
use crate::facts::{Facts, Object};
use crate::fields::{Fields, Problems, many, optional_text, text, word};
use crate::occurrence::OwnedObject;
use crate::pattern::Globs;
use crate::policy::Severity;
use crate::problem::{Problem, did_you_mean, one_of, quoted};
use crate::shape::{Field, Holds, Shape, optional, required, words};
use crate::subject::globs;
use crate::template::Placeholder;
use crate::yaml::Node;

pub(crate) const MATCH: &[Field] =
    &[optional("finding", Holds::One(&SHAPE), "something is wrong with a part of the node")];
pub(crate) const EVENT: &[Field] =
    &[optional("finding", Holds::One(&EVENT_SHAPE), "something is wrong with a part of the node")];

pub(crate) static KIND: Kind = Kind {
    name: "finding",
    placeholders: &[Placeholder::FindingKind, Placeholder::Severity, Placeholder::Entity, Placeholder::Text],
    read,
    read_event,
};

/// Every kind of finding, and what it says. `evidence.*` are the daemon's own records of those kinds.
pub const FINDINGS: &[(&str, &str)] = &[
    ("evidence.loss", "events were lost, and how many"),
    ("evidence.gap", "nobody watched for a while"),
    ("evidence.stop", "the daemon stops"),
    ("evidence.hook", "a hook of the kernel does not see what it is for"),
    ("evidence.disk", "the log has little or no room"),
    ("evidence.clock", "the wall clock was set"),
    ("incident.begin", "somebody or something began an incident: what changes fast is looked at more often"),
    ("incident.end", "an incident is over"),
    ("cuda.failure", "a call of CUDA's driver failed, the first of a process with this result"),
    ("nccl.communicator", "a process is a member of a communicator of NCCL now"),
    ("nccl.communicator.end", "a process has ended a communicator, or given it up (`ncclCommAbort`)"),
    (
        "nccl.async_error",
        "NCCL says of a communicator that something went wrong, the first of a process with this result",
    ),
    ("nccl.warning", "NCCL wrote a warning into its log, the first of a process at this place of its source"),
    ("nccl.ras.lost", "NCCL's RAS says that a rank is dead, has failed, or does not answer"),
    ("nccl.ras.stuck", "NCCL's RAS says that a rank has called fewer collectives than another, and none for a minute"),
    ("nccl.ras.stuck.end", "it goes on or ends, or RAS tells of it no more"),
    ("nccl.late_rank", "a rank of a communicator comes last again and again, and holds the others up"),
    ("nccl.late_rank.end", "it does not any more"),
    (
        "nccl.awaited",
        "a rank of a communicator has not come to a collective for a minute, and others of the node wait for it",
    ),
    ("nccl.awaited.end", "it has come"),
    ("probes.detail", "somebody changed how much of CUDA's calls is counted"),
    (
        "probes.budget",
        "probes of CUDA's calls cost a process more than they may, and less is looked at; or all is again",
    ),
    ("gpu.lost", "a GPU fell off the bus, as its driver says"),
    ("gpu.xid", "a GPU's driver told an error number (XID); those that a program causes are low"),
    ("gpu.nvswitch", "the driver told an error number of an NVSwitch (SXID)"),
    ("gpu.mig", "the MIG configuration of a GPU was changed"),
    ("gpu.silent", "a GPU does not answer any more, and its driver does not say why"),
    ("gpu.driver", "another driver of GPUs was loaded"),
    ("gpu.release", "the GPUs are not read any more because somebody said so, or are read again"),
    ("gpu.row_remap_failure", "a GPU could not replace a bad row of its memory"),
    ("gpu.recovery_action", "a GPU's driver wants it reset, drained or the node rebooted"),
    ("gpu.nvlink", "an NVLink of a GPU went down"),
    ("gpu.nvlink_recovery", "an NVLink of a GPU had to be trained anew while work went on"),
    ("gpu.ecc", "a GPU counted memory errors that it could not correct"),
    ("gpu.thermal", "a GPU was slowed down because it was too hot"),
    ("gpu.thermal.end", "it is not any more, and how long it was"),
    ("gpu.power", "a GPU was held down by its power limit"),
    ("gpu.power.end", "it is not any more, and how long it was"),
    ("gpu.clock_drop", "the clock of a busy GPU fell below what it lately ran at"),
];

static SHAPE: Shape = Shape {
    what: "`finding`",
    about: "Something is wrong with a part of the node, or with the evidence itself. No process made it, so that `subject` \
            and fields of processes hold for none.",
    fields: &[&[
        optional("kind", Holds::Texts, "its kind matches a glob, such as `gpu.*`"),
        optional("atLeast", Holds::Word(words::<Severity>), "it is as severe as this, or more"),
        optional("entity", Holds::Texts, "the part matches a glob, such as a GPU's UUID"),
    ]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`finding`",
    about: "Something that is wrong.",
    fields: &[&[
        required("kind", Holds::Text, "its kind"),
        required("severity", Holds::Word(words::<Severity>), "how bad it is"),
        optional("entity", Holds::Text, "the part that it is about"),
        optional("text", Holds::Text, "it in one sentence"),
    ]],
};

#[derive(Debug, Clone)]
pub(crate) struct FindingRule {
    kind: Option<Globs>,
    at_least: Option<Severity>,
    entity: Option<Globs>,
}

impl FindingRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Object::Finding { kind, severity, entity, .. } = &facts.object else { return Err("finding") };
        holds("kind", self.kind.as_ref().is_none_or(|globs| globs.matches(kind.as_bytes())))?;
        holds("atLeast", self.at_least.is_none_or(|least| *severity >= least))?;
        holds("entity", self.entity.as_ref().is_none_or(|globs| globs.matches(entity.as_bytes())))
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let before = problems.len();
    let kind = fields.get("kind").and_then(|node| kinds(node, problems));
    let at_least = fields.get("atLeast").and_then(|node| word(node, "a severity", problems));
    let entity = fields.get("entity").and_then(|node| globs(node, "`entity`", Globs::of_words, problems));
    if !["kind", "atLeast", "entity"].iter().any(|name| fields.get(name).is_some()) {
        problems.push(says_nothing(&fields, "`finding`", "name a `kind`, or how severe it has to be with `atLeast`"));
    }
    (problems.len() == before).then_some(When::Finding(FindingRule { kind, at_least, entity }))
}

/// Globs of kinds, each of which fits a kind that there is.
fn kinds(node: &Node, problems: &mut Problems) -> Option<Globs> {
    let found = globs(node, "`kind`", Globs::of_words, problems)?;
    many(node, "`kind`", problems, |item, problems| {
        let given = text(item, "a kind", problems)?;
        let one = Globs::of_words(&[(given, item.at.clone())]).ok()?;
        if FINDINGS.iter().any(|(kind, _)| one.matches(kind.as_bytes())) {
            return Some(());
        }
        problems.push(unknown(given, item));
        None
    })?;
    Some(found)
}

fn unknown(given: &str, node: &Node) -> Problem {
    let known = || FINDINGS.iter().map(|(kind, _)| *kind);
    let problem = Problem::new(&node.at, format!("there is no finding of kind {}", quoted(given)));
    match did_you_mean(given, known()) {
        Some(meant) => problem.help(format!("write `{meant}`")),
        None => problem.help(format!("write {}", one_of(known()))),
    }
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    let severity = fields.get("severity").and_then(|node| word(node, "a severity", problems));
    let entity = optional_text(&fields, "entity", problems).unwrap_or_default();
    let words = optional_text(&fields, "text", problems).unwrap_or_default();
    let node = fields.get("kind")?;
    let kind = text(node, "a kind", problems)?;
    if !FINDINGS.iter().any(|(known, _)| *known == kind) {
        problems.push(unknown(kind, node));
        return None;
    }
    Some(OwnedObject::Finding { kind: kind.to_owned(), severity: severity?, entity, text: words })
}
