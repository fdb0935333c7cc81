//! Events as the library takes them.

use plumbline_policy::{Access, Accesses, Ancestor, Facts, File, Object, Pod, Protocol, Subject, Taken};

use super::model::Event;

/// Lends the facts of an event to `look`.
pub fn lend<T>(event: &Event, look: impl FnOnce(&Facts<'_>) -> T) -> T {
    let ancestors: Vec<Ancestor<'_>> =
        event.ancestors.iter().map(|exe| Ancestor { exe: exe.as_deref().map(str::as_bytes), comm: b"" }).collect();
    let names: Vec<&str> = event.names.iter().map(String::as_str).collect();
    // What is mapped is read.
    let accesses = match event.access {
        Access::Map => Accesses::of([Access::Read, Access::Map]),
        access => Accesses::of([access]),
    };
    let object = if event.is_file {
        Object::File(File {
            accesses,
            is_served: event.is_served,
            path: event.path.as_bytes(),
            path_truncated: event.path_truncated,
            watched: event.watched.as_deref().map(str::as_bytes),
            ..File::default()
        })
    } else {
        let protocol = if event.udp { Protocol::Udp } else { Protocol::Tcp };
        Object::Connect { protocol, address: event.address, port: event.port, names: &names, source: event.source }
    };
    let has_read: Vec<Taken<'_>> = event
        .has_read
        .iter()
        .map(|(path, watched)| Taken {
            path: path.as_deref().map(str::as_bytes),
            watched: watched.as_deref().map(str::as_bytes),
        })
        .collect();
    let subject = Subject {
        pid: 1,
        uid: Some(event.uid),
        comm: event.comm.as_bytes(),
        exe: event.exe.as_deref().map(str::as_bytes),
        ancestors: &ancestors,
        cgroup: event.cgroup.as_deref().map(str::as_bytes),
        container: event.container.as_deref(),
        user: event.user.as_deref(),
        exe_sha256: event.exe_sha256.as_deref(),
        image: event.pod.as_ref().and_then(|(_, _, image)| image.as_deref()),
        pod: event.pod.as_ref().map(|(namespace, labels, _)| Pod { namespace, name: "p", labels }),
        has_read: &has_read,
        ..Subject::default()
    };
    look(&Facts { subject, object })
}
