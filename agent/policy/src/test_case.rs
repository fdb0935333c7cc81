//! A policy's own tests: an event as YAML, and the verdict its author expects.

use std::net::IpAddr;
use std::sync::Arc;

use crate::decide::Verdict;
use crate::facts::{Access, Ancestor, Facts, Object, Protocol, Subject, Taken};
use crate::policy::Effect;

#[derive(Debug)]
pub(crate) struct TestCase {
    pub(crate) name: String,
    pub(crate) event: OwnedFacts,
    /// `None`: no rule may match.
    pub(crate) expect: Option<Effect>,
    /// The rule that is meant; with `expect: none`, the rule that must keep silent.
    pub(crate) rule: Option<Arc<str>>,
}

impl TestCase {
    /// What is wrong with `verdict`, if anything.
    pub(crate) fn objection(&self, verdict: &Verdict) -> Option<String> {
        let mut relevant =
            verdict.matched().iter().filter(|matched| self.rule.as_ref().is_none_or(|rule| *rule == matched.rule));
        let seen = match &self.rule {
            Some(_) => relevant.next().map(|matched| matched.effect),
            None => verdict.effect(),
        };
        if seen == self.expect {
            return None;
        }
        let expected = self.expect.map_or("none", Effect::as_str);
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
        Some(format!("expected {expected}{of_rule}, but {got}"))
    }
}

/// [`Facts`] that own their bytes.
#[derive(Debug)]
pub(crate) struct OwnedFacts {
    pub(crate) subject: OwnedSubject,
    pub(crate) object: OwnedObject,
}

#[derive(Debug, Default)]
pub(crate) struct OwnedSubject {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) comm: String,
    pub(crate) exe: Option<String>,
    /// Executables, parent first.
    pub(crate) ancestors: Vec<String>,
    pub(crate) cgroup: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) pod_uid: Option<String>,
    /// Watched files that its tree has read.
    pub(crate) has_read: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum OwnedObject {
    File { access: Access, path: String, watched: Option<String> },
    Connect { protocol: Protocol, address: IpAddr, port: u16, names: Vec<String> },
}

impl OwnedFacts {
    /// Lends the facts to `look`.
    pub(crate) fn lend<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let subject = &self.subject;
        let ancestors: Vec<Ancestor<'_>> =
            subject.ancestors.iter().map(|exe| Ancestor { exe: Some(exe.as_bytes()), comm: b"" }).collect();
        let has_read: Vec<Taken<'_>> =
            subject.has_read.iter().map(|path| Taken { path: Some(path.as_bytes()), watched: None }).collect();
        let names: Vec<&str> = match &self.object {
            OwnedObject::Connect { names, .. } => names.iter().map(String::as_str).collect(),
            OwnedObject::File { .. } => Vec::new(),
        };
        look(&Facts {
            subject: Subject {
                pid: subject.pid,
                uid: subject.uid,
                comm: subject.comm.as_bytes(),
                exe: subject.exe.as_deref().map(str::as_bytes),
                ancestors: &ancestors,
                cgroup: subject.cgroup.as_deref().map(str::as_bytes),
                container: subject.container.as_deref(),
                pod_uid: subject.pod_uid.as_deref(),
                has_read: &has_read,
            },
            object: match &self.object {
                OwnedObject::File { access, path, watched } => Object::File {
                    access: *access,
                    path: path.as_bytes(),
                    path_truncated: false,
                    watched: watched.as_deref().map(str::as_bytes),
                },
                OwnedObject::Connect { protocol, address, port, .. } => {
                    Object::Connect { protocol: *protocol, address: *address, port: *port, names: &names }
                }
            },
        })
    }
}
