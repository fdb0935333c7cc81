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
