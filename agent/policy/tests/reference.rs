//! `decide` equals the plainest evaluator that can be written: one that walks the policy as its author wrote it, knows
//! globs by backtracking and networks by their bits, and shares no code with the library.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plumbline_policy::{
    Access, Accesses, Ancestor, Facts, File, Learner, Object, Pod, PolicySet, Protocol, Subject, Taken,
};
use proptest::prelude::*;

/// A rule as plain data.
#[derive(Debug, Clone)]
struct Rule {
    /// Entries of `subject`, which name no objects.
    subjects: Vec<Exception>,
    when: When,
    except: Vec<Exception>,
}

#[derive(Debug, Clone)]
enum When {
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
struct Exception {
    exe: Vec<String>,
    comm: Option<String>,
    uid: Option<u32>,
    cgroup: Option<String>,
    unit: Option<String>,
    descendants_of: Option<String>,
    container: Option<String>,
    user: Option<String>,
    namespace: Option<String>,
    label: Option<(String, String)>,
    image: Option<String>,
    exe_sha256: Option<String>,
    /// In file rules.
    path: Option<String>,
    /// In connect rules.
    to: Option<(IpAddr, u8)>,
    to_name: Option<String>,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
struct Event {
    exe: Option<String>,
    comm: String,
    uid: u32,
    cgroup: Option<String>,
    container: Option<String>,
    ancestors: Vec<Option<String>>,
    user: Option<String>,
    pod: Option<(String, Vec<(String, String)>, Option<String>)>,
    exe_sha256: Option<String>,
    access: Access,
    is_served: Option<bool>,
    source: Option<IpAddr>,
    path: String,
    path_truncated: bool,
    watched: Option<String>,
    address: IpAddr,
    names: Vec<String>,
    port: u16,
    udp: bool,
    is_file: bool,
    /// Names and watched directories of files that were read.
    has_read: Vec<(Option<String>, Option<String>)>,
}

// The reference.

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

fn matches(rule: &Rule, event: &Event) -> bool {
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
                && (!while_served || event.is_served == Some(true))
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
    let spoken_of = rule.subjects.is_empty() || rule.subjects.iter().any(|subject| excused(subject, event));
    covered && spoken_of && !rule.except.iter().any(|exception| excused(exception, event))
}

// The same rule as its author writes it.

fn yaml(rules: &[Rule]) -> String {
    let mut out = String::from("apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  rules:\n");
    for (index, rule) in rules.iter().enumerate() {
        out += &format!("    - {{name: r{index}, severity: low, effect: audit, message: '{{pid}}', match: ");
        out += &match &rule.when {
            When::File { watch, accesses, path, while_served } => {
                let words: Vec<String> = accesses.iter().map(|access| format!("{access:?}").to_lowercase()).collect();
                let path = path.iter().map(|pattern| format!(", path: {pattern:?}")).collect::<String>();
                format!("{{file: {{watch: {watch:?}, access: {words:?}, whileServed: {while_served}{path}}}}}")
            }
            When::Connect { from, to, not_to, not_to_names, port, udp, after_reading } => {
                let networks = not_to.iter().map(|(address, prefix)| format!("\"{address}/{prefix}\""));
                let names = not_to_names.iter().map(|pattern| format!("{{matchPattern: {pattern:?}}}"));
                let not_to: Vec<String> = networks.chain(names).collect();
                let protocols = if *udp { "[tcp, udp]" } else { "tcp" };
                let after =
                    after_reading.iter().map(|watch| format!(", afterReading: [{watch:?}]")).collect::<String>();
                let of = |(address, prefix): &(IpAddr, u8)| format!("\"{address}/{prefix}\"");
                let from = from.iter().map(|network| format!(", from: {}", of(network))).collect::<String>();
                let to = to.iter().map(|network| format!(", to: {}", of(network))).collect::<String>();
                let port = port.iter().map(|port| format!(", port: {port}")).collect::<String>();
                let not_to = not_to.join(", ");
                format!("{{connect: {{notTo: [{not_to}], protocol: {protocols}{after}{from}{to}{port}}}}}")
            }
        };
        let subjects: Vec<String> = rule.subjects.iter().map(exception_yaml).collect();
        if !subjects.is_empty() {
            out += &format!(", subject: [{}]", subjects.join(", "));
        }
        let except: Vec<String> = rule.except.iter().map(exception_yaml).filter(|one| one != "{}").collect();
        if !except.is_empty() {
            out += &format!(", except: [{}]", except.join(", "));
        }
        out += "}\n";
    }
    out
}

fn exception_yaml(exception: &Exception) -> String {
    let mut fields = Vec::new();
    if !exception.exe.is_empty() {
        fields.push(format!("exe: {:?}", exception.exe));
    }
    fields.extend(exception.comm.iter().map(|comm| format!("comm: {comm:?}")));
    fields.extend(exception.uid.iter().map(|uid| format!("uid: {uid}")));
    fields.extend(exception.cgroup.iter().map(|glob| format!("cgroup: {glob:?}")));
    fields.extend(exception.unit.iter().map(|glob| format!("unit: {glob:?}")));
    fields.extend(exception.descendants_of.iter().map(|glob| format!("descendantsOf: {{exe: {glob:?}}}")));
    fields.extend(exception.container.iter().map(|prefix| format!("container: {prefix:?}")));
    fields.extend(exception.user.iter().map(|name| format!("user: {name:?}")));
    fields.extend(exception.namespace.iter().map(|glob| format!("namespace: {glob:?}")));
    fields.extend(exception.label.iter().map(|(name, value)| format!("podLabels: {{{name}: {value}}}")));
    fields.extend(exception.image.iter().map(|glob| format!("image: {glob:?}")));
    fields.extend(exception.exe_sha256.iter().map(|digest| format!("exeSha256: {digest:?}")));
    fields.extend(exception.path.iter().map(|glob| format!("path: {glob:?}")));
    let networks = exception.to.iter().map(|(address, prefix)| format!("\"{address}/{prefix}\""));
    let names = exception.to_name.iter().map(|pattern| format!("{{matchPattern: {pattern:?}}}"));
    let to: Vec<String> = networks.chain(names).collect();
    fields.extend((!to.is_empty()).then(|| format!("to: [{}]", to.join(", "))));
    fields.extend(exception.port.iter().map(|port| format!("port: {port}")));
    format!("{{{}}}", fields.join(", "))
}

// Small alphabets, so that matches are as frequent as misses.

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "aab", "a.slice", "a.service", "b.scope"]), 1..5)
        .prop_map(|components| format!("/{}", components.join("/")))
}

fn pattern(components: Vec<&'static str>) -> impl Strategy<Value = String> {
    let named = prop::sample::select(vec!["a", "b", "a*", "?b"]);
    (prop::collection::vec(prop::sample::select(components), 0..3), named, prop::bool::ANY).prop_map(
        |(mut components, named, last)| {
            // One component that names something, so that the checker does not refuse the pattern as matching all.
            components.insert(if last { components.len() } else { 0 }, named);
            format!("/{}", components.join("/"))
        },
    )
}

fn file_glob() -> impl Strategy<Value = String> {
    pattern(vec!["a", "b", "*", "a*", "*b", "?", "**"])
}

fn directory_glob() -> impl Strategy<Value = String> {
    pattern(vec!["a", "b", "*", "a*", "*b", "?"])
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        prop::array::uniform4(prop::sample::select(vec![0, 1, 10, 128, 255])).prop_map(|o| Ipv4Addr::from(o).into()),
        prop::array::uniform4(prop::sample::select(vec![0, 1, 10, 128, 255]))
            .prop_map(|o| Ipv4Addr::from(o).to_ipv6_mapped().into()),
        (prop::sample::select(vec![0xfd00u16, 0xfe80, 0xfe81, 0x2001]), any::<u16>())
            .prop_map(|(first, last)| Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last).into()),
    ]
}

fn network() -> impl Strategy<Value = (IpAddr, u8)> {
    prop_oneof![
        (prop::array::uniform4(prop::sample::select(vec![0u8, 1, 10, 128, 255])), 0..=32u8).prop_map(
            |(octets, prefix)| {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                (Ipv4Addr::from(u32::from_be_bytes(octets) & mask).into(), prefix)
            }
        ),
        (prop::sample::select(vec![0xfd00u16, 0xfe80, 0xfe81, 0x2001]), 1..=16u8).prop_map(|(first, prefix)| {
            let kept = first & (u16::MAX << (16 - u16::from(prefix)));
            (Ipv6Addr::new(kept, 0, 0, 0, 0, 0, 0, 0).into(), prefix)
        }),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "aab"]), 1..4).prop_map(|labels| labels.join("."))
}

fn name_pattern() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["a", "b", "*", "a*", "*b", "a*b"]);
    let labels = prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."));
    (prop::sample::select(vec!["", "", "**."]), labels).prop_map(|(front, labels)| format!("{front}{labels}"))
}

fn rarely<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.25, strategy)
}

/// Somebody, by what is known of a process.
fn subject() -> impl Strategy<Value = Exception> {
    let unit = prop::sample::select(vec!["a.service", "*.service", "?.scope"]).prop_map(str::to_owned);
    let word = || prop::sample::select(vec!["a", "b", "a*", "?b"]).prop_map(str::to_owned);
    let label = prop::sample::select(vec![("app", "a"), ("app", "b"), ("tier", "a")]);
    let of_pods = (
        rarely(word()),
        rarely(label.prop_map(|(name, value)| (name.to_owned(), value.to_owned()))),
        rarely(word()),
        rarely(prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned)),
        rarely(digest()),
    );
    (
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(file_glob(), 1..3)],
        rarely(prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned)),
        rarely(0..3u32),
        rarely(file_glob()),
        rarely(unit),
        rarely(file_glob()),
        rarely(Just("0123456789ab".to_owned())),
        of_pods,
    )
        .prop_map(|(exe, comm, uid, cgroup, unit, descendants_of, container, of_pods)| {
            let (namespace, label, image, user, exe_sha256) = of_pods;
            Exception {
                exe,
                comm,
                uid,
                cgroup,
                unit,
                descendants_of,
                container,
                user,
                namespace,
                label,
                image,
                exe_sha256,
                ..Exception::default()
            }
        })
        // The checker refuses one that names nobody.
        .prop_filter("a subject names somebody", |subject| exception_yaml(subject) != "{}")
}

fn digest() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["0", "1"]).prop_map(|digit| digit.repeat(64))
}

fn exception(file: bool) -> impl Strategy<Value = Exception> {
    let object = (rarely(file_glob()), rarely(network()), rarely(name_pattern()), rarely(0..3u16));
    (subject(), object).prop_map(move |(who, (path, to, to_name, port))| Exception {
        path: path.filter(|_| file),
        to: to.filter(|_| !file),
        to_name: to_name.filter(|_| !file),
        port: port.filter(|_| !file),
        ..who
    })
}

const ACCESSES: [Access; 9] = [
    Access::Open,
    Access::Read,
    Access::Map,
    Access::Write,
    Access::Rename,
    Access::Link,
    Access::Unlink,
    Access::Exec,
    Access::Change,
];

fn access() -> impl Strategy<Value = Access> {
    prop::sample::select(ACCESSES.to_vec())
}

fn rule() -> impl Strategy<Value = Rule> {
    let subjects = || prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(subject(), 1..3)];
    let file = (
        subjects(),
        prop::collection::vec(directory_glob(), 1..3),
        prop::collection::vec(access(), 1..4),
        rarely(file_glob()),
        prop::bool::weighted(0.2),
        prop::collection::vec(exception(true), 0..4),
    )
        .prop_map(|(subjects, watch, accesses, path, while_served, except)| Rule {
            subjects,
            when: When::File { watch, accesses, path, while_served },
            except,
        });
    let ends = (rarely(network()), rarely(network()), rarely(0..3u16));
    let connect = (
        subjects(),
        ends,
        prop::collection::vec(network(), 1..4),
        prop::collection::vec(name_pattern(), 0..2),
        any::<bool>(),
        prop::option::of(directory_glob()),
        prop::collection::vec(exception(false), 0..4),
    )
        .prop_map(|(subjects, (from, to, port), not_to, not_to_names, udp, after_reading, except)| Rule {
            subjects,
            when: When::Connect { from, to, not_to, not_to_names, port, udp, after_reading },
            except,
        });
    prop_oneof![file, connect]
}

fn event() -> impl Strategy<Value = Event> {
    let word = || prop::sample::select(vec!["a", "b", "ab"]).prop_map(str::to_owned);
    let labels = prop::sample::subsequence(vec![("app", "a"), ("tier", "a"), ("app", "b")], 0..3)
        .prop_map(|labels| labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    let pod = prop::option::of((word(), labels, prop::option::of(word())));
    let subject = (
        prop::option::of(path()),
        prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
        0..4u32,
        prop::option::of(path()),
        prop::option::of(prop::sample::select(vec!["0123456789abcdef", "ffffffffffff"]).prop_map(str::to_owned)),
        prop::collection::vec(prop::option::of(path()), 0..3),
        prop::option::of(word()),
        pod,
        prop::option::of(digest()),
    );
    let object = (path(), rarely(Just(())), prop::option::of(path()), address(), 0..4u16, any::<bool>(), any::<bool>());
    let more = (access(), any::<Option<bool>>(), prop::option::of(address()));
    let has_read = prop::collection::vec((prop::option::of(path()), prop::option::of(path())), 0..3);
    let names = prop::collection::vec(name(), 0..3);
    (subject, object, more, has_read, names).prop_map(
        |(
            (exe, comm, uid, cgroup, container, ancestors, user, pod, exe_sha256),
            (path, truncated, watched, address, port, udp, is_file),
            (access, is_served, source),
            has_read,
            names,
        )| {
            Event {
                exe,
                comm,
                uid,
                cgroup,
                container,
                ancestors,
                user,
                pod,
                exe_sha256,
                // No event is a change of no kind.
                access: if access == Access::Change { Access::Write } else { access },
                is_served,
                source,
                path,
                path_truncated: truncated.is_some(),
                watched,
                address,
                names,
                port,
                udp,
                is_file,
                has_read,
            }
        },
    )
}

/// Lends the facts of an event to `look`.
fn lend<T>(event: &Event, look: impl FnOnce(&Facts<'_>) -> T) -> T {
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
        uid: event.uid,
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

fn ask(set: &PolicySet, event: &Event) -> Vec<String> {
    lend(event, |facts| set.decide(facts).matched().iter().map(|matched| matched.rule.to_string()).collect())
}

/// Policies that the checker refuses for another reason than their syntax: contradictory, or of rules that never match.
fn set_of(text: &str) -> Option<PolicySet> {
    PolicySet::from_documents([("p.yaml", text)])
        .map_err(|mistakes| {
            let drawn = format!("{mistakes:?}");
            assert!(drawn.contains("can never match") || drawn.contains("contradicts"), "{drawn}\n{text}");
        })
        .ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decide_equals_the_reference(
        rules in prop::collection::vec(rule(), 1..4),
        events in prop::collection::vec(event(), 20),
    ) {
        let text = yaml(&rules);
        let Some(set) = set_of(&text) else { return Ok(()) };
        for event in &events {
            let expected: Vec<String> = rules
                .iter()
                .enumerate()
                .filter(|(_, rule)| matches(rule, event))
                .map(|(index, _)| format!("r{index}"))
                .collect();
            prop_assert_eq!(ask(&set, event), expected.clone(), "{}\n{:?}", text, event);
            // What is explained is what is decided.
            let explained: Vec<String> = lend(event, |facts| {
                set.explain(facts).rules.iter().filter(|says| says.matched.is_some()).map(|says| says.rule.clone()).collect()
            });
            prop_assert_eq!(explained, expected, "{}\n{:?}", text, event);
        }
    }

    #[test]
    fn what_was_learned_excuses_what_was_seen(
        rules in prop::collection::vec(rule(), 1..4),
        events in prop::collection::vec(event(), 20),
    ) {
        let text = yaml(&rules);
        let Some(set) = set_of(&text) else { return Ok(()) };
        let mut learner = Learner::new(&set);
        events.iter().for_each(|event| lend(event, |facts| learner.see(facts, 0)));
        let learned = learner.document("learned", |ms| ms.to_string());
        if !learned.contains("kind: Exceptions") {
            return Ok(());
        }
        let taught = PolicySet::from_documents([("p.yaml", text.as_str()), ("learned.yaml", learned.as_str())]);
        let taught = taught.unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{learned}"));
        // Of whom nothing is known, and of a file whose name is cut, no entry can be made.
        for event in events.iter().filter(|event| event.exe.is_some()) {
            prop_assert_eq!(ask(&taught, event), Vec::<String>::new(), "{}\n{:?}", learned, event);
        }
    }
}
