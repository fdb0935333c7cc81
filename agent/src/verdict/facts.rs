//! Event and identity → what a policy sees of them.

use std::{borrow::Cow, net::IpAddr};

use plumbline_policy::{
    Access, Accesses, Ancestor, BpfHow, BpfKind, DeviceKind, File, MemoryHow, Object, Pod, Protocol, Severity, Subject,
};

use crate::{
    event::{self, Change, DiskState, Event, FileKey, FileRead, Finding, Sight, Task, What},
    identity::{Identity, Process},
};

/// What the event's process did, to what, without the names of the watched directory; `None` for events that policies do not speak about. `local` is
/// [`local_name`], `family` is [`family`].
pub(super) fn object<'a>(
    event: &'a Event,
    identity: Option<&'a Identity>,
    names: &'a [&'a str],
    local: Option<&'a [u8]>,
    family: Option<&'a str>,
) -> Option<Object<'a>> {
    event.task.as_ref()?;
    let artefact = identity.and_then(|identity| identity.artefact.as_ref()).map(|artefact| &*artefact.repository);
    let file = |accesses: Accesses, path: Option<&'a [u8]>| File {
        accesses,
        path: path.unwrap_or_default(),
        path_truncated: path.is_none(),
        artefact,
        ..File::default()
    };
    Some(match &event.what {
        What::FileOpen(open) => Object::File(File {
            path_truncated: open.path_truncated,
            ..file(Accesses::of([Access::Open]), Some(&open.path))
        }),
        What::FileRead(read) => Object::File(File {
            bytes: taken_bytes(read),
            percent: Some(percent(read)),
            ..file(read_accesses(read), read.path.as_deref())
        }),
        // Of the names after the change some lack the mount; the name before is whole.
        What::FileChange(change) => Object::File(File {
            is_served: identity.and_then(|identity| identity.is_served),
            ..file(Accesses::of([change_access(change.how)]), change.known_as.as_deref())
        }),
        What::Connect(connect) => connection(connect.protocol, (connect.address, connect.port), connect.source, names),
        What::ConnectEnd(end) => connection(end.protocol, (end.address, end.port), end.source, names),
        What::Exec(exec) => Object::Exec { path: &exec.exe, is_nameless: exec.deleted },
        What::DeviceOpen(open) => Object::Device { kind: device(open.kind), path: &open.path },
        What::BpfAccess(access) => Object::Bpf {
            kind: match access.kind {
                event::BpfKind::Map => BpfKind::Map,
                event::BpfKind::Program => BpfKind::Program,
                event::BpfKind::Link => BpfKind::Link,
            },
            name: &access.name,
            how: match access.how {
                event::BpfHow::Open => BpfHow::Open,
                event::BpfHow::Change => BpfHow::Change,
            },
        },
        What::MemoryAccess(access) => Object::Memory { how: how(access.how) },
        // Evidence only of whoever has read watched files.
        What::LocalConnect(_) if identity.is_some_and(|identity| !identity.has_read.files.is_empty()) => {
            Object::Local { name: local? }
        }
        What::SocketOpen(_) => Object::Socket { family: family? },
        _ => return None,
    })
}

/// The event's file, by a name of its own.
pub(super) fn path(what: &What) -> Option<&[u8]> {
    match what {
        What::FileOpen(open) => Some(&open.path),
        What::FileRead(read) => read.path.as_deref(),
        What::FileChange(change) => change.known_as.as_deref().or(Some(&change.path)),
        _ => None,
    }
}

/// The watched directory above the event's file.
pub(super) fn watched(what: &What) -> Option<FileKey> {
    match what {
        What::FileOpen(open) => Some(open.watched),
        What::FileRead(read) => Some(read.watched),
        What::FileChange(change) => Some(change.watched),
        _ => None,
    }
}

/// A local socket's name as policies write it: an abstract one begins with `@` instead of a NUL.
pub(super) fn local_name(what: &What) -> Option<Cow<'_, [u8]>> {
    let What::LocalConnect(connect) = what else { return None };
    Some(match connect.name.split_first() {
        Some((0, rest)) => Cow::Owned([b"@", rest].concat()),
        _ => Cow::Borrowed(connect.name.strip_suffix(&[0]).unwrap_or(&connect.name)),
    })
}

pub(super) fn family(what: &What) -> Option<String> {
    match what {
        What::SocketOpen(socket) => Some(socket.family_name()),
        _ => None,
    }
}

fn taken_bytes(read: &FileRead) -> Option<u64> {
    read.bytes_read.max(read.bytes_faulted)
}

/// Hundredths of the file's slices, rounded down: a whole file is 100, and nothing less is.
fn percent(read: &FileRead) -> u8 {
    let slices = u32::try_from(event::Coverage::SLICES).unwrap_or(u32::MAX);
    u8::try_from(read.coverage.touched() * 100 / slices).unwrap_or(100)
}

fn read_accesses(read: &FileRead) -> Accesses {
    if read.is_only_written() {
        return Accesses::of([Access::Write]);
    }
    let mapped = read.bytes_faulted.unwrap_or(0) > 0;
    Accesses::of([Some(Access::Read), mapped.then_some(Access::Map)].into_iter().flatten())
}

/// What a change does to a file, in the policies' words.
pub fn change_access(how: Change) -> Access {
    match how {
        Change::Write | Change::Truncate | Change::Overwritten | Change::MapWritable | Change::Allocate => {
            Access::Write
        }
        Change::Rename | Change::Replace => Access::Rename,
        Change::Link | Change::Cloned => Access::Link,
        Change::Unlink => Access::Unlink,
    }
}

fn connection<'a>(
    protocol: event::Protocol,
    (address, port): (IpAddr, u16),
    source: Option<IpAddr>,
    names: &'a [&'a str],
) -> Object<'a> {
    let protocol = match protocol {
        event::Protocol::Tcp => Protocol::Tcp,
        event::Protocol::Udp => Protocol::Udp,
    };
    Object::Connect { protocol, address, port, names, source }
}

fn device(kind: event::DeviceKind) -> DeviceKind {
    match kind {
        event::DeviceKind::BlockDevice => DeviceKind::Block,
        event::DeviceKind::BypassDevice => DeviceKind::Bypass,
        event::DeviceKind::GpuDevice => DeviceKind::Gpu,
    }
}

fn how(how: event::MemoryHow) -> MemoryHow {
    match how {
        event::MemoryHow::Attach => MemoryHow::Attach,
        event::MemoryHow::VmRead => MemoryHow::VmRead,
        event::MemoryHow::Ptrace => MemoryHow::Ptrace,
        event::MemoryHow::ProcMem => MemoryHow::ProcMem,
    }
}

pub(super) fn ancestors(identity: Option<&Identity>) -> Vec<Ancestor<'_>> {
    let ancestors = identity.map(|identity| &identity.ancestors[..]).unwrap_or_default();
    ancestors.iter().map(|ancestor| Ancestor { exe: ancestor.exe_by_name(), comm: &ancestor.comm }).collect()
}

/// Who acted; what its tree has read is added where it matters.
pub(super) fn subject<'a>(
    task: &'a Task,
    identity: Option<&'a Identity>,
    ancestors: &'a [Ancestor<'a>],
) -> Subject<'a> {
    let process = identity.map(|identity| &identity.process);
    let cgroup = process.and_then(|process| process.cgroup.as_ref());
    let pod = identity.and_then(|identity| identity.pod.as_ref());
    Subject {
        pid: task.pid,
        uid: Some(task.uid),
        user: identity.and_then(|identity| identity.user.as_deref()),
        comm: &task.comm,
        exe: process.and_then(Process::exe_by_name),
        exe_sha256: identity.and_then(|identity| identity.exe_sha256.as_deref()),
        ancestors,
        cgroup: cgroup.map(|cgroup| &cgroup.path[..]),
        container: cgroup.and_then(|cgroup| cgroup.container.as_ref()).map(|container| &container.id[..]),
        image: pod.and_then(|pod| pod.image.as_deref()),
        pod_uid: cgroup.and_then(|cgroup| cgroup.pod_uid.as_deref()),
        pod: pod.map(|pod| Pod { namespace: &pod.namespace, name: &pod.name, labels: &pod.labels }),
        has_read: &[],
    }
}

/// A finding as policies see it: of its own kind, or one of the daemon's own records that say that the evidence is worse
/// than it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub kind: &'static str,
    pub severity: Severity,
    pub entity: String,
    pub text: String,
}

impl Found {
    pub(super) fn object(&self) -> Object<'_> {
        Object::Finding { kind: self.kind, severity: self.severity, entity: &self.entity, text: &self.text }
    }
}

pub(super) fn finding(what: &What) -> Option<Found> {
    let found =
        |kind, severity, entity: &str, text: String| Some(Found { kind, severity, entity: entity.to_owned(), text });
    match what {
        What::Finding(Finding { kind, severity, entity, text, .. }) => found(kind, *severity, entity, text.clone()),
        What::Loss(loss) => {
            let text = format!("{} events of {} were lost ({})", loss.count, loss.what, loss.place);
            found("evidence.loss", Severity::Medium, &loss.what, text)
        }
        What::Gap(gap) => {
            let severity = if gap.orderly || gap.reboot { Severity::Low } else { Severity::High };
            let why = match (gap.reboot, gap.orderly) {
                (true, _) => "the machine was started anew",
                (false, true) => "the daemon was stopped",
                (false, false) => "the daemon ended without a stop",
            };
            found("evidence.gap", severity, "log", format!("nobody watched until now: {why}"))
        }
        What::Stop(stop) => found("evidence.stop", Severity::Low, "log", format!("the daemon stops: {}", stop.reason)),
        What::Hook(hook) => {
            let severity = match hook.sight {
                Sight::Sees | Sight::NotNeeded => return None,
                // Known since the start, and of this kernel.
                Sight::Blind => Severity::Low,
                Sight::Silent => Severity::High,
            };
            found("evidence.hook", severity, &hook.name, format!("hook {}: {}", hook.name, hook.state))
        }
        What::Disk(disk) => {
            let severity = match disk.state {
                DiskState::Enough => return None,
                DiskState::Low => Severity::Medium,
                DiskState::Critical | DiskState::Full => Severity::High,
            };
            let text = format!("room for the log: {} ({} bytes free)", disk.state.as_str(), disk.free_bytes);
            found("evidence.disk", severity, "log", text)
        }
        What::ClockStep(step) => {
            found("evidence.clock", Severity::Low, "clock", format!("the wall clock was set by {} ns", step.by_ns))
        }
        _ => None,
    }
}
