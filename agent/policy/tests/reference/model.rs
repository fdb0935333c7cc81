//! Rules and events as plain data, and the plainest evaluator: it knows globs by backtracking and networks by their bits,
//! and shares no code with the library.

use std::net::IpAddr;

use plumbline_policy::Access;

/// A rule as plain data.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Entries of `subject`, which name no objects.
    pub subjects: Vec<Exception>,
    pub when: When,
    pub except: Vec<Exception>,
}

#[derive(Debug, Clone)]
pub enum When {
    File {
        watch: Vec<String>,
        accesses: Vec<Access>,
        path: Option<String>,
        while_served: bool,
    },
    Connect {
        from: Option<(IpAddr, u8)>,
        to: Option<(IpAddr, u8)>,
        not_to: Vec<(IpAddr, u8)>,
        not_to_names: Vec<String>,
        port: Option<u16>,
        udp: bool,
        after_reading: Option<String>,
    },
}

#[derive(Debug, Clone, Default)]
pub struct Exception {
    pub exe: Vec<String>,
    pub comm: Option<String>,
    pub uid: Option<u32>,
    pub cgroup: Option<String>,
    pub unit: Option<String>,
    pub descendants_of: Option<String>,
    pub container: Option<String>,
    pub user: Option<String>,
    pub namespace: Option<String>,
    pub label: Option<(String, String)>,
    pub image: Option<String>,
    pub exe_sha256: Option<String>,
    /// In file rules.
    pub path: Option<String>,
    /// In connect rules.
    pub to: Option<(IpAddr, u8)>,
    pub to_name: Option<String>,
    pub port: Option<u16>,
}

/// Namespace, labels, image.
pub type Pod = (String, Vec<(String, String)>, Option<String>);

#[derive(Debug, Clone)]
pub struct Event {
    pub exe: Option<String>,
    pub comm: String,
    pub uid: u32,
    pub cgroup: Option<String>,
    pub container: Option<String>,
    pub ancestors: Vec<Option<String>>,
    pub user: Option<String>,
    pub pod: Option<Pod>,
    pub exe_sha256: Option<String>,
    pub access: Access,
    pub is_served: Option<bool>,
    pub source: Option<IpAddr>,
    pub path: String,
    pub path_truncated: bool,
    pub watched: Option<String>,
    pub address: IpAddr,
    pub names: Vec<String>,
    pub port: u16,
    pub udp: bool,
    pub is_file: bool,
    /// Names and watched directories of files that were read.
    pub has_read: Vec<(Option<String>, Option<String>)>,
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        // `/**` at the end is everything below; in the middle any number of whole components.
        [b'/', b'*', b'*'] => text.len() > 1 && text[0] == b'/',
        [b'/', b'*', b'*', b'/', rest @ ..] => {
            let tail: Vec<u8> = [b"/", rest].concat();
            (0..text.len()).any(|at| text[at] == b'/' && (at == 0 || text[0] == b'/') && glob(&tail, &text[at..]))
        }
        [b'*', rest @ ..] => {
            let run = text.iter().position(|&byte| byte == b'/').unwrap_or(text.len());
            (0..=run).any(|taken| glob(rest, &text[taken..]))
        }
        [b'?', rest @ ..] => matches!(text, [byte, more @ ..] if *byte != b'/' && glob(rest, more)),
        [byte, rest @ ..] => matches!(text, [other, more @ ..] if byte == other && glob(rest, more)),
    }
}

fn at_or_below(pattern: &str, path: &str) -> bool {
    (1..=path.len()).any(|end| {
        (end == path.len() || path.as_bytes()[end] == b'/') && glob(pattern.as_bytes(), &path.as_bytes()[..end])
    })
}

fn bits(address: IpAddr) -> (Vec<bool>, bool) {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => match v6.octets() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, a, b, c, d] => vec![a, b, c, d],
            all => all.to_vec(),
        },
    };
    let v4 = octets.len() == 4;
    (octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect(), v4)
}

fn inside(address: IpAddr, (network, prefix): (IpAddr, u8)) -> bool {
    let (address, network) = (bits(address), bits(network));
    address.1 == network.1 && address.0[..prefix as usize] == network.0[..prefix as usize]
}

/// As [`glob`], with dots for slashes and without the rest of its language.
fn name_glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', b'*', b'.', rest @ ..] => {
            (1..name.len()).any(|at| name[0] != b'.' && name[at] == b'.' && name_glob(rest, &name[at + 1..]))
        }
        [b'*', rest @ ..] => {
            let run = name.iter().position(|&byte| byte == b'.').unwrap_or(name.len());
            (0..=run).any(|taken| name_glob(rest, &name[taken..]))
        }
        [byte, rest @ ..] => matches!(name, [other, more @ ..] if byte == other && name_glob(rest, more)),
    }
}

fn is_named(event: &Event, pattern: &str) -> bool {
    event.names.iter().any(|name| pattern == "*" || name_glob(pattern.as_bytes(), name.as_bytes()))
}

/// Whether the event is of somebody whom these speak of.
pub fn spoken_of(subjects: &[Exception], event: &Event) -> bool {
    subjects.is_empty() || subjects.iter().any(|subject| excused(subject, event))
}

fn excused(exception: &Exception, event: &Event) -> bool {
    let mut holds = Vec::new();
    if !exception.exe.is_empty() {
        let exe = event.exe.as_deref();
        holds.push(exe.is_some_and(|exe| exception.exe.iter().any(|g| glob(g.as_bytes(), exe.as_bytes()))));
    }
    if let Some(comm) = &exception.comm {
        holds.push(*comm == event.comm);
    }
    if let Some(uid) = exception.uid {
        holds.push(uid == event.uid);
    }
    if let Some(pattern) = &exception.cgroup {
        holds.push(event.cgroup.as_ref().is_some_and(|cgroup| at_or_below(pattern, cgroup)));
    }
    if let Some(pattern) = &exception.unit {
        let unit =
            event.cgroup.iter().flat_map(|cgroup| cgroup.split('/')).find(|c| !c.is_empty() && !c.ends_with(".slice"));
        holds.push(unit.is_some_and(|unit| {
            (unit.ends_with(".service") || unit.ends_with(".scope")) && glob(pattern.as_bytes(), unit.as_bytes())
        }));
    }
    if let Some(pattern) = &exception.descendants_of {
        holds.push(event.ancestors.iter().flatten().any(|exe| glob(pattern.as_bytes(), exe.as_bytes())));
    }
    if let Some(prefix) = &exception.container {
        holds.push(event.container.as_ref().is_some_and(|id| id.starts_with(prefix)));
    }
    if let Some(user) = &exception.user {
        holds.push(event.user.as_ref() == Some(user));
    }
    if let Some(pattern) = &exception.namespace {
        holds.push(event.pod.as_ref().is_some_and(|(namespace, _, _)| glob(pattern.as_bytes(), namespace.as_bytes())));
    }
    if let Some(label) = &exception.label {
        holds.push(event.pod.as_ref().is_some_and(|(_, labels, _)| labels.contains(label)));
    }
    if let Some(pattern) = &exception.image {
        let image = event.pod.as_ref().and_then(|(_, _, image)| image.as_ref());
        holds.push(image.is_some_and(|image| glob(pattern.as_bytes(), image.as_bytes())));
    }
    if let Some(digest) = &exception.exe_sha256 {
        holds.push(event.exe_sha256.as_ref() == Some(digest));
    }
    if let Some(pattern) = &exception.path {
        holds.push(event.is_file && !event.path_truncated && glob(pattern.as_bytes(), event.path.as_bytes()));
    }
    if exception.to.is_some() || exception.to_name.is_some() {
        let by_address = exception.to.is_some_and(|network| inside(event.address, network));
        let by_name = exception.to_name.as_ref().is_some_and(|pattern| is_named(event, pattern));
        holds.push(!event.is_file && (by_address || by_name));
    }
    if let Some(port) = exception.port {
        holds.push(!event.is_file && event.port == port);
    }
    holds.into_iter().all(|one| one)
}

pub fn matches(rule: &Rule, event: &Event) -> bool {
    let covered = match &rule.when {
        When::File { watch, accesses, path, while_served } if event.is_file => {
            let below = |path: &str| watch.iter().any(|pattern| at_or_below(pattern, path));
            let is_below = match (&event.watched, event.path_truncated) {
                (None, true) => true,
                (watched, truncated) => watched.as_deref().is_some_and(below) || (!truncated && below(&event.path)),
            };
            let done = |wanted: &Access| match wanted {
                Access::Change => {
                    matches!(event.access, Access::Write | Access::Rename | Access::Link | Access::Unlink)
                }
                // What is mapped is read.
                Access::Read => matches!(event.access, Access::Read | Access::Map),
                other => *other == event.access,
            };
            let is_named = |pattern: &String| event.path_truncated || glob(pattern.as_bytes(), event.path.as_bytes());
            is_below
                && accesses.iter().any(done)
                && path.as_ref().is_none_or(is_named)
                && (!while_served || event.is_served != Some(false))
        }
        When::Connect { from, to, not_to, not_to_names, port, udp, after_reading } if !event.is_file => {
            let read_below = |pattern: &String| {
                let below = |path: &Option<String>| path.as_deref().is_some_and(|path| at_or_below(pattern, path));
                event.has_read.iter().any(|(path, watched)| below(path) || below(watched))
            };
            (*udp || !event.udp)
                && from.is_none_or(|network| event.source.is_some_and(|source| inside(source, network)))
                && to.is_none_or(|network| inside(event.address, network))
                && port.is_none_or(|port| port == event.port)
                && !not_to.iter().any(|&network| inside(event.address, network))
                && !not_to_names.iter().any(|pattern| is_named(event, pattern))
                && after_reading.as_ref().is_none_or(read_below)
        }
        _ => false,
    };
    covered && spoken_of(&rule.subjects, event) && !rule.except.iter().any(|exception| excused(exception, event))
}
