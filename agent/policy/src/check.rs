//! `plumbline check DIR`: everything that can be known of policies without running them, their own tests included.

use std::fmt;
use std::path::Path;

use crate::decide::Verdict;
use crate::policy::Policy;
use crate::problem::InvalidPolicy;
use crate::set::{self, LoadError, PolicySet};

/// What a check found; its `Display` is what a person reads.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Policies without a mistake.
    pub policies: usize,
    pub rules: usize,
    pub tests_passed: usize,
    pub tests_failed: Vec<TestFailure>,
    /// Files with mistakes.
    pub invalid: Vec<InvalidPolicy>,
    /// Rules that no test makes match, as `policy/rule`.
    pub untested: Vec<String>,
    /// The set's digest, when it can be used.
    pub digest: Option<String>,
}

/// A policy that does not do what its own test says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFailure {
    pub policy: String,
    pub test: String,
    /// What was expected and what came.
    pub why: String,
}

/// Checks every policy of a directory. An error means that there was nothing to check.
pub fn check(directory: &Path) -> Result<CheckReport, LoadError> {
    let (documents, mut invalid) = set::read(directory)?;
    let documents = || documents.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let mut report = CheckReport::default();
    match PolicySet::from_documents(documents()) {
        Ok(set) => {
            if invalid.is_empty() {
                report.digest = Some(set.digest().to_owned());
            }
            set.policies().iter().for_each(|policy| report.run(policy));
        }
        Err(found) => {
            let bad: Vec<&str> = found.iter().map(InvalidPolicy::name).collect();
            for (name, text) in documents().filter(|(name, _)| !bad.contains(name)) {
                if let Ok(policy) = Policy::parse(name, text) {
                    report.run(&policy);
                }
            }
            invalid.extend(found);
        }
    }
    invalid.sort_by(|a, b| a.name().cmp(b.name()));
    report.invalid = invalid;
    Ok(report)
}

impl CheckReport {
    /// Nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.invalid.is_empty() && self.tests_failed.is_empty()
    }

    /// 0: nothing is wrong; 1: a policy has a mistake or fails a test of its own.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_ok())
    }

    fn run(&mut self, policy: &Policy) {
        self.policies += 1;
        self.rules += policy.rules.len();
        let mut matched = vec![false; policy.rules.len()];
        for test in &policy.tests {
            let verdict = test.event.lend(|facts| Verdict::of([policy], facts));
            for (rule, matched) in policy.rules.iter().zip(&mut matched) {
                *matched |= verdict.matched().iter().any(|one| one.rule == rule.name);
            }
            match test.objection(&verdict) {
                None => self.tests_passed += 1,
                Some(why) => self.tests_failed.push(TestFailure {
                    policy: policy.name().to_owned(),
                    test: test.name.clone(),
                    why,
                }),
            }
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
        for failure in &self.tests_failed {
            writeln!(f, "failed  {}: {}\n        {}", failure.policy, failure.test, failure.why)?;
        }
        for rule in &self.untested {
            writeln!(f, "note    no test makes rule {rule} match")?;
        }
        writeln!(
            f,
            "{} ok, {} invalid; {}; {} passed, {} failed",
            count(self.policies, "policy", "policies"),
            count(self.invalid.len(), "file", "files"),
            count(self.rules, "rule", "rules"),
            count(self.tests_passed, "test", "tests"),
            self.tests_failed.len(),
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
