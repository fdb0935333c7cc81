//! `plumbline check DIR` and `plumbline test DIR`: everything that can be known of policies without putting them in
//! force, their own tests included.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::compile::{Denials, TooManyDenials};
use crate::decide::Verdict;
use crate::documents::{self, Known, Reading};
use crate::lint;
use crate::policy::{Otherwise, Policy};
use crate::problem::{InvalidPolicy, line_of};
use crate::requires::{KernelProfile, Unmet};
use crate::set::{self, LoadError};

/// What a check found; its `Display` is what a person reads.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Policies without a mistake.
    pub policies: usize,
    pub rules: usize,
    /// Every test that was run.
    pub tests: Vec<TestOutcome>,
    /// Files with mistakes.
    pub invalid: Vec<InvalidPolicy>,
    /// Rules that no test makes match, as `policy/rule`.
    pub untested: Vec<String>,
    /// What does no harm and is not meant: shadowed rules, exceptions that excuse nobody more.
    pub notes: Vec<String>,
    /// What the kernel that was asked for does not meet.
    pub unmet: Vec<Unmet>,
    /// More is denied than the kernel has room for.
    pub too_many_denials: Option<TooManyDenials>,
    /// The set's digest, when it can be used.
    pub digest: Option<String>,
}

/// Rules without a test that are named.
const MAX_UNTESTED: usize = 50;

/// How one of a policy's own tests ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    pub policy: String,
    pub test: String,
    /// What was expected and what came, where they differ.
    pub objection: Option<String>,
}

/// Checks every policy of a directory, against a kernel if one is given. An error means that there was nothing to check.
pub fn check(directory: &Path, kernel: Option<&KernelProfile>) -> Result<CheckReport, LoadError> {
    let (documents, mut invalid) = set::read(directory)?;
    let documents: Vec<(&str, &str)> = documents.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut report = CheckReport::default();
    let Reading { policies, invalid: found, .. } = documents::read(&documents, &Known::default());
    invalid.extend(found);
    if invalid.is_empty() {
        report.digest = Some(set::digest(&documents));
    }
    let texts: HashMap<&str, &str> = documents.iter().copied().collect();
    for policy in &policies {
        report.run(policy);
        let place = |at: usize| match texts.get(&*policy.file) {
            Some(text) => format!("{}:{}", policy.file, line_of(text, at)),
            // Converted: its lines are those of no file.
            None => policy.file.to_string(),
        };
        report
            .notes
            .extend(lint::superfluous(policy).into_iter().map(|(at, note)| format!("{}: {note}", place(at.start))));
        report.unmet.extend(kernel.iter().flat_map(|kernel| policy.unmet(kernel)));
    }
    report.notes.extend(lint::between(&policies));
    report.too_many_denials = Denials::of(&policies, Arc::default()).err();
    invalid.sort_by(|a, b| a.name().cmp(b.name()));
    report.invalid = invalid;
    Ok(report)
}

impl CheckReport {
    /// Nothing is wrong.
    pub fn is_ok(&self) -> bool {
        let refused = self.unmet.iter().any(|unmet| unmet.otherwise == Otherwise::Refuse);
        self.invalid.is_empty() && self.failed().next().is_none() && !refused && self.too_many_denials.is_none()
    }

    /// 0: nothing is wrong; 1: a policy has a mistake, fails a test of its own, or needs what the kernel has not.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_ok())
    }

    pub fn failed(&self) -> impl Iterator<Item = &TestOutcome> {
        self.tests.iter().filter(|test| test.objection.is_some())
    }

    fn run(&mut self, policy: &Policy) {
        self.policies += 1;
        self.rules += policy.rules.len();
        let mut matched = vec![false; policy.rules.len()];
        for test in &policy.tests {
            let rules = policy.rules.iter().map(|rule| (policy, rule));
            let verdict = test.event.lend(|facts| Verdict::of(rules, facts));
            for (rule, matched) in policy.rules.iter().zip(&mut matched) {
                *matched |= verdict.matched().iter().any(|one| one.rule == rule.name);
            }
            let objection = test.objection(&verdict);
            self.tests.push(TestOutcome { policy: policy.name.to_string(), test: test.name.clone(), objection });
        }
        let silent = policy.rules.iter().zip(matched).filter(|(_, matched)| !matched);
        self.untested.extend(silent.map(|(rule, _)| format!("{}/{}", policy.name, rule.name)));
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.invalid {
            file.render(f)?;
        }
        for TestOutcome { policy, test, objection } in self.failed() {
            writeln!(f, "failed  {policy}: {test}\n        {}", objection.as_deref().unwrap_or_default())?;
        }
        for unmet in &self.unmet {
            let word = if unmet.otherwise == Otherwise::Refuse { "refused" } else { "note   " };
            writeln!(f, "{word} {unmet}")?;
        }
        if let Some(error) = &self.too_many_denials {
            writeln!(f, "refused {error}")?;
        }
        for note in &self.notes {
            writeln!(f, "note    {note}")?;
        }
        for rule in self.untested.iter().take(MAX_UNTESTED) {
            writeln!(f, "note    no test makes rule {rule} match")?;
        }
        if let Some(more @ 1..) = self.untested.len().checked_sub(MAX_UNTESTED) {
            writeln!(f, "note    nor does one for {more} more rules")?;
        }
        let failed = self.failed().count();
        writeln!(
            f,
            "{} ok, {} invalid; {}; {} passed, {failed} failed",
            count(self.policies, "policy", "policies"),
            count(self.invalid.len(), "file", "files"),
            count(self.rules, "rule", "rules"),
            count(self.tests.len() - failed, "test", "tests"),
        )?;
        match &self.digest {
            Some(digest) if self.is_ok() => writeln!(f, "digest sha256:{digest}"),
            _ => Ok(()),
        }
    }
}

fn count(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}
