//! `decide` equals the plainest evaluator that can be written: one that walks the policy as its author wrote it, knows
//! globs by backtracking and networks by their bits, and shares no code with the library.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plumbline_policy::{Access, Accesses, Ancestor, Facts, File, Object, PolicySet, Protocol, Subject, Taken};
use proptest::prelude::*;

/// A rule as plain data.
#[derive(Debug, Clone)]
struct Rule {
    when: When,
    except: Vec<Exception>,
}

#[derive(Debug, Clone)]
enum When {
    File { watch: Vec<String> },
    Connect { not_to: Vec<(IpAddr, u8)>, not_to_names: Vec<String>, udp: bool, after_reading: Option<String> },
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
        When::File { watch } if event.is_file => {
            let below = |path: &str| watch.iter().any(|pattern| at_or_below(pattern, path));
            match (&event.watched, event.path_truncated) {
                (None, true) => true,
                (watched, truncated) => watched.as_deref().is_some_and(below) || (!truncated && below(&event.path)),
            }
        }
        When::Connect { not_to, not_to_names, udp, after_reading } if !event.is_file => {
            let read_below = |pattern: &String| {
                let below = |path: &Option<String>| path.as_deref().is_some_and(|path| at_or_below(pattern, path));
                event.has_read.iter().any(|(path, watched)| below(path) || below(watched))
            };
            (*udp || !event.udp)
                && !not_to.iter().any(|&network| inside(event.address, network))
                && !not_to_names.iter().any(|pattern| is_named(event, pattern))
                && after_reading.as_ref().is_none_or(read_below)
        }
        _ => false,
    };
    covered && !rule.except.iter().any(|exception| excused(exception, event))
}

// The same rule as its author writes it.

fn yaml(rules: &[Rule]) -> String {
    let mut out = String::from("apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  rules:\n");
    for (index, rule) in rules.iter().enumerate() {
        out += &format!("    - {{name: r{index}, severity: low, effect: audit, message: '{{pid}}', match: ");
        out += &match &rule.when {
            When::File { watch } => format!("{{file: {{watch: {watch:?}}}}}"),
            When::Connect { not_to, not_to_names, udp, after_reading } => {
                let networks = not_to.iter().map(|(address, prefix)| format!("\"{address}/{prefix}\""));
                let names = not_to_names.iter().map(|pattern| format!("{{matchPattern: {pattern:?}}}"));
                let to: Vec<String> = networks.chain(names).collect();
                let protocols = if *udp { "[tcp, udp]" } else { "tcp" };
                let after =
                    after_reading.iter().map(|watch| format!(", afterReading: [{watch:?}]")).collect::<String>();
                format!("{{connect: {{notTo: [{}], protocol: {protocols}{after}}}}}", to.join(", "))
            }
        };
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

fn exception(file: bool) -> impl Strategy<Value = Exception> {
    let unit = prop::sample::select(vec!["a.service", "*.service", "?.scope"]).prop_map(str::to_owned);
    let object = (rarely(file_glob()), rarely(network()), rarely(name_pattern()), rarely(0..3u16));
    (
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(file_glob(), 1..3)],
        rarely(prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned)),
        rarely(0..3u32),
        rarely(file_glob()),
        rarely(unit),
        rarely(file_glob()),
        rarely(Just("0123456789ab".to_owned())),
        object,
    )
        .prop_map(move |(exe, comm, uid, cgroup, unit, descendants_of, container, (path, to, to_name, port))| {
            Exception {
                exe,
                comm,
                uid,
                cgroup,
                unit,
                descendants_of,
                container,
                path: path.filter(|_| file),
                to: to.filter(|_| !file),
                to_name: to_name.filter(|_| !file),
                port: port.filter(|_| !file),
            }
        })
        // The checker refuses one that names nothing.
        .prop_filter("an exception names something", |exception| exception_yaml(exception) != "{}")
}

fn rule() -> impl Strategy<Value = Rule> {
    let file = (prop::collection::vec(directory_glob(), 1..3), prop::collection::vec(exception(true), 0..4))
        .prop_map(|(watch, except)| Rule { when: When::File { watch }, except });
    let connect = (
        prop::collection::vec(network(), 1..4),
        prop::collection::vec(name_pattern(), 0..2),
        any::<bool>(),
        prop::option::of(directory_glob()),
        prop::collection::vec(exception(false), 0..4),
    )
        .prop_map(|(not_to, not_to_names, udp, after_reading, except)| Rule {
            when: When::Connect { not_to, not_to_names, udp, after_reading },
            except,
        });
    prop_oneof![file, connect]
}

fn event() -> impl Strategy<Value = Event> {
    let subject = (
        prop::option::of(path()),
        prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
        0..4u32,
        prop::option::of(path()),
        prop::option::of(prop::sample::select(vec!["0123456789abcdef", "ffffffffffff"]).prop_map(str::to_owned)),
        prop::collection::vec(prop::option::of(path()), 0..3),
    );
    let object = (path(), rarely(Just(())), prop::option::of(path()), address(), 0..4u16, any::<bool>(), any::<bool>());
    let has_read = prop::collection::vec((prop::option::of(path()), prop::option::of(path())), 0..3);
    let names = prop::collection::vec(name(), 0..3);
    (subject, object, has_read, names).prop_map(
        |(
            (exe, comm, uid, cgroup, container, ancestors),
            (path, truncated, watched, address, port, udp, is_file),
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

fn ask(set: &PolicySet, event: &Event) -> Vec<String> {
    let ancestors: Vec<Ancestor<'_>> =
        event.ancestors.iter().map(|exe| Ancestor { exe: exe.as_deref().map(str::as_bytes), comm: b"" }).collect();
    let names: Vec<&str> = event.names.iter().map(String::as_str).collect();
    let object = if event.is_file {
        Object::File(File {
            accesses: Accesses::of([Access::Open]),
            path: event.path.as_bytes(),
            path_truncated: event.path_truncated,
            watched: event.watched.as_deref().map(str::as_bytes),
            ..File::default()
        })
    } else {
        let protocol = if event.udp { Protocol::Udp } else { Protocol::Tcp };
        Object::Connect { protocol, address: event.address, port: event.port, names: &names, source: None }
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
        has_read: &has_read,
        ..Subject::default()
    };
    set.decide(&Facts { subject, object }).matched().iter().map(|matched| matched.rule.to_string()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decide_equals_the_reference(
        rules in prop::collection::vec(rule(), 1..4),
        events in prop::collection::vec(event(), 20),
    ) {
        let text = yaml(&rules);
        let set = PolicySet::from_documents([("p.yaml", text.as_str())])
            .unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{text}"));
        for event in &events {
            let expected: Vec<String> = rules
                .iter()
                .enumerate()
                .filter(|(_, rule)| matches(rule, event))
                .map(|(index, _)| format!("r{index}"))
                .collect();
            prop_assert_eq!(ask(&set, event), expected, "{}\n{:?}", text, event);
        }
    }
}
