//! What is asked and answered, and what is then said of an address.

use std::io;

use proptest::prelude::*;

use super::{resolvers::View, *};
use crate::{
    event::{ConnectHow, Namespaces, Outcome as Ended, Protocol},
    identity::{cgroup::Cgroup, pod::Pod, procfs::Seen},
};

const SECOND: u64 = 1_000_000_000;
const CONFIGURED: &str = "10.0.0.53";
const STRANGER: &str = "198.51.100.9";
const ADDRESS: [u8; 4] = [203, 0, 113, 7];

/// A node whose processes all have this resolv.conf; without one nothing can be read.
struct Files(Option<&'static str>);

impl Processes for Files {
    fn look(&self, _: u32, _: u64) -> Option<Seen> {
        None
    }

    fn cgroup(&self, _: u64) -> Option<Cgroup> {
        None
    }

    fn pod(&self, _: &str, _: Option<&str>) -> Option<Pod> {
        None
    }

    fn view(&self, pid: u32, mnt_ns: u32) -> Option<View> {
        // Process 8 has its own root.
        self.0.map(|_| View { mnt_ns, root_dev: 1, root_ino: u64::from(pid == 8) })
    }

    fn read_below(&self, _: u32, view: View, path: &'static str) -> io::Result<Vec<u8>> {
        match (self.0, path) {
            (_, "etc/resolv.conf") if view.root_ino == 1 => Ok(format!("nameserver {STRANGER}\n").into()),
            (Some(file), "etc/resolv.conf") => Ok(file.into()),
            (Some(_), "run/systemd/resolve/resolv.conf") => Ok(format!("nameserver {STRANGER}\n").into()),
            _ => Err(io::ErrorKind::Other.into()),
        }
    }
}

// Messages, as RFC 1035 spells them, written without the library that reads them.

fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

fn header(id: u16, flags: u16, answers: usize) -> Vec<u8> {
    let counts = [1, u16::try_from(answers).unwrap(), 0, 0];
    [id, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

fn question(id: u16, name: &str) -> Vec<u8> {
    [header(id, 0x0100, 0), labels(name), vec![0, 1, 0, 1]].concat()
}

fn record(owner: &str, kind: u16, ttl_seconds: u32, data: &[u8]) -> Vec<u8> {
    let fixed = [&kind.to_be_bytes()[..], &[0, 1], &ttl_seconds.to_be_bytes()].concat();
    [labels(owner), fixed, u16::try_from(data.len()).unwrap().to_be_bytes().to_vec(), data.to_vec()].concat()
}

fn a(owner: &str, ttl_seconds: u32, address: [u8; 4]) -> Vec<u8> {
    record(owner, 1, ttl_seconds, &address)
}

fn cname(owner: &str, ttl_seconds: u32, of: &str) -> Vec<u8> {
    record(owner, 5, ttl_seconds, &labels(of))
}

fn answer(id: u16, name: &str, records: &[Vec<u8>]) -> Vec<u8> {
    [header(id, 0x8180, records.len()), labels(name), vec![0, 1, 0, 1], records.concat()].concat()
}

/// One node, and what its processes say and hear.
struct Node {
    dns: Dns,
    files: Files,
    boot_ns: u64,
}

impl Node {
    fn new(resolv_conf: Option<&'static str>) -> Self {
        Self { dns: Dns::default(), files: Files(resolv_conf), boot_ns: 1000 * SECOND }
    }

    fn hears(&mut self, direction: Direction, server: &str, bytes: &[u8]) -> &'static str {
        self.takes(&message(direction, Protocol::Udp, server, bytes))
    }

    fn takes(&mut self, message: &DnsMessage) -> &'static str {
        let task = task(7);
        let who = Who { pid: 7, comm: b"resolver".to_vec(), ..Who::default() };
        self.dns.take(message, &task, who, self.boot_ns, &self.files).as_str()
    }

    /// Asks for `name` and is answered with `records`: what is said of the question.
    fn resolves(&mut self, server: &str, name: &str, records: &[Vec<u8>]) -> &'static str {
        let asked = self.hears(Direction::Sent, server, &question(9, name));
        assert_eq!(self.hears(Direction::Received, server, &answer(9, name, records)), "answer");
        asked
    }

    fn at(&mut self, net_ns: NetNs, address: [u8; 4]) -> Resolved {
        self.dns.at((net_ns, address.into(), 443), &task(7), self.boot_ns, &self.files)
    }

    /// The state of [`ADDRESS`] and its names, for a connection that begins now.
    fn connects(&mut self, port: u16) -> String {
        self.connects_as(7, port)
    }

    fn connects_as(&mut self, pid: u32, port: u16) -> String {
        let connect = Connect {
            protocol: Protocol::Tcp,
            address: ADDRESS.into(),
            port,
            how: ConnectHow::Begin,
            denied_by: None,
            source: None,
            net_ns: NetNs { inum: 1, mix: 1 },
        };
        told(&self.dns.of_begin(&connect, &task(pid), self.boot_ns, &self.files))
    }
}

fn task(pid: u32) -> Task {
    Task { pid, namespaces: Namespaces { mnt: 1, net: 1, pid: 1 }, ..Task::default() }
}

fn message(direction: Direction, protocol: Protocol, server: &str, bytes: &[u8]) -> DnsMessage {
    DnsMessage {
        direction,
        protocol,
        server: SocketAddr::new(server.parse().unwrap(), 53),
        net_ns: NetNs { inum: 1, mix: 1 },
        bytes: bytes.to_vec(),
        total_bytes: u32::try_from(bytes.len()).unwrap(),
    }
}

fn told(resolved: &Resolved) -> String {
    let names: Vec<String> = resolved.names.iter().map(|known| known.told.name.clone()).collect();
    format!("{} {}", resolved.state.as_str(), names.join(",")).trim_end().to_owned()
}

const RESOLV_CONF: &str = "nameserver 10.0.0.53\n";

#[test]
fn a_configured_servers_answer_names_the_address_until_it_runs_out() {
    let mut node = Node::new(Some(RESOLV_CONF));
    assert_eq!(node.connects(443), "none");
    assert_eq!(node.resolves(CONFIGURED, "HuggingFace.co", &[a("huggingface.CO", 300, ADDRESS)]), "question");
    assert_eq!(node.connects(443), "matched huggingface.co");
    // The answer's 300 seconds, and a minute.
    node.boot_ns += 360 * SECOND;
    assert_eq!(node.connects(443), "matched huggingface.co");
    node.boot_ns += 1;
    assert_eq!(node.connects(443), "stale huggingface.co");
    node.resolves(CONFIGURED, "huggingface.co", &[a("huggingface.co", 0, ADDRESS)]);
    assert_eq!(node.connects(443), "matched huggingface.co");
}

#[test]
fn an_alias_is_followed_and_the_name_is_the_one_that_was_asked_for() {
    let mut node = Node::new(Some(RESOLV_CONF));
    let chain = [cname("hf.co", 60, "a.cdn.net"), cname("a.cdn.net", 5, "b.cdn.net"), a("b.cdn.net", 60, ADDRESS)];
    node.resolves(CONFIGURED, "hf.co", &chain);
    let known = node.at(NetNs { inum: 1, mix: 1 }, ADDRESS);
    assert_eq!(told(&known), "matched hf.co");
    assert_eq!(known.names[0].told.aliases, ["a.cdn.net", "b.cdn.net"]);
    // The shortest of the chain, and a minute.
    assert_eq!(known.names[0].until_boot_ns, node.boot_ns + 65 * SECOND);
}

#[test]
fn what_an_answer_says_beside_the_question_counts_for_nothing() {
    let mut node = Node::new(Some(RESOLV_CONF));
    let beside = [a("evil.example", 60, [192, 0, 2, 1]), a("hf.co", 60, ADDRESS), cname("hf.co", 60, "evil.example")];
    node.resolves(CONFIGURED, "evil.example", &beside);
    assert_eq!(node.connects(443), "none");
}

#[test]
fn aliases_in_a_circle_end() {
    let mut node = Node::new(Some(RESOLV_CONF));
    let circle = [cname("a.x", 60, "b.x"), cname("b.x", 60, "a.x"), a("c.x", 60, ADDRESS)];
    assert_eq!(node.resolves(CONFIGURED, "a.x", &circle), "question");
    assert_eq!(node.connects(443), "none");
}

#[test]
fn a_server_that_is_not_configured_is_not_believed() {
    let mut node = Node::new(Some(RESOLV_CONF));
    assert_eq!(node.resolves(STRANGER, "hf.co", &[a("hf.co", 60, ADDRESS)]), "not_configured");
    assert_eq!(node.connects(443), "untrusted hf.co");
    // What the configured one says counts, …
    node.resolves(CONFIGURED, "hf.co", &[a("hf.co", 60, ADDRESS)]);
    assert_eq!(node.connects(443), "matched hf.co");
    // … and the stranger takes nothing from it.
    node.resolves(STRANGER, "hf.co", &[a("hf.co", 99_999, ADDRESS)]);
    node.resolves(STRANGER, "evil.example", &[a("evil.example", 60, ADDRESS)]);
    assert_eq!(node.connects(443), "matched hf.co");
    node.boot_ns += 121 * SECOND;
    assert_eq!(node.connects(443), "stale hf.co");
}

#[test]
fn each_process_believes_the_servers_that_it_is_configured_to_ask() {
    let mut node = Node::new(Some(RESOLV_CONF));
    // In the same namespaces, below another root, with a resolv.conf of its own.
    node.resolves(STRANGER, "hf.co", &[a("hf.co", 60, ADDRESS)]);
    assert_eq!(node.connects_as(8, 443), "matched hf.co");
    assert_eq!(node.connects_as(7, 443), "untrusted hf.co");
    node.resolves(CONFIGURED, "real.example", &[a("real.example", 60, ADDRESS)]);
    assert_eq!(node.connects_as(8, 443), "matched hf.co");
    assert_eq!(node.connects_as(7, 443), "matched real.example");
}

#[test]
fn a_time_to_live_beyond_reason_is_not_believed() {
    let mut node = Node::new(Some(RESOLV_CONF));
    node.resolves(CONFIGURED, "hf.co", &[a("hf.co", i32::MAX as u32, ADDRESS)]);
    node.boot_ns += (86_400 + 61) * SECOND;
    assert_eq!(node.connects(443), "stale hf.co");
    // The highest bit set is none at all.
    node.resolves(CONFIGURED, "hf.co", &[a("hf.co", u32::MAX, ADDRESS)]);
    node.boot_ns += 61 * SECOND;
    assert_eq!(node.connects(443), "stale hf.co");
}

#[test]
fn what_nobody_asked_for_pushes_nothing_out() {
    let mut node = Node::new(Some(RESOLV_CONF));
    let names: Vec<String> = (0..8).map(|number| format!("n{number}.example")).collect();
    for name in &names {
        node.resolves(CONFIGURED, name, &[a(name, 60, ADDRESS)]);
    }
    node.hears(Direction::Received, CONFIGURED, &answer(8, "evil.example", &[a("evil.example", 60, ADDRESS)]));
    let known = node.at(NetNs { inum: 1, mix: 1 }, ADDRESS);
    assert_eq!((known.state, known.names.len()), (State::Matched, 8));
}

#[test]
fn an_answer_to_no_question_is_not_believed() {
    let mut node = Node::new(Some(RESOLV_CONF));
    let spoofed = answer(8, "hf.co", &[a("hf.co", 60, ADDRESS)]);
    assert_eq!(node.hears(Direction::Received, CONFIGURED, &spoofed), "unasked");
    assert_eq!(node.connects(443), "untrusted hf.co");
    // The wrong number, the wrong name, the wrong server, too late.
    node.hears(Direction::Sent, CONFIGURED, &question(9, "hf.co"));
    assert_eq!(node.hears(Direction::Received, CONFIGURED, &spoofed), "unasked");
    assert_eq!(node.hears(Direction::Received, CONFIGURED, &answer(9, "hf.com", &[])), "unasked");
    assert_eq!(node.hears(Direction::Received, STRANGER, &answer(9, "hf.co", &[])), "unasked");
    node.boot_ns += 31 * SECOND;
    assert_eq!(node.hears(Direction::Received, CONFIGURED, &answer(9, "hf.co", &[])), "unasked");
}

#[test]
fn where_nobody_can_say_who_is_configured_names_do_not_count() {
    let mut node = Node::new(None);
    assert_eq!(node.resolves(CONFIGURED, "hf.co", &[a("hf.co", 60, ADDRESS)]), "resolvers_unknown");
    assert_eq!(node.connects(443), "untrusted hf.co");
}

#[test]
fn the_configurations_servers_are_believed_instead_of_the_processes_own() {
    let mut node = Node::new(Some(RESOLV_CONF));
    node.dns = Dns::new(Resolvers::new(Some(vec!["198.51.100.0/24".parse().unwrap()])));
    assert_eq!(node.resolves(CONFIGURED, "hf.co", &[a("hf.co", 60, ADDRESS)]), "not_configured");
    assert_eq!(node.resolves(STRANGER, "hf.co", &[a("hf.co", 60, ADDRESS)]), "question");
}

#[test]
fn behind_systemd_resolved_whom_it_asks_is_believed_too() {
    let mut node = Node::new(Some("nameserver 127.0.0.53\n"));
    assert_eq!(node.resolves("127.0.0.53", "hf.co", &[a("hf.co", 60, ADDRESS)]), "question");
    assert_eq!(node.resolves(STRANGER, "hf.co", &[a("hf.co", 60, ADDRESS)]), "question");
    assert_eq!(node.resolves(CONFIGURED, "hf.co", &[]), "not_configured");
}

#[test]
fn without_a_file_this_machine_is_asked() {
    let mut node = Node::new(Some("search example.org\n"));
    assert_eq!(node.resolves("127.0.0.1", "hf.co", &[]), "question");
    assert_eq!(node.resolves(CONFIGURED, "hf.co", &[]), "not_configured");
}

#[test]
fn another_network_namespace_knows_nothing_of_it() {
    let mut node = Node::new(Some(RESOLV_CONF));
    node.resolves(CONFIGURED, "hf.co", &[a("hf.co", 60, ADDRESS)]);
    // The same number, given to another namespace.
    for net_ns in [NetNs { inum: 1, mix: 2 }, NetNs { inum: 2, mix: 1 }] {
        assert_eq!(told(&node.at(net_ns, ADDRESS)), "none");
    }
}

#[test]
fn who_asks_encrypted_is_said_to() {
    let mut node = Node::new(Some(RESOLV_CONF));
    assert_eq!((node.connects(853), node.connects(443)), ("encrypted".into(), "none".into()));
    // Where nothing was ever asked nothing is remembered either.
    node.resolves(CONFIGURED, "other.example", &[]);
    assert_eq!((node.connects(853), node.connects(443)), ("encrypted".into(), "encrypted".into()));
    node.resolves(CONFIGURED, "hf.co", &[a("hf.co", 60, ADDRESS)]);
    assert_eq!(node.connects(443), "matched hf.co");
    // Over HTTPS, by the name of the server.
    let mut node = Node::new(Some(RESOLV_CONF));
    node.resolves(CONFIGURED, "dns.google", &[a("dns.google", 60, ADDRESS)]);
    assert_eq!(node.connects(443), "matched dns.google");
    let net_ns = NetNs { inum: 1, mix: 1 };
    assert_eq!(told(&node.at(net_ns, [192, 0, 2, 1])), "encrypted");
}

#[test]
fn an_end_is_told_as_its_begin_was() {
    let mut node = Node::new(Some(RESOLV_CONF));
    let begin = node.boot_ns;
    node.boot_ns += SECOND;
    node.resolves(CONFIGURED, "late.example", &[a("late.example", 60, ADDRESS)]);
    let end = |duration_ns| ConnectEnd {
        protocol: Protocol::Tcp,
        address: ADDRESS.into(),
        port: 443,
        net_ns: NetNs { inum: 1, mix: 1 },
        outcome: Ended::Closed,
        source: None,
        duration_ns,
        bytes_sent: 0,
        bytes_received: 0,
    };
    let ends = node.boot_ns + 500 * SECOND;
    assert_eq!(told(&node.dns.of_end(&end(ends - begin), &task(7), ends, &node.files)), "none");
    assert_eq!(told(&node.dns.of_end(&end(ends - node.boot_ns), &task(7), ends, &node.files)), "matched late.example");
    assert_eq!(told(&node.dns.of_end(&end(0), &task(7), ends, &node.files)), "stale late.example");
}

#[test]
fn over_tcp_a_whole_message_is_read_with_and_without_its_length() {
    let mut node = Node::new(Some(RESOLV_CONF));
    let framed = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let (asked, answered) = (question(9, "hf.co"), answer(9, "hf.co", &[a("hf.co", 60, ADDRESS)]));
    let tcp = |direction, bytes: &[u8]| message(direction, Protocol::Tcp, CONFIGURED, bytes);
    assert_eq!(node.takes(&tcp(Direction::Sent, &framed(&asked))), "question");
    assert_eq!(node.takes(&tcp(Direction::Received, &answered[..20])), "partial");
    assert_eq!(node.takes(&tcp(Direction::Received, &answered)), "answer");
    assert_eq!(node.takes(&tcp(Direction::Sent, &asked)), "question");
    assert_eq!(node.takes(&tcp(Direction::Received, &framed(&answered))), "answer");
}

#[test]
fn of_a_message_that_was_cut_the_front_is_read() {
    let mut node = Node::new(Some(RESOLV_CONF));
    node.hears(Direction::Sent, CONFIGURED, &question(9, "hf.co"));
    let whole = answer(9, "hf.co", &[a("hf.co", 60, ADDRESS), a("hf.co", 60, [192, 0, 2, 1])]);
    let cut = DnsMessage {
        bytes: whole[..whole.len() - 3].to_vec(),
        ..message(Direction::Received, Protocol::Udp, CONFIGURED, &whole)
    };
    assert_eq!(node.takes(&cut), "answer");
    assert_eq!(node.connects(443), "matched hf.co");
    // The same bytes as a whole message are not one.
    assert_eq!(node.hears(Direction::Received, CONFIGURED, &cut.bytes), "malformed");
}

#[test]
fn malformed_messages_are_counted_by_what_they_are() {
    let mut node = Node::new(Some(RESOLV_CONF));
    for (bytes, expect) in [
        (vec![], "absent"),
        (vec![0; 11], "malformed"),
        // No question; a name that points to itself.
        (header(9, 0, 0)[..4].iter().copied().chain([0; 8]).collect(), "malformed"),
        ([header(9, 0, 0), vec![0xc0, 12, 0, 1, 0, 1]].concat(), "malformed"),
        // CHAOS, an update.
        ([header(9, 0, 0), labels("version.bind"), vec![0, 16, 0, 3]].concat(), "other"),
        ([header(9, 5 << 11, 0), labels("hf.co"), vec![0, 6, 0, 1]].concat(), "other"),
        // An answer that the process itself sends.
        (answer(9, "hf.co", &[]), "other"),
    ] {
        assert_eq!(node.hears(Direction::Sent, CONFIGURED, &bytes), expect, "{bytes:?}");
    }
    let counted: u64 = node.dns.outcomes().map(|(_, count)| count).sum();
    assert_eq!(counted, 7);
}

#[test]
fn names_are_bounded_and_those_that_had_to_go_are_counted() {
    let mut node = Node::new(Some(RESOLV_CONF));
    let net_ns = |number| NetNs { inum: number, mix: 1 };
    let mut fill = |number: u32, name: &str, address: u32, server: &str| {
        let records = [a(name, 600, address.to_be_bytes())];
        for (direction, bytes) in
            [(Direction::Sent, question(9, name)), (Direction::Received, answer(9, name, &records))]
        {
            let message = DnsMessage { net_ns: net_ns(number), ..message(direction, Protocol::Udp, server, &bytes) };
            node.takes(&message);
        }
        (node.dns.len(), node.dns.take_forgotten())
    };
    // One address, more and more names: the number stays, and each that goes is counted.
    let (mut most, mut forgotten) = (0, 0);
    for name in 0..20 {
        let (len, lost) = fill(1, &format!("n{name}.example"), 1, CONFIGURED);
        most = most.max(len);
        forgotten += lost;
    }
    assert_eq!((most, forgotten), (8, 12));
    // A namespace has so many and no more.
    let lost: u64 = (0..9000).map(|address| fill(2, "x.example", 1 << 16 | address, CONFIGURED).1).sum();
    let (len, _) = fill(2, "y.example", 1, CONFIGURED);
    assert!(len <= 8 + 8192 && lost >= 9000 - 8192, "{len}, {lost} lost");
    // More namespaces than there is room for: those with many names stay.
    let lost: u64 = (3..3 + 1100).map(|number| fill(number, "z.example", 1, CONFIGURED).1).sum();
    assert!(lost >= 70, "{lost}");
    assert!(node.dns.namespaces.contains_key(&net_ns(1)) && node.dns.namespaces.contains_key(&net_ns(2)));
    assert!(node.dns.namespaces.len() <= MAX_NAMESPACES);
    let held: usize = node.dns.namespaces.values().map(Namespace::len).sum();
    assert_eq!(held, node.dns.len());
}

proptest! {
    /// Whatever stands in a message, nothing but the question's own chain is taken, and counts stay true.
    #[test]
    fn no_message_panics_or_names_more_than_it_may(
        mut bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            Just(answer(9, "a.b", &[cname("a.b", 60, "c.d"), a("c.d", 60, ADDRESS), a("e.f", 7, [1, 2, 3, 4])])),
        ],
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        more in 0u32..9,
        tcp in any::<bool>(),
    ) {
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let mut node = Node::new(Some(RESOLV_CONF));
        let total_bytes = u32::try_from(bytes.len()).unwrap() + more;
        let hostile = DnsMessage { total_bytes, ..message(Direction::Received, protocol, CONFIGURED, &bytes) };
        node.hears(Direction::Sent, CONFIGURED, &question(9, "a.b"));
        let outcome = node.takes(&hostile);
        let held: usize = node.dns.namespaces.values().map(Namespace::len).sum();
        prop_assert_eq!(held, node.dns.len());
        if let Ok(read) = Message::read(&hostile) {
            prop_assert!(read.answer().map_or(0, |answer| answer.aliases.len()) <= 9);
            prop_assert!(read.question.name.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        }
        if outcome != "answer" {
            prop_assert!(!node.connects(443).starts_with("matched"));
        }
    }
}
