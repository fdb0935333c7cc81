//! Random rules and events, over small alphabets, so that matches are as frequent as misses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use plumbline_policy::Access;
use proptest::prelude::*;

use super::{
    model::{Event, Exception, Rule, When},
    written::exception_yaml,
};

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

pub fn rule() -> impl Strategy<Value = Rule> {
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

/// Somebody of whom a rule that denies may speak: by nothing that the kernel does not know.
fn known_to_the_kernel(who: Exception) -> Exception {
    Exception { comm: None, descendants_of: None, exe_sha256: None, path: None, to_name: None, ..who }
}

/// A rule that may deny: what the checker refuses of others is left out.
pub fn denying() -> impl Strategy<Value = Rule> {
    let of_somebody = |who: &Exception| exception_yaml(who) != "{}";
    (rule(), prop::bool::weighted(0.3)).prop_map(move |(rule, is_wide)| {
        let known = |all: Vec<Exception>| all.into_iter().map(known_to_the_kernel).filter(of_somebody).collect();
        let when = match rule.when {
            When::File { watch, .. } => When::File {
                watch: watch.iter().map(|pattern| pattern.replace('*', "a").replace('?', "b")).collect(),
                accesses: vec![Access::Open],
                path: None,
                while_served: false,
            },
            When::Connect { to, not_to, port, udp, .. } => {
                When::Connect { from: None, to, not_to, not_to_names: Vec::new(), port, udp, after_reading: None }
            }
        };
        let mut except: Vec<Exception> = known(rule.except);
        // The same said often changes nothing, and takes another kind of lane.
        while is_wide && (1..=7).contains(&except.len()) {
            except.extend_from_within(..);
        }
        Rule { subjects: known(rule.subjects), when, except }
    })
}

/// Whom a whole policy that denies speaks of.
pub fn denied() -> impl Strategy<Value = Vec<Exception>> {
    let somebody = subject().prop_map(known_to_the_kernel);
    let somebody = somebody.prop_filter("a subject names somebody", |who| exception_yaml(who) != "{}");
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(somebody, 1..3)]
}

pub fn event() -> impl Strategy<Value = Event> {
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
