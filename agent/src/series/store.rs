//! The present value of every series: the daemon's own, and what each source last said.
//!
//! A source's reading replaces its former one whole; a failed reading leaves the source's series absent, with its age
//! and its errors counted. Every series has at most [`MAX_LABEL_SETS`] label sets; what comes after goes to `other`.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Kind, Point, Sample, Series, Value,
    agent::{LABEL_OVERFLOW, SOURCE_AGE, SOURCE_ERRORS, SOURCE_UP},
};

/// Label sets per series. A thousand is more than a node has models, rules and GPUs; more is a flood of names.
pub const MAX_LABEL_SETS: usize = 1000;

/// The label value that stands for all that did not fit.
pub const OTHER: &str = "other";

type Labels = Arc<[String]>;

/// All present values.
#[derive(Debug, Default)]
pub struct Store {
    own: BTreeMap<&'static str, Family>,
    sources: BTreeMap<String, Reading>,
    overflow: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Family {
    series: &'static Series,
    values: BTreeMap<Labels, Value>,
}

#[derive(Debug, Default)]
struct Reading {
    points: Vec<Point>,
    taken_boot_ns: u64,
    error: Option<String>,
    errors: u64,
}

impl Store {
    /// Sets a value of the daemon's own.
    pub fn set(&mut self, point: Point) {
        let Point { series, labels, value } = point;
        *self.place(series, labels) = value;
    }

    /// Adds to a counter of the daemon's own.
    pub fn add(&mut self, series: &'static Series, labels: &[&str], more: f64) {
        debug_assert_eq!(series.kind, Kind::Counter, "{}", series.name);
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        if let Value::Number(number) = self.place(series, labels) {
            *number += more;
        }
    }

    /// Replaces all values of a series: what is not among them any more is absent.
    pub fn replace(&mut self, series: &'static Series, points: Vec<Point>) {
        self.own.remove(series.name);
        for point in points {
            self.set(point);
        }
    }

    /// Takes in a reading.
    pub fn take(&mut self, sample: Sample) {
        let reading = self.sources.entry(sample.source).or_default();
        reading.taken_boot_ns = sample.taken_boot_ns;
        match sample.points {
            Ok(points) => {
                let (points, folded) = cap(points);
                (reading.points, reading.error) = (points, None);
                for (name, count) in folded {
                    *self.overflow.entry(name).or_default() += count;
                }
            }
            Err(error) => {
                reading.points.clear();
                reading.error = Some(error);
                reading.errors += 1;
            }
        }
    }

    /// Why a source is absent, by source.
    pub fn absent(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources.iter().filter_map(|(name, reading)| Some((name.as_str(), reading.error.as_deref()?)))
    }

    /// Every present value, series by series, label sets in order.
    pub fn snapshot(&self, now_boot_ns: u64) -> Vec<Point> {
        let mut points: Vec<Point> = Vec::new();
        for family in self.own.values() {
            points.extend(family.values.iter().map(|(labels, value)| Point {
                series: family.series,
                labels: labels.clone(),
                value: value.clone(),
            }));
        }
        for (source, reading) in &self.sources {
            #[expect(clippy::cast_precision_loss, reason = "an age needs no nanoseconds")]
            let age = now_boot_ns.saturating_sub(reading.taken_boot_ns) as f64 / 1e9;
            points.push(Point::new(&SOURCE_UP, &[source], f64::from(u8::from(reading.error.is_none()))));
            points.push(Point::new(&SOURCE_AGE, &[source], age));
            points.push(Point::new(&SOURCE_ERRORS, &[source], lossy(reading.errors)));
            points.extend(reading.points.iter().cloned());
        }
        points.extend(self.overflow.iter().map(|(&name, &count)| Point::new(&LABEL_OVERFLOW, &[name], lossy(count))));
        points.sort_by(|a, b| (a.series.name, &a.labels).cmp(&(b.series.name, &b.labels)));
        // Two sources must not tell the same series with the same labels; the exposition formats forbid it.
        points.dedup_by(|a, b| a.series.name == b.series.name && a.labels == b.labels);
        points
    }

    fn place(&mut self, series: &'static Series, labels: Labels) -> &mut Value {
        let family = self.own.entry(series.name).or_insert_with(|| Family { series, values: BTreeMap::new() });
        let full = family.values.len() >= MAX_LABEL_SETS && !family.values.contains_key(&labels);
        let labels = if full {
            *self.overflow.entry(series.name).or_default() += 1;
            std::iter::repeat_n(OTHER.to_owned(), series.labels.len()).collect()
        } else {
            labels
        };
        family.values.entry(labels).or_insert(Value::Number(0.0))
    }
}

/// Keeps the first [`MAX_LABEL_SETS`] label sets of each series; the numbers of the rest are added up in `other`, and
/// histograms beyond are left out. Says how many were folded, by series.
fn cap(points: Vec<Point>) -> (Vec<Point>, BTreeMap<&'static str, u64>) {
    // So few cannot be too many of one.
    if points.len() <= MAX_LABEL_SETS {
        return (points, BTreeMap::new());
    }
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut others: BTreeMap<&'static str, Point> = BTreeMap::new();
    let mut folded = BTreeMap::new();
    let mut kept = Vec::with_capacity(points.len());
    for point in points {
        let series = point.series;
        let count = counts.entry(series.name).or_default();
        *count += 1;
        if *count <= MAX_LABEL_SETS {
            kept.push(point);
            continue;
        }
        *folded.entry(series.name).or_default() += 1;
        if let Some(more) = point.number() {
            let labels = vec![OTHER; series.labels.len()];
            let other = others.entry(series.name).or_insert_with(|| Point::new(series, &labels, 0.0));
            if let Value::Number(sum) = &mut other.value {
                *sum += more;
            }
        }
    }
    kept.extend(others.into_values());
    (kept, folded)
}

/// Counts are exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "the exposition formats carry floating point numbers")]
fn lossy(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::agent::{EVENTS, LOG_RECORDS};

    fn value(store: &Store, series: &Series, labels: &[&str]) -> Option<f64> {
        let points = store.snapshot(5_000_000_000);
        points.iter().find(|point| point.series == series && *point.labels == *labels).and_then(Point::number)
    }

    fn sample(taken_boot_ns: u64, points: Result<Vec<Point>, String>) -> Sample {
        Sample { source: "gpu".into(), taken_boot_ns, points }
    }

    #[test]
    fn a_failed_reading_makes_the_series_absent_and_is_counted() {
        let mut store = Store::default();
        store.take(sample(1_000_000_000, Ok(vec![Point::new(&LOG_RECORDS, &[], 7.0)])));
        assert_eq!(value(&store, &LOG_RECORDS, &[]), Some(7.0));
        store.take(sample(3_000_000_000, Err("gone".into())));
        assert_eq!(value(&store, &LOG_RECORDS, &[]), None);
        assert_eq!(value(&store, &SOURCE_UP, &["gpu"]), Some(0.0));
        assert_eq!(value(&store, &SOURCE_ERRORS, &["gpu"]), Some(1.0));
        assert_eq!(value(&store, &SOURCE_AGE, &["gpu"]), Some(2.0));
        assert_eq!(store.absent().collect::<Vec<_>>(), [("gpu", "gone")]);
    }

    #[test]
    fn a_flood_of_label_sets_ends_in_other_and_nothing_is_lost_from_the_sum() {
        let mut store = Store::default();
        for kind in 0..MAX_LABEL_SETS + 5 {
            store.add(&EVENTS, &[&kind.to_string()], 1.0);
        }
        assert_eq!(value(&store, &EVENTS, &[OTHER]), Some(5.0));
        assert_eq!(value(&store, &LABEL_OVERFLOW, &["plumbline_events_total"]), Some(5.0));
    }

    #[test]
    fn a_source_that_names_too_much_is_folded_into_other() {
        let mut store = Store::default();
        let points = (0..MAX_LABEL_SETS + 5).map(|kind| Point::new(&EVENTS, &[&kind.to_string()], 2.0)).collect();
        store.take(sample(1, Ok(points)));
        assert_eq!(value(&store, &EVENTS, &[OTHER]), Some(10.0));
        assert_eq!(value(&store, &LABEL_OVERFLOW, &["plumbline_events_total"]), Some(5.0));
    }

    #[test]
    fn a_replaced_family_forgets_what_it_no_longer_says() {
        let mut store = Store::default();
        store.add(&EVENTS, &["open"], 1.0);
        store.replace(&EVENTS, vec![Point::new(&EVENTS, &["connect"], 2.0)]);
        assert_eq!(value(&store, &EVENTS, &["open"]), None);
    }
}
