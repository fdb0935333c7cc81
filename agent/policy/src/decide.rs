//! Facts of an event → verdict. Pure: no I/O, no clock, no state.
//!
//! A rule matches when its `match` covers the event and none of its exceptions excuses it. The reference that this must
//! equal is in `tests/reference.rs`.

use std::sync::Arc;

use crate::facts::{Facts, Object, Taken};
use crate::pattern::Globs;
use crate::policy::{Effect, Exception, Policy, Rule, Severity, Watched, When};

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
    pub effect: Effect,
    /// The rule's message, its placeholders filled.
    pub message: String,
}

impl Verdict {
    /// Asks every policy.
    pub(crate) fn of<'p>(policies: impl IntoIterator<Item = &'p Policy>, facts: &Facts<'_>) -> Self {
        let mut matched = Vec::new();
        for policy in policies {
            for rule in policy.rules.iter().filter(|rule| rule.matches(facts)) {
                matched.push(Matched {
                    policy: Arc::clone(&policy.name),
                    rule: Arc::clone(&rule.name),
                    severity: rule.severity,
                    effect: rule.effect,
                    message: rule.message.render(facts),
                });
            }
        }
        // Stable: equals keep the order of policies and of rules in them.
        matched.sort_by_key(|one: &Matched| std::cmp::Reverse((one.severity, one.effect)));
        Self { matched }
    }

    /// No rule matched.
    pub fn is_none(&self) -> bool {
        self.matched.is_empty()
    }

    /// Every rule that matched, the most severe first; among equals an alert before an audit.
    pub fn matched(&self) -> &[Matched] {
        &self.matched
    }

    /// The strongest effect of any rule that matched.
    pub fn effect(&self) -> Option<Effect> {
        self.matched.iter().map(|matched| matched.effect).max()
    }

    /// The highest severity of any rule that matched.
    pub fn severity(&self) -> Option<Severity> {
        self.matched.iter().map(|matched| matched.severity).max()
    }
}

impl Rule {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.when.covers(facts) && !self.except.iter().any(|exception| exception.excuses(facts))
    }
}

impl When {
    fn covers(&self, facts: &Facts<'_>) -> bool {
        match (self, &facts.object) {
            (
                Self::File { watched: Watched { covered, .. }, accesses },
                Object::File { access, path, path_truncated, watched },
            ) => {
                let by_inode = watched.is_some_and(|watched| covered.matches(watched));
                // Of a truncated path nobody can say that it lies elsewhere.
                let unknown = *path_truncated && watched.is_none();
                accesses.contains(access) && (by_inode || unknown || (!path_truncated && covered.matches(path)))
            }
            (Self::Connect { not_to, protocols, after_reading }, Object::Connect { protocol, address, names, .. }) => {
                let has_read = |watched: &Watched| facts.subject.has_read.iter().any(|taken| watched.covers(taken));
                protocols.contains(protocol)
                    && !not_to.include(*address, names)
                    && after_reading.as_ref().is_none_or(has_read)
            }
            _ => false,
        }
    }
}

impl Watched {
    /// A file whose name nobody told lies where its watched directory is.
    fn covers(&self, taken: &Taken<'_>) -> bool {
        [taken.watched, taken.path].into_iter().flatten().any(|path| self.covered.matches(path))
    }
}

impl Exception {
    /// Whether every field that is given holds. A fact that is missing satisfies no field.
    fn excuses(&self, facts: &Facts<'_>) -> bool {
        let subject = &facts.subject;
        let path = match facts.object {
            Object::File { path, path_truncated: false, .. } => Some(path),
            _ => None,
        };
        let (destination, port) = match facts.object {
            Object::Connect { address, port, names, .. } => (Some((address, names)), Some(port)),
            Object::File { .. } => (None, None),
        };
        let ancestor =
            |globs: &Globs| subject.ancestors.iter().any(|ancestor| ancestor.exe.is_some_and(|exe| globs.matches(exe)));
        holds(&self.exe, subject.exe, Globs::matches)
            && holds(&self.comm, Some(subject.comm), |names, comm| names.iter().any(|name| **name == *comm))
            && holds(&self.uid, Some(subject.uid), |uids, uid| uids.contains(&uid))
            && holds(&self.container, subject.container, |prefixes, id| prefixes.iter().any(|p| id.starts_with(&**p)))
            && holds(&self.cgroup, subject.cgroup, Globs::matches)
            && holds(&self.unit, subject.cgroup.and_then(unit), Globs::matches)
            && self.descendants_of.as_ref().is_none_or(ancestor)
            && holds(&self.path, path, Globs::matches)
            && holds(&self.to, destination, |to, (address, names)| to.include(address, names))
            && holds(&self.port, port, |ports, port| ports.contains(&port))
    }
}

/// A field that is not given holds; one that is given needs its fact.
fn holds<W, F>(wanted: &Option<W>, fact: Option<F>, fits: impl FnOnce(&W, F) -> bool) -> bool {
    match (wanted, fact) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wanted), Some(fact)) => fits(wanted, fact),
    }
}

/// The systemd unit of a cgroup: the first component that is no slice. The first and not the last, because what lies
/// below a delegated unit is named by whoever the unit is delegated to.
fn unit(cgroup: &[u8]) -> Option<&[u8]> {
    let component = cgroup.split(|&byte| byte == b'/').find(|name| !name.is_empty() && !name.ends_with(b".slice"))?;
    (component.ends_with(b".service") || component.ends_with(b".scope")).then_some(component)
}
