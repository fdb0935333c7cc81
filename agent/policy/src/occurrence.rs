//! An event that owns its bytes: from a policy's test, or from a record of the log.

use std::net::IpAddr;

use crate::facts::{
    Accesses, Ancestor, BpfHow, BpfKind, DeviceKind, Facts, File, MemoryHow, Object, Pod, Protocol, Subject, Taken,
};
use crate::fields::{Fields, Problems, each, integer, list, optional_text, text};
use crate::object::{EVENT_FIELDS, Kind};
use crate::policy::Severity;
use crate::problem::InvalidPolicy;
use crate::shape::{Field, Holds, Shape, optional, required};
use crate::yaml::{self, Node, Value};

/// [`Facts`] that own their bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    pub subject: OwnedSubject,
    pub object: OwnedObject,
}

/// [`Subject`] that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedSubject {
    pub pid: u32,
    pub uid: Option<u32>,
    pub user: Option<String>,
    pub comm: Vec<u8>,
    pub exe: Option<Vec<u8>>,
    pub exe_sha256: Option<String>,
    /// Executables, parent first.
    pub ancestors: Vec<Option<Vec<u8>>>,
    pub cgroup: Option<Vec<u8>>,
    pub container: Option<String>,
    pub image: Option<String>,
    pub pod_uid: Option<String>,
    pub pod: Option<OwnedPod>,
    /// Watched files that its tree has read.
    pub has_read: Vec<OwnedTaken>,
}

/// [`Taken`] that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedTaken {
    pub path: Option<Vec<u8>>,
    pub watched: Option<Vec<u8>>,
}

/// [`Pod`] that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedPod {
    pub namespace: String,
    pub name: String,
    pub labels: Vec<(String, String)>,
}

/// [`Object`] that owns its bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedObject {
    File {
        accesses: Accesses,
        path: Vec<u8>,
        path_truncated: bool,
        watched: Option<String>,
        artefact: Option<String>,
        bytes: Option<u64>,
        percent: Option<u8>,
        is_served: Option<bool>,
    },
    Connect {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        names: Vec<String>,
        source: Option<IpAddr>,
    },
    Exec {
        path: Vec<u8>,
        is_nameless: bool,
    },
    Device {
        kind: DeviceKind,
        path: Vec<u8>,
    },
    Memory {
        how: MemoryHow,
    },
    Bpf {
        kind: BpfKind,
        name: Vec<u8>,
        how: BpfHow,
    },
    Local {
        name: Vec<u8>,
    },
    Socket {
        family: String,
    },
    Finding {
        kind: String,
        severity: Severity,
        entity: String,
        text: String,
    },
}

impl Occurrence {
    /// Reads an event as a test of a policy writes it, from a file of its own; `name` is what its mistakes are reported
    /// under.
    pub fn parse(name: &str, text: &str) -> Result<Self, InvalidPolicy> {
        let mut problems = Problems::new();
        let event = match yaml::parse(text) {
            Ok(root) => read(&root, &mut problems),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        match event {
            Some(event) if problems.is_empty() => Ok(event),
            _ => Err(InvalidPolicy::of_event(name, text, problems)),
        }
    }

    /// Lends the facts to `look`.
    pub fn lend<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let subject = &self.subject;
        let ancestors: Vec<Ancestor<'_>> =
            subject.ancestors.iter().map(|exe| Ancestor { exe: exe.as_deref(), comm: b"" }).collect();
        let has_read: Vec<Taken<'_>> = subject
            .has_read
            .iter()
            .map(|taken| Taken { path: taken.path.as_deref(), watched: taken.watched.as_deref() })
            .collect();
        let names: Vec<&str> = match &self.object {
            OwnedObject::Connect { names, .. } => names.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        look(&Facts {
            subject: Subject {
                pid: subject.pid,
                uid: subject.uid,
                user: subject.user.as_deref(),
                comm: &subject.comm,
                exe: subject.exe.as_deref(),
                exe_sha256: subject.exe_sha256.as_deref(),
                ancestors: &ancestors,
                cgroup: subject.cgroup.as_deref(),
                container: subject.container.as_deref(),
                image: subject.image.as_deref(),
                pod_uid: subject.pod_uid.as_deref(),
                pod: subject.pod.as_ref().map(|pod| Pod {
                    namespace: &pod.namespace,
                    name: &pod.name,
                    labels: &pod.labels,
                }),
                has_read: &has_read,
            },
            object: self.object.lend(&names),
        })
    }
}

impl OwnedObject {
    fn lend<'a>(&'a self, names: &'a [&'a str]) -> Object<'a> {
        match self {
            Self::File { accesses, path, path_truncated, watched, artefact, bytes, percent, is_served } => {
                Object::File(File {
                    accesses: *accesses,
                    path,
                    path_truncated: *path_truncated,
                    watched: watched.as_deref().map(str::as_bytes),
                    artefact: artefact.as_deref(),
                    bytes: *bytes,
                    percent: *percent,
                    is_served: *is_served,
                })
            }
            Self::Connect { protocol, address, port, source, .. } => {
                Object::Connect { protocol: *protocol, address: *address, port: *port, names, source: *source }
            }
            Self::Exec { path, is_nameless } => Object::Exec { path, is_nameless: *is_nameless },
            Self::Device { kind, path } => Object::Device { kind: *kind, path },
            Self::Memory { how } => Object::Memory { how: *how },
            Self::Bpf { kind, name, how } => Object::Bpf { kind: *kind, name, how: *how },
            Self::Local { name } => Object::Local { name },
            Self::Socket { family } => Object::Socket { family },
            Self::Finding { kind, severity, entity, text } => {
                Object::Finding { kind, severity: *severity, entity, text }
            }
        }
    }
}

pub(crate) static EVENT: Shape = Shape {
    what: "an event",
    about: "What happened: one kind of object, and the process that did it. What is left out is not known.",
    fields: &FIELDS,
};

const WHO: &[Field] = &[optional("process", Holds::One(&PROCESS), "who did it")];

/// The process, and every kind of object.
const FIELDS: [&[Field]; EVENT_FIELDS.len() + 1] = {
    let mut fields = [WHO; EVENT_FIELDS.len() + 1];
    let mut kind = 0;
    while kind < EVENT_FIELDS.len() {
        fields[kind + 1] = EVENT_FIELDS[kind];
        kind += 1;
    }
    fields
};

const PROCESS_FIELDS: &[Field] = &[
    optional("pid", Holds::Integer(0, u32::MAX as u64), "0 by default"),
    optional("uid", Holds::Integer(0, u32::MAX as u64), "not known by default"),
    optional("user", Holds::Text, "the name of the user id on the host"),
    optional("comm", Holds::Text, "the task's name, empty by default"),
    optional("exe", Holds::Text, "the path of the executable"),
    optional("exeSha256", Holds::Text, "its SHA-256"),
    optional("ancestors", Holds::Many(&ANCESTOR), "the processes above, the parent first"),
    optional("cgroup", Holds::Text, "the path below the cgroup mount"),
    optional("container", Holds::Text, "the container id"),
    optional("image", Holds::Text, "the container's image"),
    optional("namespace", Holds::Text, "the pod's namespace"),
    optional("pod", Holds::Text, "the pod's name"),
    optional("podLabels", Holds::Labels, "the pod's labels"),
    optional("hasRead", Holds::TextList, "paths of watched files that its tree has read"),
];

static PROCESS: Shape = Shape { what: "a process", about: "Who did it.", fields: &[PROCESS_FIELDS] };

static ANCESTOR: Shape = Shape {
    what: "an ancestor",
    about: "A process above.",
    fields: &[&[required("exe", Holds::Text, "the path of its executable")]],
};

/// Reads an event as a test of a policy writes it.
pub(crate) fn read(node: &Node, problems: &mut Problems) -> Option<Occurrence> {
    let fields = Fields::of(node, &EVENT, problems)?;
    let subject = match fields.get("process") {
        Some(node) => process(node, problems),
        None => Some(OwnedSubject::default()),
    };
    let names: Vec<&'static str> = EVENT.names().filter(|name| *name != "process").collect();
    let (name, node) = fields.exactly_one(&names, problems)?;
    let object = (Kind::find(name)?.read_event)(node, problems);
    Some(Occurrence { subject: subject?, object: object? })
}

fn process(node: &Node, problems: &mut Problems) -> Option<OwnedSubject> {
    let fields = Fields::of(node, &PROCESS, problems)?;
    let before = problems.len();
    let mut number = |name: &str| match fields.get(name) {
        Some(node) => integer(node, &format!("`{name}`"), "0 to 4294967295", problems),
        None => Some(0),
    };
    let (pid, uid) = (number("pid"), number("uid"));
    let ancestors = match fields.get("ancestors") {
        Some(node) => each(list(node, "`ancestors`", problems)?, problems, |item, problems| {
            let fields = Fields::of(item, &ANCESTOR, problems)?;
            Some(Some(text(fields.get("exe")?, "`exe`", problems)?.as_bytes().to_vec()))
        }),
        None => Some(Vec::new()),
    };
    let has_read = match fields.get("hasRead") {
        Some(node) => each(list(node, "`hasRead`", problems)?, problems, |item, problems| {
            let path = text(item, "a path", problems)?.as_bytes().to_vec();
            Some(OwnedTaken { path: Some(path), watched: None })
        }),
        None => Some(Vec::new()),
    };
    let mut words = |name: &str| optional_text(&fields, name, problems);
    let bytes = |text: String| text.into_bytes();
    let (namespace, name) = (words("namespace"), words("pod"));
    let subject = OwnedSubject {
        pid: pid?,
        uid: fields.get("uid").and(uid),
        user: words("user"),
        comm: words("comm").map(bytes).unwrap_or_default(),
        exe: words("exe").map(bytes),
        exe_sha256: words("exeSha256"),
        ancestors: ancestors?,
        cgroup: words("cgroup").map(bytes),
        container: words("container"),
        image: words("image"),
        pod_uid: None,
        pod: None,
        has_read: has_read?,
    };
    let labels = fields.get("podLabels").map_or(Some(Vec::new()), |node| labels(node, problems))?;
    let is_in_pod = namespace.is_some() || name.is_some() || !labels.is_empty();
    let pod = is_in_pod.then(|| OwnedPod {
        namespace: namespace.unwrap_or_default(),
        name: name.unwrap_or_default(),
        labels,
    });
    (problems.len() == before).then_some(OwnedSubject { pod, ..subject })
}

fn labels(node: &Node, problems: &mut Problems) -> Option<Vec<(String, String)>> {
    let Value::Map(entries) = &node.value else {
        problems.push(crate::fields::wrong_type(node, "`podLabels` is a mapping of labels"));
        return None;
    };
    let value = |(key, node): &(yaml::Key, Node)| {
        Some((key.name.clone(), text(node, "the value of a label", problems)?.to_owned()))
    };
    entries.iter().map(value).collect()
}
