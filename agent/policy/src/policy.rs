//! A checked policy: every value in it has been understood, so that evaluation cannot fail.

use std::ops::Range;
use std::sync::Arc;

use crate::destination::Destinations;
use crate::facts::{Access, Protocol};
use crate::pattern::{Globs, WatchPath};
use crate::template::Template;
use crate::test_case::TestCase;

/// One policy file.
#[derive(Debug)]
pub struct Policy {
    pub(crate) name: Arc<str>,
    /// Where the name stands in the file.
    pub(crate) name_at: Range<usize>,
    pub(crate) description: String,
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

    /// The names of its rules, in the order written.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.name)
    }
}

/// Who may not do what: an event that `when` covers and no exception excuses.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) severity: Severity,
    pub(crate) effect: Effect,
    pub(crate) message: Template,
    pub(crate) when: When,
    pub(crate) except: Vec<Exception>,
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

impl Severity {
    pub(crate) const WORDS: &[(&str, Self)] = &[
        ("informational", Self::Informational),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("critical", Self::Critical),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What happens on a match, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Recorded.
    Audit,
    /// Recorded, and somebody is told.
    Alert,
}

impl Effect {
    pub(crate) const WORDS: &[(&str, Self)] = &[("alert", Self::Alert), ("audit", Self::Audit)];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Alert => "alert",
        }
    }
}

/// The events a rule speaks of.
#[derive(Debug)]
pub(crate) enum When {
    /// One of these things was done to a file at or below one of these directories.
    File { watched: Watched, accesses: Vec<Access> },
    /// A connection to none of these.
    Connect { not_to: Destinations, protocols: Vec<Protocol>, after_reading: Option<Watched> },
}

/// Directories, and the names at or below them.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) watch: Vec<WatchPath>,
    pub(crate) covered: Globs,
}

/// One entry of the allow-list: every field that is given must hold; of several values in a field, any may.
#[derive(Debug, Default)]
pub(crate) struct Exception {
    pub(crate) exe: Option<Globs>,
    pub(crate) comm: Option<Vec<Box<[u8]>>>,
    pub(crate) uid: Option<Vec<u32>>,
    pub(crate) container: Option<Vec<String>>,
    pub(crate) cgroup: Option<Globs>,
    pub(crate) unit: Option<Globs>,
    /// The executable of any process above.
    pub(crate) descendants_of: Option<Globs>,
    pub(crate) path: Option<Globs>,
    pub(crate) to: Option<Destinations>,
    pub(crate) port: Option<Vec<u16>>,
}
