//! Events meet policies: what a policy sees of an event, whether that was said before, and which directories the policies
//! want watched.
//!
//! The language and its semantics are `plumbline_policy`; this is only the bridge.

use std::{net::IpAddr, path::PathBuf};

use plumbline_policy::{Access, Ancestor, Facts, Object, PolicySet, Protocol, Subject, Taken, Verdict, WatchPath};

use crate::{
    event::{self, Event, FileKey, What},
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
}

/// What the policies say of this event, or `None` when it is of a kind that policies do not speak about.
pub fn judge(
    policies: &PolicySet,
    watched: &WatchedPaths,
    event: &Event,
    identity: Option<&Identity>,
) -> Option<Judgement> {
    let task = event.task.as_ref()?;
    let names: Vec<&str> = identity.iter().flat_map(|identity| identity.dns.matched()).collect();
    let object = match &event.what {
        What::FileOpen(open) => Object::File {
            access: Access::Open,
            path: &open.path,
            path_truncated: open.path_truncated,
            watched: directory(watched, open.watched),
        },
        What::FileRead(read) => Object::File {
            access: if read.is_only_written() { Access::Change } else { Access::Read },
            path: read.path.as_deref().unwrap_or_default(),
            path_truncated: read.path.is_none(),
            watched: directory(watched, read.watched),
        },
        // Of the names after the change some lack the mount; the name before is whole.
        What::FileChange(change) => Object::File {
            access: Access::Change,
            path: change.known_as.as_deref().unwrap_or_default(),
            path_truncated: change.known_as.is_none(),
            watched: directory(watched, change.watched),
        },
        What::Connect(connect) => connection(connect.protocol, connect.address, connect.port, &names),
        What::ConnectEnd(end) => connection(end.protocol, end.address, end.port, &names),
        _ => return None,
    };
    let ancestors: Vec<Ancestor<'_>> = identity
        .map(|identity| &identity.ancestors[..])
        .unwrap_or_default()
        .iter()
        .map(|ancestor| Ancestor { exe: ancestor.exe.as_deref(), comm: &ancestor.comm })
        .collect();
    let has_read = identity.map(|identity| &identity.has_read.files[..]).unwrap_or_default();
    let process = identity.map(|identity| &identity.process);
    let cgroup = process.and_then(|process| process.cgroup.as_ref());
    let subject = Subject {
        pid: task.pid,
        uid: task.uid,
        comm: &task.comm,
        exe: process.and_then(|process| process.exe.as_deref()),
        ancestors: &ancestors,
        cgroup: cgroup.map(|cgroup| &cgroup.path[..]),
        container: cgroup.and_then(|cgroup| cgroup.container.as_ref()).map(|container| &container.id[..]),
        pod_uid: cgroup.and_then(|cgroup| cgroup.pod_uid.as_deref()),
        has_read: &[],
    };
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
    Some(Judgement { verdict, is_repeated })
}

fn connection<'a>(protocol: event::Protocol, address: IpAddr, port: u16, names: &'a [&'a str]) -> Object<'a> {
    let protocol = match protocol {
        event::Protocol::Tcp => Protocol::Tcp,
        event::Protocol::Udp => Protocol::Udp,
    };
    Object::Connect { protocol, address, port, names }
}

/// The path by which a policy named the watched directory.
fn directory(watched: &WatchedPaths, key: FileKey) -> Option<&[u8]> {
    let found = watched.iter().find(|(other, _)| (other.dev, other.ino) == (key.dev, key.ino));
    found.map(|(_, path)| path.as_os_str().as_encoded_bytes())
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
