//! Facts of an event → verdict. Pure: no I/O, no clock, no state.
//!
//! A rule matches when its `match` covers the event, its subject and the policy's admit who did it, and none of its
//! exceptions excuses it. The reference that this must equal is in `tests/reference.rs`.

use std::sync::Arc;

use crate::facts::{Facts, File, Object};
use crate::fields::has_port;
use crate::object::holds;
use crate::policy::{Effect, Exception, Mode, Policy, Rule, Severity};
use crate::subject::Selector;
use crate::template::fill;

/// What the policies say of one event. Only deciding makes one, so holding a verdict proves that policies were asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    matched: Vec<Matched>,
}

/// One rule that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Matched {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    pub severity: Severity,
    /// As written.
    pub effect: Effect,
    /// How much of it the policy has.
    pub mode: Mode,
    /// The rule's message, its placeholders filled.
    pub message: String,
    /// How often somebody is told of this.
    pub throttle: Option<Telling>,
}

/// What is told once in a while, and what makes it the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    pub every_ns: u64,
    pub key: String,
}

impl Matched {
    /// What is left of the effect in the policy's mode.
    pub fn acts(&self) -> Effect {
        self.mode.allows(self.effect)
    }
}

impl Verdict {
    /// Asks these rules.
    pub(crate) fn of<'p>(rules: impl Iterator<Item = (&'p Policy, &'p Rule)>, facts: &Facts<'_>) -> Self {
        let matching = rules.filter(|(policy, rule)| rule.judge(policy, facts).is_ok());
        let mut matched: Vec<Matched> = matching
            .map(|(policy, rule)| Matched {
                policy: Arc::clone(&policy.name),
                rule: Arc::clone(&rule.name),
                severity: rule.severity,
                effect: rule.effect,
                mode: policy.mode,
                message: rule.message.render(facts),
                throttle: rule.telling(facts),
            })
            .collect();
        // Stable: equals keep the order of policies and of rules in them.
        matched.sort_by_key(|one: &Matched| std::cmp::Reverse((one.severity, one.effect)));
        Self { matched }
    }

    /// Joins what is said of the same event under another name of its file: each rule once.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        for one in other.matched {
            if !self.matched.iter().any(|mine| mine.policy == one.policy && mine.rule == one.rule) {
                self.matched.push(one);
            }
        }
        self.matched.sort_by_key(|one: &Matched| std::cmp::Reverse((one.severity, one.effect)));
        self
    }

    /// No rule matched.
    pub fn is_none(&self) -> bool {
        self.matched.is_empty()
    }

    /// Every rule that matched, the most severe first; among equals the stronger effect first.
    pub fn matched(&self) -> &[Matched] {
        &self.matched
    }

    /// The strongest effect that any rule that matched has in its policy's mode.
    pub fn effect(&self) -> Option<Effect> {
        self.matched.iter().map(Matched::acts).max()
    }

    /// The highest severity of any rule that matched.
    pub fn severity(&self) -> Option<Severity> {
        self.matched.iter().map(|matched| matched.severity).max()
    }
}

/// Why a rule does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    /// This field of `match` does not hold.
    Match(&'static str),
    /// Of each entry of the subject, a field does not hold; this one of the first. `true` for the policy's subject.
    Subject(&'static str, bool),
    /// This exception excuses it.
    Excused(usize),
}

impl Rule {
    /// Whether the rule matches, and if not, why.
    pub(crate) fn judge(&self, policy: &Policy, facts: &Facts<'_>) -> Result<(), Miss> {
        self.when.covers(facts).map_err(Miss::Match)?;
        admitted(&policy.subjects, facts).map_err(|field| Miss::Subject(field, true))?;
        admitted(&self.subjects, facts).map_err(|field| Miss::Subject(field, false))?;
        match self.except.iter().position(|exception| exception.excuses(facts).is_ok()) {
            Some(index) => Err(Miss::Excused(index)),
            None => Ok(()),
        }
    }

    fn telling(&self, facts: &Facts<'_>) -> Option<Telling> {
        let throttle = self.throttle.as_ref()?;
        let mut key = String::new();
        for placeholder in &throttle.by {
            fill(&mut key, *placeholder, facts);
            // No value can hold it: control characters are escaped.
            key.push('\0');
        }
        Some(Telling { every_ns: throttle.every_ns, key })
    }
}

/// Of several entries, any admits; none at all admits everybody.
fn admitted(subjects: &[Selector], facts: &Facts<'_>) -> Result<(), &'static str> {
    let mut first = Ok(());
    for (index, selector) in subjects.iter().enumerate() {
        match (selector.admits(facts), index) {
            (Ok(()), _) => return Ok(()),
            (missed, 0) => first = missed,
            _ => {}
        }
    }
    first
}

impl Exception {
    /// Whether every field that is given holds; `Err` names the first that does not. A fact that is missing satisfies no
    /// field.
    pub(crate) fn excuses(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let path = match facts.object {
            Object::File(File { path, path_truncated: false, .. }) | Object::Exec { path, .. } => Some(path),
            _ => None,
        };
        let (destination, port) = match facts.object {
            Object::Connect { address, port, names, .. } => (Some((address, names)), Some(port)),
            _ => (None, None),
        };
        let wanted_port = self.port.as_ref();
        holds("port", wanted_port.is_none_or(|ports| port.is_some_and(|port| has_port(ports, port))))?;
        let to = self.to.as_ref();
        holds("to", to.is_none_or(|to| destination.is_some_and(|(address, names)| to.include(address, names))))?;
        self.who.admits(facts)?;
        holds("path", self.path.as_ref().is_none_or(|globs| path.is_some_and(|path| globs.matches(path))))
    }
}
