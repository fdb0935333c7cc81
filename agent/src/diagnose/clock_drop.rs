//! A busy GPU whose clock fell below what it lately ran at: a throttle that no counter names, a neighbour's power, a cap that
//! somebody set.
//!
//! An idle GPU lowers its clocks by itself, so that only readings under load count, for the baseline and against it.

use std::{collections::HashMap, sync::Arc};

use plumbline_policy::Severity;

use crate::{
    event::Finding,
    series::{
        Sample,
        gpu::{activity::UTILIZATION_RATIO, clock::CLOCK_HERTZ},
    },
};

/// Busy is what is busy for so much of the driver's sampling period.
const BUSY: f64 = 0.5;

/// Busy readings for so long make a baseline.
const BASELINE_NS: u64 = 30_000_000_000;

/// After so long a reading weighs half in the baseline.
const HALF_LIFE_NS: f64 = 60e9;

/// A clock below this share of the baseline is a drop, and above the other it is over.
const DROP: f64 = 0.8;
const RECOVERED: f64 = 0.9;

/// For so long without a reading of another kind: less is a moment between two kernels.
const LOW_NS: u64 = 2_000_000_000;

/// After so long without load the baseline is of another time.
const FORGET_NS: u64 = 120_000_000_000;

/// GPUs that are remembered.
const MOST_GPUS: usize = 256;

/// What each GPU lately ran at, by UUID.
#[derive(Debug, Default)]
pub struct ClockDrops(HashMap<Arc<[String]>, Clock>);

#[derive(Debug)]
struct Clock {
    busy_since_boot_ns: u64,
    seen_boot_ns: u64,
    baseline_hertz: f64,
    low_since_boot_ns: Option<u64>,
    is_dropped: bool,
}

impl ClockDrops {
    /// What begins with this sample of one GPU.
    pub fn observe(&mut self, sample: &Sample) -> Option<Finding> {
        let points = sample.points.as_deref().unwrap_or_default();
        let busy = points.iter().find(|point| *point.series == UTILIZATION_RATIO)?;
        if busy.number()? < BUSY {
            if let Some(known) = self.0.get_mut(&busy.labels) {
                known.low_since_boot_ns = None;
            }
            return None;
        }
        let is_sm = |labels: &[String]| labels.last().is_some_and(|clock| clock == "sm");
        let clock = points.iter().find(|point| *point.series == CLOCK_HERTZ && is_sm(&point.labels))?;
        let (hertz, now_boot_ns) = (clock.number()?, sample.taken_boot_ns);
        if self.0.len() >= MOST_GPUS && !self.0.contains_key(&busy.labels) {
            return None;
        }
        let fresh = || Clock {
            busy_since_boot_ns: now_boot_ns,
            seen_boot_ns: now_boot_ns,
            baseline_hertz: hertz,
            low_since_boot_ns: None,
            is_dropped: false,
        };
        let known = self.0.entry(Arc::clone(&busy.labels)).or_insert_with(fresh);
        if now_boot_ns.saturating_sub(known.seen_boot_ns) > FORGET_NS {
            *known = fresh();
        }
        let share = hertz / known.baseline_hertz;
        let has_baseline = now_boot_ns.saturating_sub(known.busy_since_boot_ns) >= BASELINE_NS;
        if has_baseline && share < DROP {
            known.low_since_boot_ns.get_or_insert(now_boot_ns);
        } else {
            known.low_since_boot_ns = None;
            known.is_dropped &= share < RECOVERED;
            // What is low does not become the measure of itself.
            known.settle(hertz, now_boot_ns);
        }
        known.seen_boot_ns = now_boot_ns;
        let is_low = known.low_since_boot_ns.is_some_and(|since| now_boot_ns.saturating_sub(since) >= LOW_NS);
        if !is_low || known.is_dropped {
            return None;
        }
        known.is_dropped = true;
        let uuid = busy.labels.first().cloned().unwrap_or_default();
        let text = format!(
            "the SM clock of {uuid} fell to {:.0} MHz under load, {:.0} % of the {:.0} MHz that it lately ran at",
            hertz / 1e6,
            share * 1e2,
            known.baseline_hertz / 1e6
        );
        let evidence = vec![(CLOCK_HERTZ.name.to_owned(), hertz), ("baseline_hertz".to_owned(), known.baseline_hertz)];
        Some(Finding { evidence, ..Finding::new("gpu.clock_drop", Severity::Medium, uuid, text) })
    }
}

impl Clock {
    fn settle(&mut self, hertz: f64, now_boot_ns: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a share of a minute")]
        let passed_ns = now_boot_ns.saturating_sub(self.seen_boot_ns) as f64;
        let keep = (-passed_ns / HALF_LIFE_NS).exp2();
        self.baseline_hertz = self.baseline_hertz * keep + hertz * (1.0 - keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Point;

    /// Seconds at which a drop is told, of readings once a second: how many, utilisation, megahertz.
    #[track_caller]
    fn check(readings: &[(u64, f64, f64)], expect: &[u64]) {
        let mut drops = ClockDrops::default();
        let each = readings.iter().flat_map(|&(count, busy, mhz)| (0..count).map(move |_| (busy, mhz)));
        let told: Vec<u64> = (0..)
            .zip(each)
            .filter_map(|(second, (busy, mhz))| {
                let labels = ["GPU-1", "0", "true"];
                let points = vec![
                    Point::new(&UTILIZATION_RATIO, &labels, busy),
                    Point::new(&CLOCK_HERTZ, &[labels[0], labels[1], labels[2], "memory"], 1.0),
                    Point::new(&CLOCK_HERTZ, &[labels[0], labels[1], labels[2], "sm"], mhz * 1e6),
                ];
                let sample = Sample {
                    source: "gpu:GPU-1:light".to_owned(),
                    taken_boot_ns: second * 1_000_000_000,
                    points: Ok(points),
                };
                drops.observe(&sample).map(|_| second)
            })
            .collect();
        assert_eq!(told, expect);
    }

    #[test]
    fn a_clock_that_falls_under_load_is_told_once_and_again_after_it_rose() {
        check(&[(40, 1.0, 1755.0), (60, 1.0, 1200.0), (10, 1.0, 1740.0), (9, 1.0, 1200.0)], &[42, 112]);
    }

    #[test]
    fn an_idle_gpu_may_be_slow() {
        check(&[(40, 1.0, 1755.0), (60, 0.0, 345.0), (40, 1.0, 1755.0)], &[]);
    }

    #[test]
    fn a_moment_between_two_kernels_is_no_drop() {
        check(&[(40, 1.0, 1755.0), (2, 1.0, 900.0), (5, 1.0, 1755.0), (2, 1.0, 900.0)], &[]);
    }

    #[test]
    fn low_readings_between_idle_ones_are_not_in_a_row() {
        check(
            &[(40, 1.0, 1755.0), (1, 1.0, 900.0), (5, 0.0, 345.0), (1, 1.0, 900.0), (5, 0.0, 345.0), (1, 1.0, 900.0)],
            &[],
        );
    }

    #[test]
    fn after_a_pause_the_baseline_is_made_anew() {
        check(&[(40, 1.0, 1980.0), (600, 0.0, 345.0), (20, 1.0, 1300.0)], &[]);
    }

    #[test]
    fn without_a_baseline_nothing_is_low() {
        check(&[(5, 1.0, 1755.0), (10, 1.0, 900.0)], &[]);
    }

    #[test]
    fn a_little_less_is_no_drop() {
        check(&[(60, 1.0, 1755.0), (60, 1.0, 1500.0)], &[]);
    }
}
