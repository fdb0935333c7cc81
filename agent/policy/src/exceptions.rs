//! Exceptions to rules of other files: `kind: Exceptions`.
//!
//! A node adds to the allow-list of a policy that it did not write, as of the shipped ones, without a copy of it; and what
//! `plumbline policy learn` has learned is such a document, complete as it stands.

use std::ops::Range;
use std::sync::Arc;

use crate::fields::{Fields, Problems, each, list, name, text};
use crate::guard::Guarded;
use crate::parse::{API_VERSION, EXCEPTION, KINDS, METADATA, exception, version_and_kind};
use crate::policy::{Exception, Policy};
use crate::problem::{Problem, did_you_mean, one_of, quoted};
use crate::shape::{Holds, Shape, optional, required};
use crate::yaml::{Node, Value};

pub(crate) static DOCUMENT: Shape = Shape {
    what: "a document of exceptions",
    about: "Exceptions to rules of other files in the same directory.",
    fields: &[&[
        required("apiVersion", Holds::Word(API_VERSION), "`plumbline/v1`"),
        required("kind", Holds::Word(KINDS), "`Exceptions`"),
        required("metadata", Holds::One(&METADATA), "what it is called"),
        required("spec", Holds::One(&SPEC), "whom it excuses from what"),
    ]],
};

static SPEC: Shape = Shape {
    what: "`spec`",
    about: "The exceptions.",
    fields: &[&[
        optional("include", Holds::TextList, "names of documents of lists in the same directory"),
        crate::lists::FIELD,
        required("exceptions", Holds::Many(&ENTRY), "rules, and whom each excuses besides; may be empty"),
    ]],
};

pub(crate) static ENTRY: Shape = Shape {
    what: "an entry",
    about: "A rule, and whom it excuses besides.",
    fields: &[&[
        required("policy", Holds::Text, "the policy's name"),
        required("rule", Holds::Text, "the rule's name"),
        required("except", Holds::Many(&EXCEPTION), "what is added to the rule's allow-list"),
    ]],
};

/// What a document of exceptions is called, and where that stands.
pub(crate) type Named = (String, Range<usize>);

/// Adds the document's exceptions to the policies. `others_failed`: some could not be read, so that one that is missing
/// here is not a mistake of this document.
pub(crate) fn add(
    root: &Node,
    policies: &mut [Arc<Policy>],
    others_failed: bool,
    problems: &mut Problems,
) -> Option<Named> {
    let fields = Fields::of(root, &DOCUMENT, problems)?;
    version_and_kind(&fields, problems);
    let metadata = fields.get("metadata").and_then(|node| Fields::of(node, &METADATA, problems));
    let node = metadata.and_then(|fields| fields.get("name"));
    let called = node.and_then(|node| Some((name(node, problems)?.to_string(), node.at.clone())));
    let spec = fields.get("spec").and_then(|node| Fields::of(node, &SPEC, problems));
    let items = spec.and_then(|fields| fields.get("exceptions")).and_then(|node| match &node.value {
        // Nothing was learned.
        Value::List(items) if items.is_empty() => None,
        _ => list(node, "`exceptions`", problems),
    });
    for item in items.unwrap_or_default() {
        entry(item, policies, others_failed, problems);
    }
    called
}

fn entry(node: &Node, policies: &mut [Arc<Policy>], others_failed: bool, problems: &mut Problems) -> Option<()> {
    let fields = Fields::of(node, &ENTRY, problems)?;
    let (policy_node, rule_node) = (fields.get("policy")?, fields.get("rule")?);
    let policy_name = text(policy_node, "the name of a policy", problems)?;
    let rule_name = text(rule_node, "the name of a rule", problems)?;
    let Some(index) = policies.iter().position(|policy| *policy.name == *policy_name) else {
        if !others_failed {
            problems.push(unknown("policy", policy_name, policy_node, policies.iter().map(|policy| &*policy.name)));
        }
        return None;
    };
    let policy = Arc::make_mut(&mut policies[index]);
    let Some(at) = policy.rules.iter().position(|rule| *rule.name == *rule_name) else {
        problems.push(unknown("rule", rule_name, rule_node, policy.rules.iter().map(|rule| &*rule.name)));
        return None;
    };
    let rule = &policy.rules[at];
    let except_node = fields.get("except")?;
    let items = list(except_node, "`except`", problems)?;
    let before = problems.len();
    let added = each(items, problems, |item, problems| {
        Some(Exception { is_foreign: true, ..exception(item, Some(&rule.when), problems)? })
    })?;
    let (effect_at, when_at) = (&policy_node.at, &except_node.at);
    let subjects = [policy.subjects.as_slice(), rule.subjects.as_slice()];
    let others = rule.except.len();
    Guarded { effect: rule.effect, effect_at, when: &rule.when, when_at, subjects, except: &added, others }
        .check(problems);
    if let Some(swallowing) = added.iter().find(|exception| crate::lint::swallows(exception, rule)) {
        problems.push(
            Problem::new(&swallowing.at, format!("rule `{}` could never match: this excuses everybody", rule.name))
                .help("name whom you mean besides, or narrow it"),
        );
    }
    if problems.len() == before {
        let rule = &mut policy.rules[at];
        rule.written.push_str(&except_node.written());
        rule.except.extend(added);
    }
    Some(())
}

fn unknown<'a>(what: &str, given: &str, node: &Node, known: impl Iterator<Item = &'a str> + Clone) -> Problem {
    let problem = Problem::new(&node.at, format!("there is no {what} {} here", quoted(given)));
    match did_you_mean(given, known.clone()) {
        Some(meant) => problem.help(format!("write `{meant}`")),
        None => problem.help(format!("write {}", one_of(known.take(12)))),
    }
}
