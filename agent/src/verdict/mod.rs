//! Events meet policies: what a policy sees of an event, whether that was said before, and which directories the policies
//! want watched.
//!
//! The language and its semantics are `plumbline_policy`; this is only the bridge.

pub mod enforce;
mod facts;
pub mod kill;
mod throttle;

use std::path::{Path, PathBuf};

use plumbline_policy::{Effect, Facts, Matched, PolicySet, Subject, Taken, Verdict, WatchPath};

pub use self::{
    facts::{Found, change_access},
    kill::Killed,
    throttle::Throttles,
};
use crate::{
    event::{Event, FileKey, What},
    identity::Identity,
};

/// Directories under watch, as enrolled: inode and the path that a policy named.
pub type WatchedPaths = Vec<(FileKey, PathBuf)>;

/// What the policies say of an event, and whether they have said it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// The event continues another of which every rule that matches spoke: told with it, and not a match of its own.
    pub is_repeated: bool,
    /// Every rule whose match would be an alert has told of the same not long ago.
    pub is_withheld: bool,
    /// How many such matches were withheld since somebody was told last.
    pub withheld_before: u64,
    /// The path by which a policy named the directory above the file.
    pub watched: Option<Vec<u8>>,
    /// What is wrong, where the event says so.
    pub finding: Option<Found>,
    /// What became of the process, where it was to be ended.
    pub killed: Option<Killed>,
}

impl Judgement {
    /// Somebody is told.
    pub fn is_alert(&self) -> bool {
        !self.is_repeated && !self.is_withheld && self.verdict.effect() >= Some(Effect::Alert)
    }

    /// What the event's record says of a match: one that is not a repetition.
    pub fn matched(&self) -> &[Matched] {
        if self.is_repeated { &[] } else { self.verdict.matched() }
    }
}

/// What the policies say of this event, or `None` when it is of a kind that policies do not speak about.
pub fn judge(
    policies: &PolicySet,
    watched: &WatchedPaths,
    event: &Event,
    identity: Option<&Identity>,
) -> Option<Judgement> {
    let names: Vec<&str> = identity.iter().flat_map(|identity| identity.dns.matched()).collect();
    let finding = facts::finding(&event.what);
    let local = facts::local_name(&event.what);
    let family = facts::family(&event.what);
    let object = match &finding {
        Some(finding) => finding.object(),
        None => facts::object(event, identity, watched, &names, local.as_deref(), family.as_deref())?,
    };
    let ancestors = facts::ancestors(identity);
    let subject = match &event.task {
        Some(task) => facts::subject(task, identity, &ancestors),
        None => Subject::default(),
    };
    let has_read = identity.map(|identity| &identity.has_read.files[..]).unwrap_or_default();
    let decide = |by_boot_ns: u64| {
        let has_read: Vec<Taken<'_>> = has_read
            .iter()
            .filter(|taken| taken.first_boot_ns <= by_boot_ns)
            .map(|taken| Taken { path: taken.path.as_deref(), watched: directory(watched, taken.watched) })
            .collect();
        policies.decide(&Facts { subject: Subject { has_read: &has_read, ..subject }, object })
    };
    let verdict = decide(u64::MAX);
    let is_repeated = match &event.what {
        // More was read since the connection began, so that more rules may match, never fewer.
        What::ConnectEnd(end) => decide(event.boot_ns.saturating_sub(end.duration_ns)) == verdict,
        _ => false,
    };
    let watched = facts::watched(&event.what).and_then(|key| directory(watched, key)).map(<[u8]>::to_vec);
    Some(Judgement { verdict, is_repeated, is_withheld: false, withheld_before: 0, watched, finding, killed: None })
}

/// The path by which a policy named the watched directory.
fn directory(watched: &WatchedPaths, key: FileKey) -> Option<&[u8]> {
    named(watched, key).map(|path| path.as_os_str().as_encoded_bytes())
}

/// The path by which a policy named the directory above the event's file.
pub fn watched_path<'w>(watched: &'w WatchedPaths, event: &Event) -> Option<&'w Path> {
    named(watched, facts::watched(&event.what)?)
}

fn named(watched: &WatchedPaths, key: FileKey) -> Option<&Path> {
    let found = watched.iter().find(|(other, _)| (other.dev, other.ino) == (key.dev, key.ino));
    found.map(|(_, path)| path.as_path())
}

/// The directories that exist now among those that the policies name, sorted.
pub fn directories(policies: &PolicySet) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = policies.watched_paths().iter().flat_map(WatchPath::expand).collect();
    directories.sort();
    directories.dedup();
    directories
}

#[cfg(test)]
mod tests;
