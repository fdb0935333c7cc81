//! What the probes cost each process, and what is given up when that is too much. Pure: counts, costs and times come from outside.

use std::collections::{BTreeMap, HashMap};

use super::{
    account::Hits,
    hooks::Counted,
    part::{Part, Thinned},
};

/// A process by its number and its start.
pub type Process = (u32, u64);

/// A process that uses less is taken to use so much of a core: what is a large share of next to nothing disturbs nobody.
const LEAST_CPU_SHARE: f64 = 0.1;

/// What was given up is looked at again when all of it would cost less than this part of what it may.
const COME_BACK_BELOW: f64 = 0.5;

#[derive(Debug)]
pub struct Budget {
    /// Of a process's CPU time.
    share: f64,
    thinned: Thinned,
    seen_ns: u64,
    before: HashMap<Process, Before>,
}

#[derive(Debug)]
struct Before {
    hits: BTreeMap<Counted, u64>,
    cpu_ns: u64,
    spent_ns: u64,
}

/// What the probes cost one process in one interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub pid: u32,
    /// In the order of [`Part::ALL`].
    by_part_ns: [u64; Part::ALL.len()],
    /// What the process used, or is taken to have used.
    cpu_ns: f64,
    /// Since it is looked at.
    pub spent_ns: u64,
}

impl Cost {
    /// Of its CPU time, with so much given up.
    fn share_without(&self, thinned: Thinned) -> f64 {
        let kept = Part::ALL.into_iter().zip(self.by_part_ns).filter(|(part, _)| !thinned.has(*part));
        super::account::float(kept.map(|(_, ns)| ns).sum()) / self.cpu_ns
    }

    pub fn share(&self) -> f64 {
        self.share_without(Thinned::Nothing)
    }
}

/// More or less is given up from now on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub thinned: Thinned,
    /// The process of which the probes take the largest share, and that share; nobody where nobody calls any more.
    pub dearest: Option<(u32, f64)>,
}

impl Budget {
    pub fn new(share: f64) -> Self {
        Self { share, thinned: Thinned::Nothing, seen_ns: 0, before: HashMap::new() }
    }

    pub const fn thinned(&self) -> Thinned {
        self.thinned
    }

    pub const fn share(&self) -> f64 {
        self.share
    }

    /// Everything that is wanted is looked at again, until it turns out to be too much.
    pub const fn begin_anew(&mut self) {
        self.thinned = Thinned::Nothing;
    }

    /// What was spent since the last time. Of a process that was not seen before it is not known since when it has used its CPU time.
    pub fn observe(
        &mut self,
        now_ns: u64,
        hits: &Hits,
        cost_ns: impl Fn(Counted) -> (Part, u64),
        cpu_ns: impl Fn(u32) -> Option<u64>,
    ) -> Vec<Cost> {
        let elapsed_ns = now_ns.saturating_sub(self.seen_ns);
        self.seen_ns = now_ns;
        self.before.retain(|process, _| hits.contains_key(process));
        let mut costs = Vec::new();
        for (&process, hits) in hits {
            let Some(cpu_ns) = cpu_ns(process.0) else { continue };
            let Some(before) = self.before.get_mut(&process) else {
                self.before.insert(process, Before { hits: hits.clone(), cpu_ns, spent_ns: 0 });
                continue;
            };
            let mut by_part_ns = [0; Part::ALL.len()];
            for (counted, count) in hits {
                let more = count.saturating_sub(before.hits.get(counted).copied().unwrap_or(0));
                let (part, ns) = cost_ns(*counted);
                by_part_ns[part as usize] += more.saturating_mul(ns);
            }
            let used_ns = super::account::float(cpu_ns.saturating_sub(before.cpu_ns));
            let least_ns = LEAST_CPU_SHARE * super::account::float(elapsed_ns);
            let spent_ns = before.spent_ns.saturating_add(by_part_ns.iter().sum());
            *before = Before { hits: hits.clone(), cpu_ns, spent_ns };
            costs.push(Cost { pid: process.0, by_part_ns, cpu_ns: used_ns.max(least_ns).max(1.0), spent_ns });
        }
        costs
    }

    /// Gives up what costs too much; after a sample, in which all that is wanted was looked at, also takes up again what does not any more.
    pub fn decide(&mut self, costs: &[Cost], is_sample: bool) -> Option<Change> {
        let worst = |thinned: Thinned| costs.iter().map(|cost| cost.share_without(thinned)).fold(0.0, f64::max);
        let within = |share: f64| Thinned::ALL.into_iter().find(|thinned| worst(*thinned) <= share);
        // Where nothing is enough, what gives most, and no more of it than gives something.
        let least = || Thinned::ALL.into_iter().min_by(|one, other| worst(*one).total_cmp(&worst(*other)));
        let wanted = within(self.share).or_else(least).unwrap_or_default();
        let thinned = if wanted > self.thinned {
            wanted
        } else if is_sample {
            within(self.share * COME_BACK_BELOW).filter(|back| *back < self.thinned)?
        } else {
            return None;
        };
        self.thinned = thinned;
        let dearest = costs.iter().max_by(|one, other| one.share().total_cmp(&other.share()));
        Some(Change { thinned, dearest: dearest.map(|cost| (cost.pid, cost.share())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// A microsecond each, by row: 0 launches, 1 steps, 2 the rest.
    fn cost(counted: Counted) -> (Part, u64) {
        let (Counted::Cuda(row) | Counted::Nccl(row)) = counted;
        (Part::ALL[usize::from(row)], 1000)
    }

    /// Seconds in each of which one process, which uses so many milliseconds of CPU, is stopped so often at launches, steps and the rest;
    /// and what is given up after each. A sample is a second that is marked so.
    #[track_caller]
    fn check(cpu_ms: u64, seconds: &[(bool, [u64; 3], Thinned)]) {
        let mut budget = Budget::new(0.005);
        let (mut hits, mut cpu_ns) = (BTreeMap::from([0, 1, 2].map(|row| (Counted::Cuda(row), 0))), 0);
        let mut now_ns = SECOND_NS;
        assert_eq!(budget.observe(now_ns, &[((7, 70), hits.clone())].into(), cost, |_| Some(cpu_ns)), []);
        for (at, (is_sample, more, expect)) in seconds.iter().enumerate() {
            hits.values_mut().zip(more).for_each(|(count, more)| *count += more);
            (now_ns, cpu_ns) = (now_ns + SECOND_NS, cpu_ns + cpu_ms * 1_000_000);
            let costs = budget.observe(now_ns, &[((7, 70), hits.clone())].into(), cost, |_| Some(cpu_ns));
            let change = budget.decide(&costs, *is_sample);
            assert_eq!(budget.thinned(), *expect, "second {at}");
            assert!(
                change
                    .is_none_or(|change| change.thinned == *expect && change.dearest.is_some_and(|(pid, _)| pid == 7)),
                "second {at}"
            );
        }
    }

    #[test]
    fn what_is_within_the_budget_is_looked_at() {
        check(1000, &[(true, [4000, 500, 400], Thinned::Nothing), (false, [4000, 500, 400], Thinned::Nothing)]);
    }

    #[test]
    fn launches_are_given_up_first_then_steps_and_the_rest_never() {
        check(1000, &[(false, [20_000, 100, 100], Thinned::Launches), (false, [0, 100, 100], Thinned::Launches)]);
        check(
            1000,
            &[(false, [20_000, 100, 100], Thinned::Launches), (false, [0, 5000, 100], Thinned::LaunchesAndSteps)],
        );
        check(1000, &[(false, [20_000, 20_000, 100], Thinned::LaunchesAndSteps)]);
        // Not what would give nothing.
        check(1000, &[(false, [0, 0, 50_000], Thinned::Nothing)]);
        check(1000, &[(false, [0, 1000, 50_000], Thinned::LaunchesAndSteps)]);
    }

    #[test]
    fn what_was_given_up_comes_back_when_a_sample_says_that_it_is_cheap_by_far() {
        let dear = [20_000, 100, 100];
        check(
            1000,
            &[
                (false, dear, Thinned::Launches),
                // Unseen is not cheap.
                (false, [0, 0, 0], Thinned::Launches),
                (true, dear, Thinned::Launches),
                (true, [4000, 0, 0], Thinned::Launches),
                (true, [2000, 100, 100], Thinned::Nothing),
            ],
        );
    }

    #[test]
    fn an_idle_process_is_taken_to_use_a_tenth_of_a_core() {
        check(1, &[(false, [400, 0, 0], Thinned::Nothing), (false, [600, 0, 0], Thinned::Launches)]);
    }

    #[test]
    fn the_share_is_of_all_that_is_wanted_and_what_is_spent_adds_up() {
        let mut budget = Budget::new(0.005);
        let hits = |count| Hits::from([((7, 70), BTreeMap::from([(Counted::Nccl(1), count)]))]);
        for (second, count) in [(1, 5), (2, 1005), (3, 3005)] {
            let costs = budget.observe(second * SECOND_NS, &hits(count), cost, |_| Some(second * SECOND_NS));
            let found = costs.first().map(|cost| (cost.spent_ns, cost.share()));
            assert_eq!(
                found,
                [None, Some((1_000_000, 0.001)), Some((3_000_000, 0.002))][usize::try_from(second).unwrap() - 1]
            );
        }
        // Another process of the same number begins anew.
        let other = Hits::from([((7, 71), BTreeMap::from([(Counted::Nccl(1), 9)]))]);
        assert_eq!(budget.observe(4 * SECOND_NS, &other, cost, |_| Some(SECOND_NS)), []);
    }
}
