//! A policy's own tests: an event as YAML, and the verdict its author expects.

use std::sync::Arc;

use crate::decide::Verdict;
use crate::occurrence::{EVENT, Occurrence};
use crate::policy::Effect;
use crate::shape::{Holds, Shape, Words, optional, required, words};

pub(crate) static TEST: Shape = Shape {
    what: "a test",
    about: "An event, and the verdict of this policy that its author expects. The mode does not matter here.",
    fields: &[&[
        required("name", Holds::Text, "what is expected, as a sentence"),
        required("event", Holds::One(&EVENT), "what happens"),
        required("expect", Holds::Word(words::<Expect>), "the strongest effect of the rules that match, or `none`"),
        optional("rule", Holds::Text, "the rule that is meant; with `none`, the rule that must keep silent"),
    ]],
};

#[derive(Debug, Clone)]
pub(crate) struct TestCase {
    pub(crate) name: String,
    pub(crate) event: Occurrence,
    pub(crate) expect: Expect,
    /// The rule that is meant; with `expect: none`, the rule that must keep silent.
    pub(crate) rule: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No rule may match.
    Nothing,
    Effect(Effect),
}

impl Words for Expect {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Self::Nothing),
        ("audit", Self::Effect(Effect::Audit)),
        ("alert", Self::Effect(Effect::Alert)),
        ("deny", Self::Effect(Effect::Deny)),
        ("kill", Self::Effect(Effect::Kill)),
    ];
}

impl TestCase {
    /// What is wrong with `verdict`, if anything.
    pub(crate) fn objection(&self, verdict: &Verdict) -> Option<String> {
        let mut relevant =
            verdict.matched().iter().filter(|matched| self.rule.as_ref().is_none_or(|rule| *rule == matched.rule));
        let seen = match &self.rule {
            Some(_) => relevant.next().map(|matched| matched.effect),
            None => verdict.matched().iter().map(|matched| matched.effect).max(),
        };
        if seen.map_or(Expect::Nothing, Expect::Effect) == self.expect {
            return None;
        }
        let of_rule = self.rule.as_ref().map_or_else(String::new, |rule| format!(" of rule `{rule}`"));
        let got = match verdict.matched() {
            [] => "no rule matched".to_owned(),
            matched => matched
                .iter()
                .map(|matched| {
                    format!("rule `{}` matched ({}): {}", matched.rule, matched.effect.as_str(), matched.message)
                })
                .collect::<Vec<_>>()
                .join("; "),
        };
        Some(format!("expected {}{of_rule}, but {got}", self.expect.word()))
    }
}
