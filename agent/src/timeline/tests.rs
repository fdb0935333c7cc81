//! Readings in, windows out, beside a replay that keeps everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{track::FINE, *};
use crate::series::{
    Histogram, Value,
    engine::{GENERATION_TOKENS_TOTAL, KV_CACHE_USAGE_RATIO, TIME_TO_FIRST_TOKEN_SECONDS},
};

const SECOND: u64 = 1_000_000_000;
/// Not at zero, and at the beginning of a slot of every resolution.
const START: u64 = 1000 * SECOND;
const LABELS: [&str; 2] = ["e", "m"];

fn sample(boot_ns: u64, points: Vec<Point>) -> Sample {
    Sample { source: "engine:e".to_owned(), taken_boot_ns: boot_ns, points: Ok(points) }
}

fn failed(boot_ns: u64) -> Sample {
    Sample { source: "engine:e".to_owned(), taken_boot_ns: boot_ns, points: Err("down".to_owned()) }
}

fn counter(value: f64) -> Point {
    Point::new(&GENERATION_TOKENS_TOTAL, &LABELS, value)
}

fn gauge(value: f64) -> Point {
    Point::new(&KV_CACHE_USAGE_RATIO, &LABELS, value)
}

/// Cumulative counts at 1, 2 and without end.
fn histogram(counts: [u64; 3], sum: f64) -> Point {
    let buckets = vec![(1.0, counts[0]), (2.0, counts[1]), (f64::INFINITY, counts[2])];
    Point::histogram(&TIME_TO_FIRST_TOKEN_SECONDS, &LABELS, Histogram { buckets, sum, count: counts[2] })
}

/// Of the counter: once a second these readings, `None` one that failed; then what the span in seconds says.
fn check(readings: &[Option<f64>], span: (u64, u64), expect: Option<(f64, u64)>) {
    let mut timeline = Timeline::default();
    for (second, reading) in (0..).zip(readings) {
        let boot_ns = START + second * SECOND;
        let taken = reading.map_or_else(|| failed(boot_ns), |value| sample(boot_ns, vec![counter(value)]));
        timeline.observe(&taken, false);
    }
    let window = Window { from_boot_ns: START + span.0 * SECOND, to_boot_ns: START + span.1 * SECOND };
    let track = timeline.track(&GENERATION_TOKENS_TOTAL, &LABELS).expect("a track");
    let found = track.increase(window).map(|increase| (increase.amount, increase.covered_ns / SECOND));
    assert_eq!(found, expect, "{readings:?}");
}

#[test]
fn a_counter_is_what_it_counted_between_the_first_reading_of_the_window_and_the_last() {
    check(&[Some(100.0), Some(110.0), Some(130.0)], (0, 3), Some((30.0, 2)));
    check(&[Some(100.0), Some(110.0), Some(130.0)], (1, 3), Some((20.0, 1)));
    check(&[Some(100.0), Some(110.0)], (1, 2), None);
    check(&[Some(100.0)], (0, 9), None);
}

#[test]
fn a_counter_that_fell_was_started_anew_and_all_that_it_holds_is_new() {
    check(&[Some(100.0), Some(110.0), Some(3.0), Some(5.0)], (0, 4), Some((15.0, 3)));
}

#[test]
fn what_was_counted_while_nobody_could_ask_is_in_no_window() {
    check(&[Some(100.0), Some(110.0), None, Some(500.0), Some(501.0)], (0, 5), Some((11.0, 2)));
    check(&[Some(100.0), None, Some(500.0)], (0, 3), None);
}

#[test]
fn a_series_that_was_missing_from_one_reading_has_a_gap_there() {
    let mut timeline = Timeline::default();
    let pages = [vec![counter(1.0)], vec![gauge(0.5)], vec![counter(100.0), gauge(0.7)], vec![counter(103.0)]];
    for (second, points) in (0..).zip(pages) {
        timeline.observe(&sample(START + second * SECOND, points), false);
    }
    let window = Window { from_boot_ns: START, to_boot_ns: START + 9 * SECOND };
    let increase = timeline.track(&GENERATION_TOKENS_TOTAL, &LABELS).and_then(|track| track.increase(window));
    assert_eq!(increase.map(|increase| increase.amount), Some(3.0));
    let gauge = timeline.track(&KV_CACHE_USAGE_RATIO, &LABELS).and_then(|track| track.gauge(window)).expect("a gauge");
    assert_eq!(
        (gauge.slots, gauge.least, gauge.greatest, gauge.last),
        (2, 0.5, f64::from(0.7_f32), f64::from(0.7_f32))
    );
}

#[test]
fn a_histogram_of_a_window_has_only_what_was_observed_in_it() {
    let mut timeline = Timeline::default();
    for (second, point) in
        [histogram([5, 5, 5], 1.0), histogram([5, 9, 10], 12.0), histogram([1, 2, 2], 2.5)].into_iter().enumerate()
    {
        timeline.observe(&sample(START + second as u64 * SECOND, vec![point]), false);
    }
    let track = timeline.track(&TIME_TO_FIRST_TOKEN_SECONDS, &LABELS).expect("a track");
    let of = |from: u64, to: u64| {
        track.distribution(Window { from_boot_ns: START + from * SECOND, to_boot_ns: START + to * SECOND })
    };
    let found = of(0, 3).expect("observations");
    assert_eq!(
        found.histogram,
        Histogram { buckets: vec![(1.0, 1), (2.0, 6), (f64::INFINITY, 7)], sum: 13.5, count: 7 }
    );
    assert_eq!(found.quantile(0.5), Some(1.5));
    assert_eq!(found.quantile(1.0), Some(2.0));
    assert_eq!(of(0, 1), None);
}

#[test]
fn other_buckets_than_before_begin_anew() {
    let mut timeline = Timeline::default();
    timeline.observe(&sample(START, vec![histogram([1, 1, 1], 1.0)]), false);
    timeline.observe(&sample(START + SECOND, vec![histogram([2, 2, 2], 1.0)]), false);
    let other = Histogram { buckets: vec![(7.0, 100), (f64::INFINITY, 100)], sum: 1.0, count: 100 };
    let other = |count| Histogram { buckets: vec![(7.0, count), (f64::INFINITY, count)], ..other.clone() };
    for (second, count) in [(2, 100), (3, 104)] {
        let point = Point::histogram(&TIME_TO_FIRST_TOKEN_SECONDS, &LABELS, Histogram { count, ..other(count) });
        timeline.observe(&sample(START + second * SECOND, vec![point]), false);
    }
    let track = timeline.track(&TIME_TO_FIRST_TOKEN_SECONDS, &LABELS).expect("a track");
    let found =
        track.distribution(Window { from_boot_ns: START, to_boot_ns: START + 9 * SECOND }).expect("observations");
    assert_eq!(found.histogram.buckets, [(7.0, 4), (f64::INFINITY, 4)]);
}

#[test]
fn two_minutes_of_an_incident_five_minutes_and_an_hour_are_remembered() {
    let mut timeline = Timeline::default();
    let mut at = START;
    // Two hours, each second a reading; then an incident, four a second.
    while at < START + 7200 * SECOND {
        timeline.observe(&sample(at, vec![gauge(1.0)]), false);
        at += SECOND;
    }
    let incident = at;
    while at < incident + 60 * SECOND {
        timeline.observe(&sample(at, vec![gauge(2.0)]), true);
        at += SECOND / 4;
    }
    timeline.expire(at);
    let track = timeline.track(&KV_CACHE_USAGE_RATIO, &LABELS).expect("a track");
    let steps = |seconds: u64| {
        let mut steps = BTreeMap::new();
        track.cells(Window::last(seconds * SECOND, at), |_, step_ns, _| *steps.entry(step_ns).or_insert(0_u64) += 1);
        steps.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(steps(30), [(SECOND / 4, 120)]);
    assert_eq!(steps(60), [(SECOND / 4, 240)]);
    assert_eq!(steps(120), [(SECOND, 120)]);
    assert_eq!(steps(300), [(SECOND, 300)]);
    assert_eq!(steps(3600), [(10 * SECOND, 360)]);
    // Two minutes after the incident the series go on, and its slots of a quarter of a second are not kept.
    for second in 0..125 {
        timeline.observe(&sample(at + second * SECOND, vec![gauge(1.0)]), false);
    }
    at += 125 * SECOND;
    timeline.expire(at);
    let track = timeline.track(&KV_CACHE_USAGE_RATIO, &LABELS).expect("a track");
    let steps = |seconds: u64| {
        let mut steps = BTreeMap::new();
        track.cells(Window::last(seconds * SECOND, at), |_, step_ns, _| *steps.entry(step_ns).or_insert(0_u64) += 1);
        steps.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(steps(60), [(SECOND, 60)]);
    // A block goes as a whole.
    assert!(steps(7200)[0].1 <= 420, "{:?}", steps(7200));
    timeline.expire(at + 3600 * SECOND);
    timeline.expire(at + 4800 * SECOND);
    assert_eq!(timeline.account().tracks, 0);
    assert_eq!(timeline.account().used_bytes, 0);
}

#[test]
fn memory_has_an_end_and_what_does_not_fit_is_counted() {
    const LIMIT: usize = 64 * 1024;
    let mut timeline = Timeline::with_limit(LIMIT);
    for second in 0..2000_u32 {
        // Numbers that cannot be written shorter.
        let points = (0..100)
            .map(|part| {
                Point::new(&KV_CACHE_USAGE_RATIO, &["e", &part.to_string()], f64::from(second * 97 + part).sin())
            })
            .collect();
        let taken = Sample { source: "gpu".to_owned(), ..sample(START + u64::from(second) * SECOND, points) };
        timeline.observe(&taken, false);
        assert!(timeline.account().used_bytes <= LIMIT);
    }
    let Account { tracks, refused, forgotten, .. } = timeline.account();
    // One source's share of it.
    let of_source = LIMIT / SHARE_OF_OTHERS / LEAST_BYTES;
    assert_eq!((tracks, refused), (of_source, 2000 * (100 - of_source as u64)));
    assert!(forgotten > 0);
    // Of each series the newest is still there.
    let now = START + 2000 * SECOND;
    for track in timeline.tracks_of(KV_CACHE_USAGE_RATIO.name) {
        let gauge = track.gauge(Window::last(30 * SECOND, now));
        assert!(gauge.is_some_and(|gauge| gauge.slots >= 29), "{gauge:?}");
    }
}

/// As many models and buckets as a page may have: such an engine gets its share, and nothing of others is forgotten for it.
#[test]
fn an_engine_that_lies_about_its_histograms_takes_no_room_from_others() {
    let mut timeline = Timeline::default();
    let histogram = |count: u64| {
        let buckets = (0..2048_u32).map(|bound| (f64::from(bound), count)).collect();
        Histogram { buckets, sum: 1.0, count }
    };
    for second in 0..200_u64 {
        let at = START + second * SECOND;
        for liar in 0..8 {
            let point = |model: u32| {
                let labels = [&*format!("liar-{liar}"), &model.to_string()];
                Point::histogram(&TIME_TO_FIRST_TOKEN_SECONDS, &labels, histogram(second * u64::from(model)))
            };
            let source = format!("engine:liar-{liar}");
            timeline.observe(&Sample { source, taken_boot_ns: at, points: Ok((0..65).map(point).collect()) }, false);
        }
        timeline.observe(&sample(at, vec![gauge(0.5)]), false);
        assert!(timeline.account().used_bytes <= MEMORY_BYTES);
    }
    let now = START + 200 * SECOND;
    let honest =
        timeline.track(&KV_CACHE_USAGE_RATIO, &LABELS).and_then(|track| track.gauge(Window::last(190 * SECOND, now)));
    assert_eq!(honest.map(|gauge| gauge.slots), Some(190));
    assert!(timeline.account().refused > 0);
}

#[test]
fn a_number_beyond_all_bounds_is_the_greatest_there_is() {
    let mut timeline = Timeline::default();
    timeline.observe(&sample(START, vec![gauge(1e300)]), false);
    timeline.observe(&sample(START + SECOND, vec![gauge(1.0)]), false);
    let window = Window::last(9 * SECOND, START + 2 * SECOND);
    let found = timeline.track(&KV_CACHE_USAGE_RATIO, &LABELS).and_then(|track| track.gauge(window)).expect("a gauge");
    assert!(found.greatest.is_finite() && found.mean.is_finite() && found.last == 1.0, "{found:?}");
}

#[test]
fn all_that_is_known_of_one_engine_is_found_by_its_label() {
    let mut timeline = Timeline::default();
    timeline.observe(
        &sample(START, vec![counter(1.0), gauge(0.5), Point::new(&KV_CACHE_USAGE_RATIO, &["f", "m"], 1.0)]),
        false,
    );
    let mut names: Vec<&str> = timeline.tracks_with("engine", "e").map(|track| track.series.name).collect();
    names.sort_unstable();
    assert_eq!(names, [GENERATION_TOKENS_TOTAL.name, KV_CACHE_USAGE_RATIO.name]);
}

/// A reading: milliseconds after the one before; then none, or by how much the counter grew, or what it was started anew with.
fn readings() -> impl Strategy<Value = Vec<(u64, Reading)>> {
    let reading = prop_oneof![
        1 => Just(Reading::Failed),
        1 => (0_u32..50).prop_map(Reading::Anew),
        8 => (0_u32..1000).prop_map(Reading::More),
    ];
    prop::collection::vec((100_u64..7000, reading), 1..80)
}

#[derive(Debug, Clone)]
enum Reading {
    Failed,
    Anew(u32),
    More(u32),
}

proptest! {
    /// The replay keeps every increment with its time, and knows of slots only that a reading belongs to one.
    #[test]
    fn every_window_counts_what_a_replay_counts(readings in readings(), from in 0_u64..300, length in 1_u64..300) {
        let mut timeline = Timeline::default();
        let (mut at, mut value, mut is_known) = (START, 1000.0_f64, false);
        let mut slots: BTreeMap<u64, Option<f64>> = BTreeMap::new();
        for (pause_ms, reading) in &readings {
            at += pause_ms * 1_000_000;
            let more = match reading {
                Reading::Failed => {
                    timeline.observe(&failed(at), false);
                    is_known = false;
                    continue;
                }
                Reading::More(more) => {
                    value += f64::from(*more);
                    f64::from(*more)
                }
                Reading::Anew(now) => {
                    let fell = f64::from(*now) < value;
                    let before = std::mem::replace(&mut value, f64::from(*now));
                    if fell { value } else { value - before }
                }
            };
            timeline.observe(&sample(at, vec![counter(value)]), false);
            let slot = slots.entry(FINE.slot(at)).or_insert(Some(0.0));
            *slot = slot.filter(|_| is_known).map(|sum| sum + more);
            is_known = true;
        }
        let newest = at;
        // Further back than five minutes the slots are longer; that is another test's.
        prop_assume!(newest < START + 290 * SECOND);
        let window = Window { from_boot_ns: START + from * SECOND, to_boot_ns: START + (from + length) * SECOND };
        let within: Vec<(u64, Option<f64>)> = slots
            .range(window.from_boot_ns / SECOND..window.to_boot_ns / SECOND)
            .map(|(slot, sum)| (*slot, *sum))
            .collect();
        let (mut amount, mut covered) = (0.0, 0);
        for pair in within.windows(2) {
            if let Some(sum) = pair[1].1 {
                amount += sum;
                covered += pair[1].0 - pair[0].0;
            }
        }
        let found = timeline.track(&GENERATION_TOKENS_TOTAL, &LABELS).and_then(|track| track.increase(window));
        let expect = (covered > 0).then_some((amount, covered * SECOND));
        prop_assert_eq!(found.map(|found| (found.amount, found.covered_ns)), expect);
    }

    /// One long window is its halves together, but for what happened between the last reading of the one and the first of the other.
    #[test]
    fn halves_of_a_window_are_never_more_than_the_whole(readings in readings(), half in 1_u64..100) {
        let mut timeline = Timeline::default();
        let (mut at, mut value) = (START, 0.0);
        for (pause_ms, reading) in &readings {
            at += pause_ms * 1_000_000;
            if let Reading::More(more) = reading {
                value += f64::from(*more);
                timeline.observe(&sample(at, vec![counter(value), gauge(f64::from(*more))]), false);
            }
        }
        let window = |from: u64, to: u64| Window { from_boot_ns: START + from * SECOND, to_boot_ns: START + to * SECOND };
        // Of longer slots a whole one is left out beside a gap.
        prop_assume!(at < START + 290 * SECOND);
        let Some(track) = timeline.track(&GENERATION_TOKENS_TOTAL, &LABELS) else { return Ok(()) };
        let amount = |window| track.increase(window).map_or(0.0, |increase| increase.amount);
        let [first, second, whole] = [window(0, half), window(half, 2 * half), window(0, 2 * half)].map(amount);
        prop_assert!(first + second <= whole + 1e-6, "{} + {} > {}", first, second, whole);
        if let Some(found) = timeline.track(&KV_CACHE_USAGE_RATIO, &LABELS).and_then(|track| track.gauge(window(0, half))) {
            prop_assert!(found.least <= found.mean + 1e-3 && found.mean <= found.greatest + 1e-3);
            prop_assert!((found.least..=found.greatest).contains(&found.last));
        }
    }
}

/// Values are of the kind of their series; a reading that is not begins anew and breaks nothing.
#[test]
fn a_histogram_in_the_place_of_a_number_breaks_nothing() {
    let mut timeline = Timeline::default();
    let strange = Point { value: Value::Histogram(Histogram::default()), ..counter(0.0) };
    for point in [counter(1.0), strange, counter(3.0)] {
        timeline.observe(&sample(START, vec![point]), true);
    }
    assert_eq!(timeline.account().tracks, 1);
}
