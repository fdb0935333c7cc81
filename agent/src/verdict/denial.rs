//! What became of what a policy says is to be denied. The kernel decides, and says which rule; the policies are asked again about
//! all that is known of the event. Where the two differ, both are told.

use std::sync::Arc;

use plumbline_policy::{Effect, Verdict};

use super::Rules;

use crate::event::{Event, What};

/// A policy's name and a rule's.
type Names = (Arc<str>, Arc<str>);

/// What the kernel did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// It failed with EPERM, for this rule.
    Denied(Names),
    /// It failed with EPERM, for a rule of policies that are not remembered any more.
    DeniedBefore,
    /// These rules say that it is to be denied, and it was not: the kernel did not know yet who it was, or what was done is nothing
    /// that it can deny.
    Missed(Vec<Names>),
}

impl Denial {
    pub(crate) fn of(event: &Event, verdict: &Verdict, rules: &Rules) -> Option<Self> {
        if let Some(by) = event.denied_by() {
            let lane = usize::try_from(by.lane).ok().filter(|_| by.generation == rules.generation());
            let rule = lane.and_then(|lane| rules.denials().rule(lane));
            return Some(rule.map_or(Self::DeniedBefore, |(policy, rule)| Self::Denied((policy.into(), rule.into()))));
        }
        // Told at the begin of an open, before fanotify was asked: what is denied then is told by whoever answered.
        if matches!(event.what, What::FileOpen(_)) && rules.opens_are_told_before {
            return None;
        }
        let to_deny = verdict.matched().iter().filter(|one| one.acts() == Effect::Deny);
        let missed: Vec<Names> = to_deny.map(|one| (Arc::clone(&one.policy), Arc::clone(&one.rule))).collect();
        (!missed.is_empty()).then_some(Self::Missed(missed))
    }

    /// It failed.
    pub fn is_denied(&self) -> bool {
        !matches!(self, Self::Missed(_))
    }

    /// The word of series and records.
    pub fn as_str(&self) -> &'static str {
        if self.is_denied() { "denied" } else { "missed" }
    }

    /// The rules that it is about.
    pub fn rules(&self) -> impl Iterator<Item = (&str, &str)> {
        let rules = match self {
            Self::Denied(rule) => std::slice::from_ref(rule),
            Self::DeniedBefore => &[],
            Self::Missed(rules) => rules,
        };
        rules.iter().map(|(policy, rule)| (&**policy, &**rule))
    }
}
