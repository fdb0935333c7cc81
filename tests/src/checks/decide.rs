//! What the kernel's own code says of random events under random rules is what the reference evaluator of the policies says.

use std::{cell::RefCell, collections::HashMap};

use plumbline::{
    event::FileKey,
    probes::deny::{DenyTables, Fact, Generation},
};
use plumbline_policy::{Access, Object, PolicySet, Protocol, Subject, prefixes};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::HOOKS;
use crate::bench::{Bench, Outcome};

#[path = "../../../agent/policy/tests/reference/generate.rs"]
mod generate;
#[path = "../../../agent/policy/tests/reference/lend.rs"]
mod lend;
#[path = "../../../agent/policy/tests/reference/model.rs"]
mod model;
#[path = "../../../agent/policy/tests/reference/written.rs"]
mod written;

use generate::{denied, denying, event};
use model::{Event, Exception, Rule, When, matches, spoken_of};
use written::denying_yaml;

/// With 20 events each: more than ten thousand pairs. An emulated machine asks a tenth.
const CASES: u32 = 600;

pub(super) fn equals_the_reference() -> Outcome {
    let off: Vec<(&str, &str)> = HOOKS.iter().map(|hook| (hook.name, "off")).collect();
    let mut bench = Bench::start(&off, super::RING_BYTES, None)?;
    let tables = DenyTables::take(bench.probes()).map_err(|error| error.to_string())?;
    let kernel = RefCell::new(Kernel { bench, tables, in_force: Generation::default(), tally: [0, 0] });
    let cases = if std::process::id() == 1 { CASES / 10 } else { CASES };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let drawn = (denied(), prop::collection::vec(denying(), 1..4), prop::collection::vec(event(), 20));
    let outcome = runner.run(&drawn, |(subjects, rules, events)| {
        kernel.borrow_mut().check(&subjects, &rules, events).map_err(TestCaseError::fail)
    });
    outcome.map_err(|error| error.to_string())?;
    let [went, denied] = kernel.into_inner().tally;
    println!("# {denied} events were denied and {went} were not, as the reference says");
    // Both must have been asked about.
    if [went, denied].iter().any(|count| *count * 50 < went + denied) {
        return Err(format!("too few of one kind to prove anything: {went} went, {denied} were denied"));
    }
    Ok(())
}

/// Numbers that stand for facts, as inodes and ids do.
#[derive(Default)]
struct Numbers(HashMap<String, u64>);

impl Numbers {
    fn of(&mut self, fact: &str) -> u64 {
        let next = self.0.len() as u64 + 1;
        *self.0.entry(fact.to_owned()).or_insert(next)
    }
}

/// The programs, with what is in their tables.
struct Kernel {
    bench: Bench,
    tables: DenyTables,
    in_force: Generation,
    /// Events that went, and that were denied.
    tally: [u32; 2],
}

impl Kernel {
    fn check(&mut self, subjects: &[Exception], rules: &[Rule], events: Vec<Event>) -> Result<(), String> {
        let text = denying_yaml(subjects, rules);
        // Of some the checker says that they can never match.
        let Ok(set) = PolicySet::from_documents([("p.yaml", text.as_str())]) else { return Ok(()) };
        let denials = set.denials().map_err(|error| error.to_string())?;
        let mut generation = Generation::new(self.in_force.number + 1);
        let mut numbers = Numbers::default();
        let mut put =
            |fact, clauses: &_| self.tables.put(&mut generation, fact, clauses).map_err(|error| error.to_string());
        put(Fact::Program(None), &denials.by_program(&[]))?;
        for network in denials.networks() {
            put(Fact::Network(network), &denials.by_network(network))?;
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for range in denials.ports() {
                for (first, bits) in prefixes(&range) {
                    put(Fact::Ports(protocol, first, bits), &denials.by_port(protocol, *range.start()))?;
                }
            }
        }
        let directories = rules.iter().flat_map(|rule| match &rule.when {
            When::File { watch, .. } => watch.clone(),
            When::Connect { .. } => Vec::new(),
        });
        let directories: Vec<String> = directories.collect();
        let mut questions = Vec::new();
        for event in events {
            let is_above =
                |directory: &&String| event.path == **directory || event.path.starts_with(&format!("{directory}/"));
            let watched = directories.iter().filter(is_above).max_by_key(|directory| directory.len()).cloned();
            let event = Event { access: Access::Open, path_truncated: false, watched, ..event };
            let key = |ino| FileKey { dev: 8 << 20, ino, generation: 7 };
            let mut arguments = [0; 12];
            let place = numbers.of(&format!("{:?}", (&event.cgroup, &event.container, &event.pod)));
            let user = numbers.of(&format!("{:?}", (event.uid, &event.user)));
            let program = event.exe.as_ref().map_or(0, |exe| numbers.of(exe));
            arguments[0] = place;
            (arguments[1], arguments[2], arguments[3]) = (8 << 20, program, 7);
            arguments[4] = user;
            lend::lend(&event, |facts| {
                let Subject { exe, uid, user: name, .. } = facts.subject;
                put(Fact::Cgroup(Some(place)), &denials.by_place(&facts.subject))?;
                let user = u32::try_from(user).map_err(|error| error.to_string())?;
                put(Fact::User(Some(user)), &denials.by_user(uid, name))?;
                if let Some(exe) = exe {
                    put(Fact::Program(Some(key(program))), &denials.by_program(&[exe]))?;
                }
                match facts.object {
                    Object::File(file) => {
                        if let Some(directory) = file.watched {
                            let ino = numbers.of(&format!("directory {directory:?}"));
                            (arguments[6], arguments[7]) = (8 << 20, ino);
                            put(Fact::Directory(key(ino)), &denials.by_directory(&[directory]))?;
                        }
                    }
                    Object::Connect { protocol, address, port, .. } => {
                        arguments[5] = if protocol == Protocol::Tcp { 6 } else { 17 };
                        arguments[6] = u64::from(u16::from_ne_bytes(port.to_be_bytes()));
                        let octets = match address {
                            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                            std::net::IpAddr::V6(v6) => v6.octets(),
                        };
                        let halves: [u64; 2] = zerocopy::transmute!(octets);
                        [arguments[7], arguments[8]] = halves;
                    }
                    _ => return Err("no such object is drawn".to_owned()),
                }
                Ok(())
            })?;
            questions.push((event, arguments));
        }
        self.tables.put_in_force(&generation);
        let old = std::mem::replace(&mut self.in_force, generation);
        self.tables.remove(&old);
        for (event, arguments) in questions {
            let lane = self.bench.probes().ask_kernel(arguments)?;
            let denied = lane.and_then(|lane| denials.rule(lane as usize)).map(|(_, rule)| rule.to_owned());
            let of_event =
                rules.iter().enumerate().filter(|(_, rule)| spoken_of(subjects, &event) && matches(rule, &event));
            let expected: Vec<String> = of_event.map(|(index, _)| format!("r{index}")).collect();
            let is_right = match &denied {
                None => lane.is_none() && expected.is_empty(),
                Some(rule) => expected.contains(rule),
            };
            if !is_right {
                return Err(format!("the kernel says {denied:?}, the reference {expected:?}\n{text}\n{event:?}"));
            }
            self.tally[usize::from(denied.is_some())] += 1;
        }
        Ok(())
    }
}
