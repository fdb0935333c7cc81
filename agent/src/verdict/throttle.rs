//! How often somebody is told of the same. Each match is recorded; of alerts that are the same, those within a rule's
//! `throttle.every` after the first are withheld, and counted.

use std::{collections::HashMap, sync::Arc};

use plumbline_policy::{Effect, Matched};

use super::Judgement;

/// What is remembered; beyond it whatever was told longest ago is forgotten, so that it is told again at once.
const MAX_REMEMBERED: usize = 4096;

/// A policy's name, a rule's, and what makes matches the same.
type Key = (Arc<str>, Arc<str>, String);

/// What was told, and when.
#[derive(Debug, Default)]
pub struct Throttles {
    told: HashMap<Key, Told>,
}

#[derive(Debug)]
struct Told {
    boot_ns: u64,
    withheld: u64,
}

impl Throttles {
    /// Says of a judgement whether it is told, at this time; the rules whose alert was withheld.
    pub fn apply<'j>(&mut self, judgement: &'j mut Judgement, now_boot_ns: u64) -> &'j [(Arc<str>, Arc<str>)] {
        let Judgement { verdict, is_repeated, withheld, withheld_before, .. } = judgement;
        if *is_repeated {
            return &[];
        }
        for one in verdict.matched().iter().filter(|one| one.acts() >= Effect::Alert) {
            match self.ask(one, now_boot_ns) {
                Some(before) => *withheld_before += before,
                None => withheld.push((Arc::clone(&one.policy), Arc::clone(&one.rule))),
            }
        }
        withheld
    }

    /// How many were withheld before, if this one is told.
    fn ask(&mut self, one: &Matched, now_boot_ns: u64) -> Option<u64> {
        let Some(telling) = &one.throttle else { return Some(0) };
        let key = (Arc::clone(&one.policy), Arc::clone(&one.rule), telling.key.clone());
        if let Some(told) = self.told.get_mut(&key) {
            // Events of several rings are a little out of order.
            if now_boot_ns.saturating_sub(told.boot_ns) < telling.every_ns {
                told.withheld += 1;
                return None;
            }
            told.boot_ns = now_boot_ns;
            return Some(std::mem::take(&mut told.withheld));
        }
        if self.told.len() >= MAX_REMEMBERED {
            self.forget_half();
        }
        self.told.insert(key, Told { boot_ns: now_boot_ns, withheld: 0 });
        Some(0)
    }

    /// Makes room for many at once, so that it is not done for each.
    fn forget_half(&mut self) {
        let mut times: Vec<u64> = self.told.values().map(|told| told.boot_ns).collect();
        let (_, middle, _) = times.select_nth_unstable(MAX_REMEMBERED / 2);
        let middle = *middle;
        self.told.retain(|_, told| told.boot_ns > middle);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use plumbline_policy::{Facts, Object, PolicySet, Protocol, Subject};

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn judgement(effect: &str, port: u16) -> Judgement {
        let text = format!(
            "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n    - {{name: r, severity: low, effect: {effect}, \
             message: m, match: {{connect: {{notTo: [10.0.0.0/8]}}}}, throttle: {{every: 5m, by: port}}}}\n"
        );
        let policies = PolicySet::from_documents([("p.yaml", text.as_str())]).unwrap();
        let address = IpAddr::from([203, 0, 113, 7]);
        let object = Object::Connect { protocol: Protocol::Tcp, address, port, names: &[], source: None };
        let verdict = policies.decide(&Facts { subject: Subject::default(), object });
        Judgement::of(verdict, false)
    }

    /// Matches on these ports at these seconds: whether each is an alert, and how many were withheld before it.
    #[track_caller]
    fn check(effect: &str, events: &[(u64, u16)], expect: &[(bool, u64)]) {
        let mut throttles = Throttles::default();
        let told: Vec<(bool, u64)> = events
            .iter()
            .map(|(at, port)| {
                let mut judgement = judgement(effect, *port);
                throttles.apply(&mut judgement, at * SECOND_NS);
                (judgement.is_alert(), judgement.withheld_before)
            })
            .collect();
        assert_eq!(told, expect);
    }

    #[test]
    fn the_same_is_told_once_in_a_while_and_says_how_many_there_were() {
        check(
            "alert",
            &[(0, 443), (1, 443), (299, 443), (300, 443), (301, 443)],
            &[(true, 0), (false, 0), (false, 0), (true, 2), (false, 0)],
        );
    }

    #[test]
    fn what_differs_is_told() {
        check("alert", &[(0, 443), (1, 80), (2, 443)], &[(true, 0), (true, 0), (false, 0)]);
    }

    #[test]
    fn what_tells_nobody_is_not_counted() {
        check("audit", &[(0, 443), (1, 443)], &[(false, 0), (false, 0)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut throttles = Throttles::default();
        for port in 0..=u16::MAX {
            throttles.apply(&mut judgement("alert", port), u64::from(port));
            if port > 9000 {
                break;
            }
        }
        assert!(throttles.told.len() <= MAX_REMEMBERED);
    }
}
