//! A checked policy: every value in it has been understood, so that evaluation cannot fail.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::destination::Destinations;
use crate::object::When;
use crate::pattern::Globs;
use crate::requires::Need;
use crate::shape::Words;
use crate::subject::Selector;
use crate::template::{Placeholder, Template};
use crate::test_case::TestCase;

/// One policy file.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) name: Arc<str>,
    /// Where the name stands in the file.
    pub(crate) name_at: Range<usize>,
    /// The file that it was read from.
    pub(crate) file: Arc<str>,
    pub(crate) description: String,
    pub(crate) mode: Mode,
    /// Whom the whole policy speaks of; empty for everybody.
    pub(crate) subjects: Vec<Selector>,
    /// What its author says that it needs of the kernel.
    pub(crate) requires: Vec<Need>,
    pub(crate) otherwise: Otherwise,
    pub(crate) rules: Vec<Rule>,
    pub(crate) tests: Vec<TestCase>,
}

impl Policy {
    /// Unique within a set.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn description(&self) -> &str {
        &self.description
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Name, severity and effect of its rules, in the order written.
    pub fn effects(&self) -> impl ExactSizeIterator<Item = (&str, Severity, Effect)> {
        self.rules.iter().map(|rule| (&*rule.name, rule.severity, rule.effect))
    }

    /// The names of its rules, in the order written.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.name)
    }
}

/// Who may not do what: an event that `when` covers, of somebody whom the rule speaks of and no exception excuses.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) name_at: Range<usize>,
    pub(crate) severity: Severity,
    pub(crate) effect: Effect,
    pub(crate) message: Template,
    /// Empty for everybody.
    pub(crate) subjects: Vec<Selector>,
    pub(crate) when: When,
    pub(crate) except: Vec<Exception>,
    pub(crate) throttle: Option<Throttle>,
    /// The values of `match`, `subject` and `except` as written, to find twins.
    pub(crate) written: String,
}

/// One entry of the allow-list: every field that is given must hold; of several values in a field, any may.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exception {
    pub(crate) at: Range<usize>,
    /// It stands in another file than its rule.
    pub(crate) is_foreign: bool,
    pub(crate) who: Selector,
    pub(crate) path: Option<Globs>,
    pub(crate) to: Option<Destinations>,
    pub(crate) port: Option<Vec<RangeInclusive<u16>>>,
}

/// How often somebody is told of the same.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    pub(crate) every_ns: u64,
    /// What makes two matches the same; empty where the rule alone does.
    pub(crate) by: Vec<Placeholder>,
}

/// How bad it is; the words are those of OCSF's `severity_id` 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Words for Severity {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("informational", Self::Informational),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("critical", Self::Critical),
    ];
}

impl Severity {
    /// The severity of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, severity)| *severity)
    }

    pub fn as_str(self) -> &'static str {
        self.word()
    }
}

/// What happens on a match, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Recorded.
    Audit,
    /// Recorded, and somebody is told.
    Alert,
    /// As `Alert`, and what was asked fails with EPERM.
    Deny,
    /// As `Alert`, and the process is ended.
    Kill,
}

impl Words for Effect {
    const WORDS: &'static [(&'static str, Self)] =
        &[("audit", Self::Audit), ("alert", Self::Alert), ("deny", Self::Deny), ("kill", Self::Kill)];
}

impl Effect {
    pub fn as_str(self) -> &'static str {
        self.word()
    }
}

/// How much of its effects a policy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Matches are recorded and nobody is told, so that an allow-list can be learned from them.
    Learn,
    /// Nothing is denied and nobody is killed; what would have been is an alert that says so.
    #[default]
    Monitor,
    Enforce,
}

impl Words for Mode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("learn", Self::Learn), ("monitor", Self::Monitor), ("enforce", Self::Enforce)];
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        self.word()
    }

    /// The mode on a kernel that cannot enforce.
    pub(crate) fn without_enforcing(self) -> Self {
        match self {
            Self::Enforce => Self::Monitor,
            other => other,
        }
    }

    /// What is left of an effect.
    pub(crate) fn allows(self, effect: Effect) -> Effect {
        match self {
            Self::Learn => Effect::Audit,
            Self::Monitor => effect.min(Effect::Alert),
            Self::Enforce => effect,
        }
    }
}

/// What becomes of a policy whose mode needs what the kernel has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Otherwise {
    /// The whole set is refused.
    #[default]
    Refuse,
    /// It is in force as if its mode were `monitor`.
    Degrade,
}

impl Words for Otherwise {
    const WORDS: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("degrade", Self::Degrade)];
}
