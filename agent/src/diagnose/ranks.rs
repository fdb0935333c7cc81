//! Ranks of a communicator that hold the others up: one that comes last again and again, and one that does not come.
//!
//! Both are a matter of the rank's process, its CPU and its neighbours there: when it asks is seen here, not how fast its GPU is.

use std::collections::{BTreeMap, HashMap};

use plumbline_policy::Severity;

use crate::{
    cuda::SOURCE,
    event::{Finding, FoundProcess},
    series::{Sample, Value, nccl, nccl::Compared},
};

/// How long others wait for a rank before it is told.
const AWAITED_SECONDS: f64 = 60.0;

/// A rank is late that came last to this share of so many collectives over so long a time, and so late on average.
const LAST_SHARE: f64 = 0.8;
const LEAST_COLLECTIVES: f64 = 50.0;
const WINDOW_NS: u64 = 30_000_000_000;
const LATE_SECONDS: f64 = 0.001;

/// Ranks that are remembered.
const MOST_RANKS: usize = 8192;

/// Communicator and rank, as the series name them, and by what the ranks are compared.
type Rank = (String, String, By);

/// By what ranks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum By {
    Collectives,
    GraphLaunches,
}

impl By {
    const ALL: [Self; 2] = [Self::Collectives, Self::GraphLaunches];

    const fn series(self) -> &'static Compared {
        match self {
            Self::Collectives => &nccl::COLLECTIVES,
            Self::GraphLaunches => &nccl::GRAPH_LAUNCHES,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Collectives => "collectives",
            Self::GraphLaunches => "launches of graphs",
        }
    }
}

#[derive(Debug, Default)]
pub struct Ranks(HashMap<Rank, Known>);

#[derive(Debug)]
struct Known {
    window: Reading,
    since_boot_ns: u64,
    is_late: bool,
    is_awaited: bool,
}

/// What one sample says of a rank.
#[derive(Debug, Clone, Default)]
struct Reading {
    collectives: f64,
    last: f64,
    late_seconds: f64,
    awaited_seconds: f64,
    process: Option<FoundProcess>,
}

impl Ranks {
    /// What begins and ends with this sample.
    pub fn observe(&mut self, sample: &Sample) -> Vec<Finding> {
        // A sample that could not be taken says nothing of anybody.
        let Some(readings) = sample.points.as_ref().ok().filter(|_| sample.source == SOURCE).map(|_| readings(sample))
        else {
            return Vec::new();
        };
        self.0.retain(|rank, _| readings.contains_key(rank));
        let mut findings = Vec::new();
        for (rank, reading) in readings {
            if self.0.len() >= MOST_RANKS && !self.0.contains_key(&rank) {
                continue;
            }
            let fresh = || Known {
                window: reading.clone(),
                since_boot_ns: sample.taken_boot_ns,
                is_late: false,
                is_awaited: false,
            };
            let known = self.0.entry(rank.clone()).or_insert_with(fresh);
            findings.extend(known.awaited(&rank, &reading));
            findings.extend(known.late(&rank, reading, sample.taken_boot_ns));
        }
        findings
    }
}

impl Known {
    fn awaited(&mut self, (comm, rank, _): &Rank, reading: &Reading) -> Option<Finding> {
        let seconds = reading.awaited_seconds;
        let is_awaited = seconds >= AWAITED_SECONDS;
        if is_awaited == self.is_awaited {
            return None;
        }
        self.is_awaited = is_awaited;
        let (kind, severity, text) = if is_awaited {
            let text = format!(
                "rank {rank} of communicator {comm} has not come to a collective to which others of this node came {seconds:.0} s ago"
            );
            ("nccl.awaited", Severity::High, text)
        } else {
            let text = format!("rank {rank} of communicator {comm} is not waited for any more");
            ("nccl.awaited.end", Severity::Low, text)
        };
        Some(finding(kind, severity, comm, text, [("awaited_seconds", seconds)], reading))
    }

    fn late(&mut self, (comm, rank, by): &Rank, reading: Reading, now_boot_ns: u64) -> Option<Finding> {
        let collectives = reading.collectives - self.window.collectives;
        if collectives < 0.0 {
            // It began anew.
            (self.window, self.since_boot_ns) = (reading, now_boot_ns);
            return None;
        }
        if collectives < LEAST_COLLECTIVES || now_boot_ns.saturating_sub(self.since_boot_ns) < WINDOW_NS {
            return None;
        }
        let last_share = (reading.last - self.window.last) / collectives;
        let late_seconds = (reading.late_seconds - self.window.late_seconds) / collectives;
        (self.window, self.since_boot_ns) = (reading.clone(), now_boot_ns);
        let is_late = last_share >= LAST_SHARE && late_seconds >= LATE_SECONDS;
        if is_late == self.is_late {
            return None;
        }
        self.is_late = is_late;
        let figures = format!(
            "last to {:.0} % of {collectives} {}, by {:.2} ms on average",
            100.0 * last_share,
            by.as_str(),
            1e3 * late_seconds
        );
        let (kind, severity, text) = if is_late {
            (
                "nccl.late_rank",
                Severity::Medium,
                format!("rank {rank} of communicator {comm} came {figures}: it is late to ask, whatever its GPU does"),
            )
        } else {
            (
                "nccl.late_rank.end",
                Severity::Low,
                format!("rank {rank} of communicator {comm} is not the late one any more: {figures}"),
            )
        };
        let compared = if *by == By::Collectives { "collectives" } else { "graph_launches" };
        let evidence = [("last_ratio", last_share), ("late_seconds", late_seconds), (compared, collectives)];
        Some(finding(kind, severity, comm, text, evidence, &reading))
    }
}

fn finding<const N: usize>(
    kind: &'static str,
    severity: Severity,
    comm: &str,
    text: String,
    evidence: [(&str, f64); N],
    reading: &Reading,
) -> Finding {
    let evidence = evidence.map(|(name, value)| (name.to_owned(), value)).into();
    let process = reading.process.clone();
    Finding { evidence, process, ..Finding::new(kind, severity, comm.to_owned(), text) }
}

/// Of every rank whose arrivals are compared.
fn readings(sample: &Sample) -> BTreeMap<Rank, Reading> {
    let points = sample.points.as_deref().unwrap_or_default();
    let mut collectives = HashMap::new();
    let mut ranks: BTreeMap<Rank, Reading> = BTreeMap::new();
    let mut processes = HashMap::new();
    for point in points {
        match (&point.value, &*point.labels) {
            (Value::Histogram(histogram), [comm]) => {
                if let Some(by) = By::ALL.into_iter().find(|by| *by.series().skew_seconds == *point.series) {
                    collectives.insert((comm.clone(), by), histogram.count);
                }
            }
            (Value::Number(number), [comm, rank]) => {
                let mut set = |by, to: fn(&mut Reading) -> &mut f64| {
                    *to(ranks.entry((comm.clone(), rank.clone(), by)).or_default()) = *number;
                };
                if *point.series == nccl::AWAITED_SECONDS {
                    set(By::Collectives, |reading| &mut reading.awaited_seconds);
                }
                for by in By::ALL {
                    if *point.series == *by.series().last {
                        set(by, |reading| &mut reading.last);
                    } else if *point.series == *by.series().lateness_seconds {
                        set(by, |reading| &mut reading.late_seconds);
                    }
                }
            }
            (_, [pid, name, .., comm, rank, _]) if *point.series == nccl::RANK_INFO => {
                let process = pid.parse().ok().map(|pid| FoundProcess { pid, name: name.clone() });
                processes.insert((comm.clone(), rank.clone()), process);
            }
            _ => {}
        }
    }
    for (rank, reading) in &mut ranks {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let count = collectives.get(&(rank.0.clone(), rank.2)).map_or(0.0, |count| *count as f64);
        reading.collectives = count;
        reading.process = processes.get(&(rank.0.clone(), rank.1.clone())).cloned().flatten();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Histogram, Point};

    const SECOND_NS: u64 = 1_000_000_000;

    /// At each second: collectives so far, and of ranks 0 and 1 how often last, how late in all, and for how long awaited; and what begins or
    /// ends.
    type Step<'a> = (u64, u64, [(f64, f64, f64); 2], &'a [&'a str]);

    #[track_caller]
    fn check(readings: &[Step<'_>]) {
        let mut ranks = Ranks::default();
        for (second, collectives, of_ranks, expect) in readings {
            let skew = Histogram { buckets: Vec::new(), sum: 0.0, count: *collectives };
            let mut points = vec![Point::histogram(&nccl::ARRIVAL_SKEW_SECONDS, &["0xc"], skew)];
            for ((last, late, awaited), rank) in of_ranks.iter().zip(["0", "1"]) {
                let info = ["77", "python3", "", "", "", "0xc", rank, "2"];
                points.push(Point::new(&nccl::RANK_INFO, &info, 1.0));
                points.push(Point::new(&nccl::LAST_ARRIVALS_TOTAL, &["0xc", rank], *last));
                points.push(Point::new(&nccl::LATENESS_SECONDS_TOTAL, &["0xc", rank], *late));
                points.push(Point::new(&nccl::AWAITED_SECONDS, &["0xc", rank], *awaited));
            }
            let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns: second * SECOND_NS, points: Ok(points) };
            let found = ranks.observe(&sample);
            assert!(found.iter().all(|finding| finding.process.as_ref().is_some_and(|process| process.pid == 77)));
            let words: Vec<String> =
                found.iter().map(|finding| format!("{} {}", finding.kind, &finding.text[..6])).collect();
            assert_eq!(words, *expect, "second {second}");
        }
    }

    #[test]
    fn a_rank_that_comes_last_again_and_again_is_told_once_and_its_end_too() {
        check(&[
            (0, 0, [(0.0, 0.0, 0.0), (0.0, 0.0, 0.0)], &[]),
            // Too soon, then long enough.
            (20, 100, [(5.0, 0.0, 0.0), (95.0, 0.5, 0.0)], &[]),
            (31, 200, [(10.0, 0.0, 0.0), (190.0, 1.0, 0.0)], &["nccl.late_rank rank 1"]),
            (62, 300, [(15.0, 0.0, 0.0), (285.0, 1.5, 0.0)], &[]),
            (93, 400, [(65.0, 0.0, 0.0), (335.0, 1.9, 0.0)], &["nccl.late_rank.end rank 1"]),
        ]);
    }

    #[test]
    fn who_is_last_by_nothing_or_last_in_turn_or_of_few_is_not_late() {
        check(&[
            (0, 0, [(0.0, 0.0, 0.0), (0.0, 0.0, 0.0)], &[]),
            (31, 1000, [(0.0, 0.0, 0.0), (1000.0, 0.2, 0.0)], &[]),
            (62, 1100, [(50.0, 0.5, 0.0), (1050.0, 0.7, 0.0)], &[]),
            (93, 1110, [(50.0, 0.5, 0.0), (1060.0, 5.7, 0.0)], &[]),
        ]);
    }

    #[test]
    fn a_rank_that_does_not_come_is_told_once_and_when_it_has_come() {
        check(&[
            (0, 10, [(0.0, 0.0, 0.0), (0.0, 0.0, 59.0)], &[]),
            (5, 10, [(0.0, 0.0, 0.0), (0.0, 0.0, 64.0)], &["nccl.awaited rank 1"]),
            (10, 10, [(0.0, 0.0, 0.0), (0.0, 0.0, 69.0)], &[]),
            (15, 11, [(0.0, 0.0, 0.0), (0.0, 0.0, 0.0)], &["nccl.awaited.end rank 1"]),
        ]);
    }

    #[test]
    fn a_rank_that_launches_its_graphs_late_is_told_as_such() {
        let mut ranks = Ranks::default();
        let mut told = Vec::new();
        for (second, count, last, late) in [(0, 0, 0.0, 0.0), (31, 100, 95.0, 0.5)] {
            let skew = Histogram { buckets: Vec::new(), sum: 0.0, count };
            let points = vec![
                Point::histogram(&nccl::GRAPH_LAUNCH_SKEW_SECONDS, &["0xc"], skew.clone()),
                // Nobody is late to collectives, of which there are as many.
                Point::histogram(&nccl::ARRIVAL_SKEW_SECONDS, &["0xc"], skew),
                Point::new(&nccl::RANK_INFO, &["77", "python3", "", "", "", "0xc", "1", "2"], 1.0),
                Point::new(&nccl::LAST_ARRIVALS_TOTAL, &["0xc", "1"], 0.0),
                Point::new(&nccl::GRAPH_LAUNCH_LAST_TOTAL, &["0xc", "1"], last),
                Point::new(&nccl::GRAPH_LAUNCH_LATENESS_SECONDS_TOTAL, &["0xc", "1"], late),
            ];
            let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns: second * SECOND_NS, points: Ok(points) };
            told.extend(ranks.observe(&sample));
        }
        let [Finding { kind: "nccl.late_rank", text, process: Some(FoundProcess { pid: 77, .. }), .. }] = &*told else {
            panic!("{told:?}")
        };
        assert!(text.contains("came last to 95 % of 100 launches of graphs, by 5.00 ms on average"), "{text}");
    }

    #[test]
    fn a_sample_of_somebody_else_or_of_nothing_ends_nothing() {
        let mut ranks = Ranks::default();
        let points = vec![Point::new(&nccl::AWAITED_SECONDS, &["0xc", "1"], 99.0)];
        let sample = |source: &str, points| Sample { source: source.to_owned(), taken_boot_ns: SECOND_NS, points };
        assert_eq!(ranks.observe(&sample(SOURCE, Ok(points))).len(), 1);
        assert_eq!(ranks.observe(&sample("gpu", Ok(Vec::new()))), []);
        assert_eq!(ranks.observe(&sample(SOURCE, Err("gone".to_owned()))), []);
        assert_eq!(ranks.0.len(), 1);
    }
}
