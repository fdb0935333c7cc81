//! Events meet policies: what a policy sees of an event, and which directories the policies want watched.
//!
//! The language and its semantics are `plumbline_policy`; this is only the bridge.

use std::path::PathBuf;

use plumbline_policy::{Ancestor, Facts, Object, PolicySet, Protocol, Subject, Verdict, WatchPath};

use crate::{
    event::{self, Event, FileKey, What},
    identity::Identity,
};

/// Directories under watch, as enrolled: inode and the path that a policy named.
pub type WatchedPaths = Vec<(FileKey, PathBuf)>;

/// What the policies say of this event, or `None` when it is of a kind that policies do not speak about.
pub fn judge(
    policies: &PolicySet,
    watched: &WatchedPaths,
    event: &Event,
    identity: Option<&Identity>,
) -> Option<Verdict> {
    let task = event.task.as_ref()?;
    let object = match &event.what {
        What::FileOpen(open) => Object::FileOpen {
            path: &open.path,
            path_truncated: open.path_truncated,
            watched: watched
                .iter()
                .find(|(key, _)| (key.dev, key.ino) == (open.watched.dev, open.watched.ino))
                .map(|(_, path)| path.as_os_str().as_encoded_bytes()),
        },
        What::Connect(connect) => Object::Connect {
            protocol: match connect.protocol {
                event::Protocol::Tcp => Protocol::Tcp,
                event::Protocol::Udp => Protocol::Udp,
            },
            address: connect.address,
            port: connect.port,
        },
        _ => return None,
    };
    let ancestors: Vec<Ancestor<'_>> = identity
        .map(|identity| &identity.ancestors[..])
        .unwrap_or_default()
        .iter()
        .map(|ancestor| Ancestor { exe: ancestor.exe.as_deref(), comm: &ancestor.comm })
        .collect();
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
    };
    Some(policies.decide(&Facts { subject, object }))
}

/// The directories that exist now among those that the policies name, sorted.
pub fn directories(policies: &PolicySet) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = policies.watched_paths().iter().flat_map(WatchPath::expand).collect();
    directories.sort();
    directories.dedup();
    directories
}
