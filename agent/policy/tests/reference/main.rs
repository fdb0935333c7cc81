//! `decide` equals the plainest evaluator that can be written, and so does what is explained, and what is compiled for the
//! kernel; what was learned excuses what was seen.

use plumbline_policy::{Access, Learner, Object, PolicySet, Subject};
use proptest::prelude::*;

mod generate;
mod lend;
mod model;
mod written;

use generate::{denied, denying, event, rule};
use lend::lend;
use model::{Event, When, matches, spoken_of};
use written::{denying_yaml, yaml};

fn ask(set: &PolicySet, event: &Event) -> Vec<String> {
    lend(event, |facts| set.decide(facts).matched().iter().map(|matched| matched.rule.to_string()).collect())
}

/// Policies that the checker refuses for another reason than their syntax: contradictory, or of rules that never match.
fn set_of(text: &str) -> Option<PolicySet> {
    PolicySet::from_documents([("p.yaml", text)])
        .map_err(|mistakes| {
            let drawn = format!("{mistakes:?}");
            let refused = ["can never match", "contradicts", "would cut the node off"];
            assert!(refused.iter().any(|one| drawn.contains(one)), "{drawn}\n{text}");
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
    fn what_is_compiled_denies_what_the_reference_does(
        subjects in denied(),
        rules in prop::collection::vec(denying(), 1..4),
        events in prop::collection::vec(event(), 20),
    ) {
        let text = denying_yaml(&subjects, &rules);
        let Some(set) = set_of(&text) else { return Ok(()) };
        let denials = set.denials().unwrap();
        let (networks, ports) = (denials.networks(), denials.ports());
        for event in events {
            // The kernel finds a file by the nearest watched directory above it.
            let directories = rules.iter().flat_map(|rule| match &rule.when {
                When::File { watch, .. } => &watch[..],
                When::Connect { .. } => &[],
            });
            let is_above = |directory: &&String| event.path == **directory || event.path.starts_with(&format!("{directory}/"));
            let watched = directories.filter(is_above).max_by_key(|directory| directory.len()).cloned();
            let event = Event { access: Access::Open, path_truncated: false, watched, ..event };
            let expected: Vec<String> = rules
                .iter()
                .enumerate()
                .filter(|(_, rule)| spoken_of(&subjects, &event) && matches(rule, &event))
                .map(|(index, _)| format!("r{index}"))
                .collect();
            let compiled = lend(&event, |facts| {
                let Subject { exe, uid, user, .. } = facts.subject;
                let mut clauses = vec![
                    denials.by_place(&facts.subject),
                    denials.by_program(&exe.into_iter().collect::<Vec<_>>()),
                    denials.by_user(uid, user),
                ];
                match facts.object {
                    Object::File(file) => clauses.push(denials.by_directory(&file.watched.into_iter().collect::<Vec<_>>())),
                    Object::Connect { protocol, address, port, .. } => {
                        let address = address.to_canonical();
                        let around = networks.iter().filter(|network| network.contains(&address));
                        clauses.push(denials.by_network(*around.max_by_key(|network| network.prefix_len()).unwrap()));
                        let range = ports.iter().find(|range| range.contains(&port)).unwrap();
                        clauses.push(denials.by_port(protocol, *range.start()));
                    }
                    _ => unreachable!(),
                }
                denials.denied(&clauses.iter().collect::<Vec<_>>()).and_then(|word| denials.rule(word)).map(|(_, rule)| rule.to_owned())
            });
            prop_assert_eq!(compiled.is_some(), !expected.is_empty(), "{}\n{:?}", text, event);
            prop_assert!(compiled.is_none_or(|rule| expected.contains(&rule)), "{}\n{:?}", text, event);
            prop_assert_eq!(ask(&set, &event), expected, "{}\n{:?}", text, event);
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
        for event in events.iter().filter(|event| event.exe.is_some() && !(event.is_file && event.path_truncated)) {
            prop_assert_eq!(ask(&taught, event), Vec::<String>::new(), "{}\n{:?}", learned, event);
        }
    }
}
