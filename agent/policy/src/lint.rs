//! What is right by itself and still wrong: rules that can never match, that say what another says, or that contradict
//! one another.
//!
//! Patterns are compared as far as that can be done without asking which texts there are; what cannot be seen is not
//! said. So everything said here is so, and not everything that is so is said.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::fields::covers_ports;
use crate::object::When;
use crate::policy::{Effect, Exception, Policy, Rule};
use crate::problem::Problem;

/// Rules of one policy that contradict one another: mistakes.
pub(crate) fn contradictions(policy: &Policy) -> Vec<Problem> {
    let mut seen: HashMap<&str, &Rule> = HashMap::new();
    let mut problems = Vec::new();
    for rule in &policy.rules {
        match seen.get(rule.written.as_str()) {
            Some(first) if contradict(first.effect, rule.effect) => {
                let message = format!(
                    "rules `{}` and `{}` match the same events, and `{}` contradicts `{}`",
                    first.name,
                    rule.name,
                    rule.effect.as_str(),
                    first.effect.as_str()
                );
                problems.push(
                    Problem::new(&rule.name_at, message)
                        .label("the second")
                        .other(&first.name_at, "the first")
                        .help("keep one of them, or make their `match`, `subject` or `except` differ"),
                );
            }
            Some(_) => {}
            None => drop(seen.insert(&rule.written, rule)),
        }
    }
    for rule in &policy.rules {
        if let Some(exception) = rule.except.iter().find(|exception| swallows(exception, rule)) {
            problems.push(
                Problem::new(&exception.at, format!("rule `{}` can never match: this excuses everybody", rule.name))
                    .label("covers all that the rule watches")
                    .help("name whom you mean besides, or narrow it"),
            );
        }
    }
    problems
}

/// Two effects on the same: recorded and told are not at odds, what is denied or killed is at odds with all else.
fn contradict(one: Effect, other: Effect) -> bool {
    one != other && one.max(other) > Effect::Alert
}

/// Whether the exception excuses whatever the rule could match: it asks only for what the rule itself asks for.
pub(crate) fn swallows(exception: &Exception, rule: &Rule) -> bool {
    // Not even where its globs cover all that is watched: a file may be reached by another name.
    if exception.path.is_some() {
        return false;
    }
    let covers_destination = match (&exception.to, &rule.when) {
        (None, _) => true,
        (Some(to), When::Connect(connect)) => {
            to.is_everything() || connect.to.as_ref().is_some_and(|wanted| to.covers(wanted))
        }
        (Some(_), _) => false,
    };
    let covers_port = match (&exception.port, &rule.when) {
        (None, _) => true,
        (Some(ports), When::Connect(connect)) => {
            connect.ports.as_ref().is_some_and(|wanted| covers_ports(ports, wanted))
        }
        (Some(_), _) => false,
    };
    // Of several subjects each must be excused.
    let nobody = crate::subject::Selector::default();
    let covers_subject = if rule.subjects.is_empty() {
        exception.who.covers(&nobody)
    } else {
        rule.subjects.iter().all(|subject| exception.who.covers(subject))
    };
    covers_destination && covers_port && covers_subject
}

/// Each is compared with each.
const MAX_COMPARED: usize = 256;

/// What does no harm and says nothing: for the notes of a check.
pub(crate) fn superfluous(policy: &Policy) -> Vec<(Range<usize>, String)> {
    let mut notes = Vec::new();
    let most = policy.rules.iter().map(|rule| rule.except.len()).max().unwrap_or(0).max(policy.rules.len());
    if most > MAX_COMPARED {
        let note = format!("more than {MAX_COMPARED} rules, or exceptions of one rule: not compared with each other");
        return vec![(policy.name_at.clone(), note)];
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let shadows =
            |other: &&Rule| other.effect >= rule.effect && other.severity >= rule.severity && covers(other, rule);
        // Of two that cover one another, the later is superfluous.
        let before = policy.rules[..index].iter().find(shadows);
        let after = || policy.rules[index + 1..].iter().find(|other| shadows(other) && !covers(rule, other));
        if let Some(other) = before.or_else(after) {
            notes.push((
                rule.name_at.clone(),
                format!("rule `{}` says nothing that `{}` does not: it is shadowed", rule.name, other.name),
            ));
        }
        for (index, exception) in rule.except.iter().enumerate().filter(|(_, exception)| !exception.is_foreign) {
            if rule.except[..index].iter().any(|earlier| wider(earlier, exception)) {
                notes.push((
                    exception.at.clone(),
                    format!("an exception of rule `{}` excuses nobody whom one before it does not", rule.name),
                ));
            }
        }
    }
    notes
}

/// Whether `wide` matches whatever `narrow` does, as far as that can be seen.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let same = wide.written == narrow.written;
    let (When::File(a), When::File(b)) = (&wide.when, &narrow.when) else { return same };
    let everybody = wide.subjects.is_empty()
        || (!narrow.subjects.is_empty()
            && narrow.subjects.iter().all(|subject| wide.subjects.iter().any(|wide| wide.covers(subject))));
    // Whom the wide one excuses, the narrow one must excuse as well.
    let excused = wide.except.iter().all(|one| narrow.except.iter().any(|other| wider(other, one)));
    same || (a.contains(b) && everybody && excused)
}

/// Whether `wide` excuses everybody whom `narrow` does.
fn wider(wide: &Exception, narrow: &Exception) -> bool {
    let path = match (&wide.path, &narrow.path) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => wide.covers(narrow),
        (Some(_), None) => false,
    };
    let to = match (&wide.to, &narrow.to) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => wide.covers(narrow),
        (Some(_), None) => false,
    };
    let port = match (&wide.port, &narrow.port) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => covers_ports(wide, narrow),
        (Some(_), None) => false,
    };
    path && to && port && wide.who.covers(&narrow.who)
}

/// Rules of different policies that match the same events, with different effects: each has its own, and the stronger
/// one shows.
pub(crate) fn between(policies: &[Arc<Policy>]) -> Vec<String> {
    let mut seen: HashMap<&str, (&Policy, &Rule)> = HashMap::new();
    let mut notes = Vec::new();
    for policy in policies.iter().filter(|policy| policy.subjects.is_empty()) {
        for rule in &policy.rules {
            match seen.get(rule.written.as_str()) {
                Some((other, first)) if first.effect != rule.effect => notes.push(format!(
                    "rules `{}/{}` and `{}/{}` match the same events, the one with `{}`, the other with `{}`",
                    other.name,
                    first.name,
                    policy.name,
                    rule.name,
                    first.effect.as_str(),
                    rule.effect.as_str()
                )),
                Some(_) => {}
                None => drop(seen.insert(&rule.written, (policy, rule))),
            }
        }
    }
    notes
}
