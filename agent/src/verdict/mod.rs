//! Events meet policies: what a policy sees of an event, whether that was said before, and which directories the policies
//! want watched.
//!
//! The language and its semantics are `plumbline_policy`; this is only the bridge.

mod denial;
pub mod deny;
pub mod enforce;
mod facts;
pub mod gatekeeper;
pub mod kill;
pub mod place;
pub mod programs;
mod rules;
mod throttle;

use std::{path::PathBuf, sync::Arc};

use plumbline_policy::{Effect, Facts, File, Matched, Object, PolicySet, Subject, Taken, Verdict, WatchPath};

pub use self::{
    denial::Denial,
    facts::{Found, change_access},
    kill::Killed,
    rules::Rules,
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
    /// Rules that told of the same not long ago: policy and rule.
    pub withheld: Vec<(Arc<str>, Arc<str>)>,
    /// How many such matches were withheld since somebody was told last.
    pub withheld_before: u64,
    /// The path by which a policy named the directory above the file.
    pub watched: Option<Vec<u8>>,
    /// The same for each of the files that the tree has read.
    pub read_below: Vec<Option<Vec<u8>>>,
    /// What is wrong, where the event says so.
    pub finding: Option<Found>,
    /// What became of the process, where it was to be ended.
    pub killed: Option<Killed>,
    /// What the kernel did, where something was to be denied, or was.
    pub denial: Option<Denial>,
}

impl Judgement {
    fn of(verdict: Verdict, is_repeated: bool) -> Self {
        Self {
            verdict,
            is_repeated,
            withheld: Vec::new(),
            withheld_before: 0,
            watched: None,
            read_below: Vec::new(),
            finding: None,
            killed: None,
            denial: None,
        }
    }

    /// The rule for which somebody is told.
    fn alert(&self) -> Option<&Matched> {
        let is_told = |one: &&Matched| {
            one.acts() >= Effect::Alert
                && !self.withheld.iter().any(|(policy, rule)| *policy == one.policy && *rule == one.rule)
        };
        self.matched().iter().find(is_told)
    }

    /// Somebody is told.
    pub fn is_alert(&self) -> bool {
        self.alert().is_some()
    }

    /// The rule that the event's record is about: the one for which somebody is told, or else the most severe.
    pub fn chief(&self) -> Option<&Matched> {
        self.alert().or_else(|| self.verdict.matched().first())
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
        None => facts::object(event, identity, &names, local.as_deref(), family.as_deref())?,
    };
    let ancestors = facts::ancestors(identity);
    let subject = match &event.task {
        Some(task) => facts::subject(task, identity, &ancestors),
        None => Subject::default(),
    };
    let has_read = identity.map(|identity| &identity.has_read.files[..]).unwrap_or_default();
    let decide_named = |object: Object<'_>, by_boot_ns: u64| {
        let has_read: Vec<Taken<'_>> = has_read
            .iter()
            .filter(|taken| taken.first_boot_ns <= by_boot_ns)
            .flat_map(|taken| {
                let path = taken.path.as_deref();
                let directories = named(watched, taken.watched).map(Some).chain([None]);
                directories.map(move |watched| Taken { path, watched })
            })
            .collect();
        policies.decide(&Facts { subject: Subject { has_read: &has_read, ..subject }, object })
    };
    // Policies may have named the directory by several paths: each is asked about.
    let decide = |by_boot_ns: u64| match (&object, facts::watched(&event.what)) {
        (Object::File(file), Some(key)) => {
            let directories = named(watched, key).map(|watched| File { watched: Some(watched), ..*file });
            let verdicts = directories.map(|file| decide_named(Object::File(file), by_boot_ns));
            verdicts.reduce(Verdict::or).unwrap_or_else(|| decide_named(object, by_boot_ns))
        }
        _ => decide_named(object, by_boot_ns),
    };
    let verdict = decide(u64::MAX);
    let is_repeated = match &event.what {
        // More was read since the connection began, so that more rules may match, never fewer.
        What::ConnectEnd(end) => decide(event.boot_ns.saturating_sub(end.duration_ns)) == verdict,
        _ => false,
    };
    let of = |key: FileKey| named(watched, key).next().map(<[u8]>::to_vec);
    let read_below = has_read.iter().map(|taken| of(taken.watched)).collect();
    let watched = facts::watched(&event.what).and_then(of);
    Some(Judgement { watched, read_below, finding, ..Judgement::of(verdict, is_repeated) })
}

/// The paths by which policies named the watched directory.
fn named(watched: &WatchedPaths, key: FileKey) -> impl Iterator<Item = &[u8]> {
    let same = move |other: &FileKey| (other.dev, other.ino) == (key.dev, key.ino);
    watched.iter().filter(move |(other, _)| same(other)).map(|(_, path)| path.as_os_str().as_encoded_bytes())
}

/// The event's file, by a name of its own.
pub fn path(event: &Event) -> Option<&[u8]> {
    facts::path(&event.what)
}

/// The watched directory above the event's file, by each of the paths by which policies named it.
pub fn directories_above<'a>(event: &Event, watched: &'a WatchedPaths) -> impl Iterator<Item = &'a [u8]> {
    facts::watched(&event.what).into_iter().flat_map(|key| named(watched, key))
}

/// Whether it is about a file below a watched directory that is not among these.
pub fn is_below_unknown(event: &Event, watched: &WatchedPaths) -> bool {
    facts::watched(&event.what).is_some_and(|key| named(watched, key).next().is_none())
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
