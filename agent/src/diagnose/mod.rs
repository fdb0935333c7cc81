//! Samples → findings: what is wrong with a part of the node, told once when it begins.
//!
//! A rule is one row of [`RULES`]: a series, what of it is wrong and from which value on. Pure: time comes with the samples,
//! and nothing here asks anybody anything. A finding goes on until a reading denies it; then it can begin anew. What a
//! source does not tell is neither a finding nor the end of one.

mod clock_drop;
mod ranks;

use std::{collections::HashMap, sync::Arc};

use plumbline_policy::Severity;

use self::{clock_drop::ClockDrops, ranks::Ranks};
use crate::{
    event::Finding,
    series::{
        Point, Sample, Series,
        gpu::{GPU, ecc, nvlink, throttle},
    },
};

/// What makes a finding.
struct Rule {
    /// One of [`plumbline_policy::FINDINGS`].
    kind: &'static str,
    severity: Severity,
    series: &'static Series,
    /// Values of the series' last label that count; empty for all.
    labels: &'static [&'static str],
    wrong: Wrong,
    says: fn(&str, f64) -> String,
}

enum Wrong {
    /// It reads this or more.
    Reads(f64),
    /// The counter rose.
    Rose,
    /// It was 1 and is 0.
    Fell,
    /// The counter of seconds rose for more than this share of at least so long a time. Its end is a finding too, with how
    /// long it took.
    ShareOfTime { share: f64, least_ns: u64, end: &'static str },
}

/// What of the time may pass at lower clocks before it is told: clocks move with every burst.
const THROTTLED_SHARE: f64 = 0.1;
const THROTTLED_WINDOW_NS: u64 = 30_000_000_000;

const RULES: &[Rule] = &[
    Rule {
        kind: "gpu.ecc",
        severity: Severity::Critical,
        series: &ecc::MEMORY_ERRORS_TOTAL,
        labels: &["uncorrected"],
        wrong: Wrong::Rose,
        says: |gpu, errors| format!("{gpu} counted {errors} memory errors that it could not correct"),
    },
    Rule {
        kind: "gpu.row_remap_failure",
        severity: Severity::High,
        series: &ecc::ROW_REMAP_FAILED,
        labels: &[],
        wrong: Wrong::Reads(1.0),
        says: |gpu, _| format!("{gpu} could not replace a row of its memory: it ought to be replaced"),
    },
    Rule {
        kind: "gpu.recovery_action",
        severity: Severity::High,
        series: &ecc::RECOVERY_ACTION,
        labels: &[],
        wrong: Wrong::Reads(1.0),
        says: |gpu, action| format!("the driver wants {gpu} {}", recovery_words(action)),
    },
    Rule {
        kind: "gpu.nvlink",
        severity: Severity::High,
        series: &nvlink::NVLINK_UP,
        labels: &[],
        wrong: Wrong::Fell,
        says: |gpu, _| format!("an NVLink of {gpu} went down"),
    },
    Rule {
        kind: "gpu.nvlink_recovery",
        severity: Severity::Medium,
        series: &nvlink::NVLINK_RECOVERIES_TOTAL,
        labels: &[],
        wrong: Wrong::Rose,
        says: |gpu, times| format!("an NVLink of {gpu} was trained anew {times} times while work went on"),
    },
    Rule {
        kind: "gpu.thermal",
        severity: Severity::Medium,
        series: &throttle::THROTTLE_SECONDS_TOTAL,
        labels: &["thermal", "sw_thermal", "hw_thermal"],
        wrong: Wrong::ShareOfTime { share: THROTTLED_SHARE, least_ns: THROTTLED_WINDOW_NS, end: "gpu.thermal.end" },
        says: |gpu, share| format!("{gpu} was slowed down by heat for {:.0} % of the time", share * 100.0),
    },
    // Serving under load runs at the power cap: worth a record, and nobody's alarm.
    Rule {
        kind: "gpu.power",
        severity: Severity::Low,
        series: &throttle::THROTTLE_SECONDS_TOTAL,
        labels: &["sw_power_cap", "hw_power_brake"],
        wrong: Wrong::ShareOfTime { share: THROTTLED_SHARE, least_ns: THROTTLED_WINDOW_NS, end: "gpu.power.end" },
        says: |gpu, share| format!("{gpu} was held down by its power limit for {:.0} % of the time", share * 100.0),
    },
];

/// NVML_GPU_RECOVERY_ACTION of `nvml.h`.
fn recovery_words(action: f64) -> &'static str {
    const WORDS: [(f64, &str); 4] = [
        (1.0, "to be reset"),
        (2.0, "reset by a reboot of the node"),
        (3.0, "and its peers to be drained"),
        (4.0, "to be drained and reset"),
    ];
    let known = WORDS.iter().find(|(number, _)| number.to_bits() == action.to_bits());
    known.map_or("to be recovered in a way that this version does not know", |(_, words)| words)
}

/// Parts of the node that are remembered.
const MAX_PARTS: usize = 4096;

/// A rule's place in the table and the labels of what it looks at.
type Part = (usize, Arc<[String]>);

/// What was read last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    boot_ns: u64,
    number: f64,
    is_wrong: bool,
    /// When what is wrong began, and what the counter was then.
    began: (u64, f64),
}

/// What is known of every part.
#[derive(Debug, Default)]
pub struct Diagnosis {
    seen: HashMap<Part, Seen>,
    clock_drops: ClockDrops,
    ranks: Ranks,
}

impl Diagnosis {
    /// What begins to be wrong with this sample.
    pub fn observe(&mut self, sample: &Sample) -> Vec<Finding> {
        let points = sample.points.as_deref().unwrap_or_default();
        let mut findings: Vec<Finding> = Vec::new();
        for finding in points.iter().flat_map(|point| self.point(point, sample.taken_boot_ns)) {
            // Heat has several reasons; one is enough. Of two links each is told.
            let is_same = |other: &Finding| other.kind == finding.kind && other.entity == finding.entity;
            if !is_of_time(finding.kind) || !findings.iter().any(is_same) {
                findings.push(finding);
            }
        }
        findings.extend(self.clock_drops.observe(sample));
        findings.extend(self.ranks.observe(sample));
        findings
    }

    fn point(&mut self, point: &Point, taken_boot_ns: u64) -> Vec<Finding> {
        let Some(number) = point.number() else { return Vec::new() };
        let mut findings = Vec::new();
        for (index, rule) in RULES.iter().enumerate().filter(|(_, rule)| rule.speaks_of(point)) {
            let part = (index, Arc::clone(&point.labels));
            let before = self.seen.get(&part).copied();
            if before.is_none() && self.seen.len() >= MAX_PARTS {
                continue;
            }
            let now = Seen {
                boot_ns: taken_boot_ns,
                number,
                is_wrong: before.is_some_and(|before| before.is_wrong),
                began: before.map_or((taken_boot_ns, number), |before| before.began),
            };
            let Some((is_wrong, figure)) = rule.judge(before.as_ref(), &now) else {
                // Too soon to say: what was read before stays the beginning of the window.
                self.seen.entry(part).or_insert(now);
                continue;
            };
            if matches!(rule.wrong, Wrong::ShareOfTime { .. }) && before.is_some_and(|before| number < before.number) {
                // The counter began anew: so does the window.
                self.seen.insert(part, Seen { began: (taken_boot_ns, number), ..now });
                continue;
            }
            // It began with the window in which it was seen.
            let window = before.map_or((now.boot_ns, now.number), |before| (before.boot_ns, before.number));
            let began = if is_wrong && now.is_wrong { now.began } else { window };
            self.seen.insert(part, Seen { is_wrong, began, ..now });
            // What reads otherwise is wrong in another way.
            let is_other = matches!(rule.wrong, Wrong::Reads(_))
                && before.is_some_and(|before| before.number.to_bits() != number.to_bits());
            if is_wrong && (!now.is_wrong || is_other) {
                findings.push(rule.finding(point, figure));
            } else if now.is_wrong && !is_wrong && !self.is_wrong_otherwise(index, point) {
                findings.extend(rule.end(point, &now));
            }
        }
        findings
    }
}

impl Diagnosis {
    /// Another reason of the same rule holds the same part of the node.
    fn is_wrong_otherwise(&self, rule: usize, point: &Point) -> bool {
        let of_same = |(other, labels): &Part| *other == rule && labels.first() == point.labels.first();
        self.seen.iter().any(|(part, seen)| of_same(part) && seen.is_wrong)
    }
}

/// A kind of finding about a share of time.
fn is_of_time(kind: &str) -> bool {
    RULES.iter().any(|rule| rule.kind == kind && matches!(rule.wrong, Wrong::ShareOfTime { .. }))
}

impl Rule {
    fn speaks_of(&self, point: &Point) -> bool {
        std::ptr::eq(self.series, point.series)
            && (self.labels.is_empty() || point.labels.last().is_some_and(|label| self.labels.contains(&&**label)))
    }

    /// Whether it is wrong, and the figure that says so; `None` where that cannot be said yet.
    fn judge(&self, before: Option<&Seen>, now: &Seen) -> Option<(bool, f64)> {
        match self.wrong {
            Wrong::Reads(least) => Some((now.number >= least, now.number)),
            Wrong::Fell => Some((now.number < 1.0 && (before?.is_wrong || before?.number >= 1.0), now.number)),
            // A counter that fell began anew: a driver was loaded again.
            Wrong::Rose => Some((now.number > before?.number, now.number - before?.number)),
            Wrong::ShareOfTime { share, least_ns, .. } => {
                let passed_ns = now.boot_ns.saturating_sub(before?.boot_ns);
                if passed_ns < least_ns {
                    return None;
                }
                #[expect(clippy::cast_precision_loss, reason = "a share of a minute")]
                let of_time = (now.number - before?.number).max(0.0) / (passed_ns as f64 / 1e9);
                Some((of_time > share, of_time))
            }
        }
    }

    /// What is over, and how long it took.
    fn end(&self, point: &Point, last: &Seen) -> Option<Finding> {
        let Wrong::ShareOfTime { end, .. } = self.wrong else { return None };
        let entity = point.labels.first().cloned().unwrap_or_default();
        let reason = point.labels.last().map(String::as_str).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let lasted_seconds = last.boot_ns.saturating_sub(last.began.0) as f64 / 1e9;
        let throttled_seconds = (last.number - last.began.1).max(0.0);
        let text = format!(
            "{entity} is not slowed down any more ({reason}): it was for {throttled_seconds:.1} s of {lasted_seconds:.0} s"
        );
        let evidence =
            vec![("throttled_seconds".to_owned(), throttled_seconds), ("lasted_seconds".to_owned(), lasted_seconds)];
        Some(Finding { evidence, ..Finding::new(end, Severity::Low, entity, text) })
    }

    fn finding(&self, point: &Point, figure: f64) -> Finding {
        // Every series of a GPU begins with its UUID.
        let entity = point.labels.first().cloned().unwrap_or_default();
        let mut text = (self.says)(&entity, figure);
        // Which link, which reason.
        let own = point.series.labels.iter().zip(&*point.labels).skip(GPU.len());
        let own: Vec<String> = own.map(|(name, value)| format!("{name} {value}")).collect();
        if !own.is_empty() {
            text += &format!(" ({})", own.join(", "));
        }
        let evidence =
            vec![(self.series.name.to_owned(), point.number().unwrap_or_default()), ("figure".to_owned(), figure)];
        Finding { evidence, ..Finding::new(self.kind, self.severity, entity, text) }
    }
}

#[cfg(test)]
mod tests {
    use plumbline_policy::FINDINGS;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// The kinds that begin at each of these readings: seconds and value.
    #[track_caller]
    fn check(series: &'static Series, label: Option<&str>, readings: &[(u64, f64)], expect: &[&[&str]]) {
        let mut diagnosis = Diagnosis::default();
        let found: Vec<Vec<&str>> = readings
            .iter()
            .map(|(at, number)| {
                let mut labels = vec!["GPU-1", "0", "true"];
                labels.extend(label);
                let points = Ok(vec![Point::new(series, &labels, *number)]);
                let sample = Sample { source: "gpu".into(), taken_boot_ns: at * SECOND_NS, points };
                diagnosis.observe(&sample).iter().map(|finding| finding.kind).collect()
            })
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn errors_count_from_the_first_reading_on() {
        let ecc: &[&str] = &["gpu.ecc"];
        // What was counted before the daemon began is old; a counter that fell began anew.
        let readings = [(0, 5.0), (1, 5.0), (2, 6.0), (3, 8.0), (4, 8.0), (5, 9.0), (6, 0.0)];
        check(&ecc::MEMORY_ERRORS_TOTAL, Some("uncorrected"), &readings, &[&[], &[], ecc, &[], &[], ecc, &[]]);
        check(&ecc::MEMORY_ERRORS_TOTAL, Some("corrected"), &[(0, 0.0), (1, 9.0)], &[&[], &[]]);
    }

    #[test]
    fn a_link_that_went_down_is_told_once_and_one_that_never_was_up_is_not() {
        let nvlink: &[&str] = &["gpu.nvlink"];
        let readings = [(0, 1.0), (1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0), (5, 0.0)];
        check(&nvlink::NVLINK_UP, Some("3"), &readings, &[&[], &[], nvlink, &[], &[], nvlink]);
        check(&nvlink::NVLINK_UP, Some("3"), &[(0, 0.0), (1, 0.0)], &[&[], &[]]);
    }

    #[test]
    fn two_links_that_go_down_at_once_are_two_findings_with_their_numbers() {
        let mut diagnosis = Diagnosis::default();
        let mut found = |second: u64, up: f64| {
            let links = ["3", "4"].map(|link| Point::new(&nvlink::NVLINK_UP, &["GPU-1", "0", "true", link], up));
            let taken_boot_ns = second * SECOND_NS;
            let sample = Sample { source: "gpu:GPU-1:full".into(), taken_boot_ns, points: Ok(links.to_vec()) };
            diagnosis.observe(&sample).into_iter().map(|finding| finding.text).collect::<Vec<_>>()
        };
        assert!(found(0, 1.0).is_empty());
        assert_eq!(found(5, 0.0), ["an NVLink of GPU-1 went down (link 3)", "an NVLink of GPU-1 went down (link 4)"]);
    }

    #[test]
    fn heat_ends_when_its_last_reason_does() {
        let mut diagnosis = Diagnosis::default();
        let mut found = |second: u64, sw: f64, hw: f64| {
            let of = |reason, seconds| {
                Point::new(&throttle::THROTTLE_SECONDS_TOTAL, &["GPU-1", "0", "true", reason], seconds)
            };
            let points = Ok(vec![of("sw_thermal", sw), of("hw_thermal", hw)]);
            let taken_boot_ns = second * SECOND_NS;
            let sample = Sample { source: "gpu:GPU-1:light".into(), taken_boot_ns, points };
            diagnosis.observe(&sample).into_iter().map(|finding| finding.kind).collect::<Vec<_>>()
        };
        assert!(found(0, 0.0, 0.0).is_empty());
        assert_eq!(found(30, 20.0, 20.0), ["gpu.thermal"]);
        assert!(found(60, 20.0, 40.0).is_empty(), "one reason is over, the other is not");
        assert_eq!(found(90, 20.0, 40.0), ["gpu.thermal.end"]);
        // A driver that was loaded anew counts anew: neither a beginning nor an end.
        assert!(found(120, 0.0, 0.0).is_empty());
    }

    #[test]
    fn what_the_driver_wants_done_is_told_when_it_begins() {
        let action: &[&str] = &["gpu.recovery_action"];
        check(
            &ecc::RECOVERY_ACTION,
            None,
            &[(0, 0.0), (5, 1.0), (10, 1.0), (15, 2.0), (20, 0.0)],
            &[&[], action, &[], action, &[]],
        );
        check(&ecc::ROW_REMAP_FAILED, None, &[(0, 1.0), (5, 1.0)], &[&["gpu.row_remap_failure"], &[]]);
    }

    #[test]
    fn heat_is_told_when_it_takes_more_than_a_tenth_of_the_time() {
        let thermal: &[&str] = &["gpu.thermal"];
        let readings = [(0, 0.0), (10, 9.0), (30, 9.0), (60, 10.0), (90, 14.0)];
        let end: &[&str] = &["gpu.thermal.end"];
        check(&throttle::THROTTLE_SECONDS_TOTAL, Some("hw_thermal"), &readings, &[&[], &[], thermal, end, thermal]);
        check(&throttle::THROTTLE_SECONDS_TOTAL, Some("sw_power_cap"), &[(0, 0.0), (60, 60.0)], &[&[], &["gpu.power"]]);
        check(&throttle::THROTTLE_SECONDS_TOTAL, Some("low_utilization"), &[(0, 0.0), (60, 60.0)], &[&[], &[]]);
    }

    #[test]
    fn the_end_of_a_throttle_says_how_long_it_took() {
        let mut diagnosis = Diagnosis::default();
        let mut found = |second: u64, seconds: f64| {
            let labels = ["GPU-1", "0", "true", "hw_thermal"];
            let points = Ok(vec![Point::new(&throttle::THROTTLE_SECONDS_TOTAL, &labels, seconds)]);
            let taken_boot_ns = second * SECOND_NS;
            diagnosis.observe(&Sample { source: "gpu:GPU-1:light".into(), taken_boot_ns, points })
        };
        found(0, 100.0);
        found(30, 110.0);
        found(60, 125.0);
        let end = found(90, 125.5);
        assert_eq!(end[0].text, "GPU-1 is not slowed down any more (hw_thermal): it was for 25.5 s of 90 s");
        assert_eq!(end[0].evidence[0], ("throttled_seconds".to_owned(), 25.5));
    }

    #[test]
    fn every_rule_finds_a_kind_that_policies_know() {
        let is_known = |kind: &str| FINDINGS.iter().any(|(known, _)| *known == kind);
        for rule in RULES {
            assert!(is_known(rule.kind), "{}", rule.kind);
            if let Wrong::ShareOfTime { end, .. } = rule.wrong {
                assert!(is_known(end), "{end}");
            }
        }
        assert!(is_known("gpu.clock_drop"));
    }
}
