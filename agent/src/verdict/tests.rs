//! What is told once, and what is told again.

use std::net::IpAddr;

use super::*;
use crate::{
    event::{Connect, ConnectEnd, ConnectHow, NetNs, Outcome, Protocol as Transport, Task},
    identity::{
        Who,
        tree::{HasRead, Taken as ReadFile},
    },
};

const READER: &str = "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  rules:\n    - name: reader\n      severity: high\n      effect: alert\n      message: '{read}'\n      match: {connect: {notTo: [10.0.0.0/8], afterReading: [/models]}}\n";

/// A connection that begins at 100 and ends at 200, of a tree that has read at this time: whether each of the two is
/// matched, and is not only a repetition.
#[track_caller]
fn check(read_boot_ns: Option<u64>, expect: (bool, bool)) {
    let policies = PolicySet::from_documents([("p.yaml", READER)]).unwrap();
    let key = FileKey { dev: 1, ino: 2, generation: 0 };
    let read = |at| ReadFile {
        path: Some(b"/models/m".to_vec()),
        key,
        watched: key,
        reader: Who::default(),
        first_boot_ns: at,
        last_boot_ns: at,
        bytes_read: Some(1),
        bytes_faulted: None,
    };
    let address = IpAddr::from([203, 0, 113, 7]);
    let told = |boot_ns: u64, what| {
        let files = read_boot_ns.filter(|at| *at <= boot_ns).map(read).into_iter().collect();
        let identity = Identity { has_read: HasRead { files, left_out: 0 }, ..Identity::default() };
        let event = Event { boot_ns, origin: None, task: Some(Task::default()), what };
        let judgement = judge(&policies, &Vec::new(), &event, Some(&identity)).unwrap();
        !judgement.verdict.is_none() && !judgement.is_repeated
    };
    let begin = Connect {
        protocol: Transport::Tcp,
        address,
        port: 443,
        how: ConnectHow::Begin,
        denied_by: None,
        source: None,
        net_ns: NetNs::default(),
    };
    let end = ConnectEnd {
        protocol: Transport::Tcp,
        address,
        port: 443,
        outcome: Outcome::Closed,
        source: None,
        net_ns: NetNs::default(),
        duration_ns: 100,
        bytes_sent: 7,
        bytes_received: 0,
    };
    assert_eq!((told(100, What::Connect(begin)), told(200, What::ConnectEnd(end))), expect);
}

#[test]
fn a_reader_that_connects_is_told_at_the_begin_and_not_again_at_the_end() {
    check(Some(50), (true, false));
}

#[test]
fn a_read_while_connected_is_told_at_the_end() {
    check(Some(150), (false, true));
}

#[test]
fn who_reads_nothing_or_later_is_not_told() {
    check(None, (false, false));
    check(Some(250), (false, false));
}

#[test]
fn every_name_of_a_watched_directory_is_asked_about() {
    let rule = |name: &str, watch: &str| {
        format!(
            "    - {{name: {name}, severity: low, effect: audit, message: m, match: {{file: {{watch: ['{watch}']}}}}}}\n"
        )
    };
    let text = format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n{}{}{}",
        rule("a", "/data/hf"),
        rule("b", "/home/*/hub"),
        rule("c", "/elsewhere")
    );
    let policies = PolicySet::from_documents([("p.yaml", text.as_str())]).unwrap();
    let key = FileKey { dev: 1, ino: 2, generation: 0 };
    let watched = vec![(key, "/data/hf".into()), (key, "/home/ada/hub".into())];
    let open = crate::event::FileOpen {
        path: b"/data/hf/m".to_vec(),
        path_truncated: false,
        known_as: None,
        key,
        watched: key,
        flags: 0,
        inode_mode: 0o100_644,
        size_bytes: 1,
        links: 1,
        received: false,
        denied_by: None,
    };
    let event = Event { boot_ns: 1, origin: None, task: Some(Task::default()), what: What::FileOpen(open) };
    let judgement = judge(&policies, &watched, &event, None).unwrap();
    let rules: Vec<&str> = judgement.verdict.matched().iter().map(|one| &*one.rule).collect();
    assert_eq!(rules, ["a", "b"]);
}

#[test]
fn a_record_is_about_the_rule_for_which_somebody_is_told() {
    let text = "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  rules:\n    - {name: severe, severity: critical, effect: \
                audit, message: m, match: {connect: {notTo: [10.0.0.0/8]}}}\n    - {name: told, severity: medium, effect: alert, message: m, match: \
                {connect: {notTo: [11.0.0.0/8]}}, throttle: {every: 1h}}\n";
    let policies = PolicySet::from_documents([("p.yaml", text)]).unwrap();
    let connect = Connect {
        protocol: Transport::Tcp,
        address: [203, 0, 113, 7].into(),
        port: 443,
        how: ConnectHow::Begin,
        denied_by: None,
        source: None,
        net_ns: NetNs::default(),
    };
    let event = Event { boot_ns: 1, origin: None, task: Some(Task::default()), what: What::Connect(connect) };
    let mut throttles = Throttles::default();
    let mut about = || {
        let mut judgement = judge(&policies, &Vec::new(), &event, None).unwrap();
        throttles.apply(&mut judgement, 1);
        (judgement.chief().unwrap().rule.to_string(), judgement.is_alert())
    };
    assert_eq!(about(), ("told".to_owned(), true));
    assert_eq!(about(), ("severe".to_owned(), false));
}
