//! `/api/v1/timeline`: what a series was in the last while.
//!
//! `series` is its name; without one, the answer is which there are. `last` is in seconds, at most an hour; `with=LABEL=VALUE` keeps
//! what has this label, of all series where none is named; `slots=true` gives every slot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    series::Kind,
    timeline::{Account, Timeline, Track, Window, cell::Cell, track::COARSE},
};

/// Tracks of one answer, and of one that has every slot; what is beyond is counted.
const MOST_TRACKS: usize = 1000;
const MOST_TRACKS_WITH_SLOTS: usize = 100;

const USUAL_SECONDS: u64 = 300;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub series: Option<String>,
    pub last: Option<u64>,
    pub with: Option<String>,
    /// Every slot, and not only what they come to.
    #[serde(default)]
    pub slots: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub seconds: u64,
    pub memory: Account,
    /// How many parts of the node have each series; only where nothing was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub series: BTreeMap<String, usize>,
    pub tracks: Vec<Told>,
    pub left_out: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    pub series: String,
    pub labels: BTreeMap<String, String>,
    #[serde(flatten)]
    pub was: Was,
    /// `(seconds ago, value)`: of a counter and a histogram, how much was counted since the slot before; `null` where counting began
    /// anew. Empty where it was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<(f64, Option<f64>)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Was {
    Gauge {
        mean: f64,
        least: f64,
        greatest: f64,
        last: f64,
    },
    Counter {
        increase: f64,
        per_second: Option<f64>,
        covered_seconds: f64,
    },
    Histogram {
        count: u64,
        sum: f64,
        covered_seconds: f64,
        quantiles: BTreeMap<String, f64>,
    },
    /// Nothing that could be compared was read in the window.
    Nothing,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    #[error("no series `{0}` was read in the last hour; without `series` the answer is which were")]
    Unknown(String),
    #[error("with={0}: expected LABEL=VALUE")]
    With(String),
}

pub fn answer(timeline: &Timeline, question: &Question, now_boot_ns: u64) -> Result<Answer, QuestionError> {
    let seconds = question.last.unwrap_or(USUAL_SECONDS).min(COARSE.length_ns() / 1_000_000_000);
    let window = Window::last(seconds * 1_000_000_000, now_boot_ns);
    let with = match &question.with {
        Some(with) => Some(with.split_once('=').ok_or_else(|| QuestionError::With(with.clone()))?),
        None => None,
    };
    let mut found: Vec<&Track> = match (&question.series, with) {
        (Some(name), _) => timeline.tracks_of(name).collect(),
        (None, Some((label, value))) => timeline.tracks_with(label, value).collect(),
        (None, None) => Vec::new(),
    };
    if let (Some(name), true) = (&question.series, found.is_empty()) {
        return Err(QuestionError::Unknown(name.clone()));
    }
    found.retain(|track| with.is_none_or(|(label, value)| track.label(label) == Some(value)));
    found.sort_by_key(|track| (track.series.name, track.labels.clone()));
    let most = if question.slots { MOST_TRACKS_WITH_SLOTS } else { MOST_TRACKS };
    let left_out = found.len().saturating_sub(most);
    found.truncate(most);
    let is_bare = question.series.is_none() && with.is_none();
    Ok(Answer {
        seconds,
        memory: timeline.account(),
        series: if is_bare { timeline.names() } else { BTreeMap::new() },
        tracks: found.into_iter().map(|track| told(track, window, question.slots.then_some(now_boot_ns))).collect(),
        left_out,
    })
}

#[expect(clippy::cast_precision_loss, reason = "spans of seconds need no nanoseconds")]
fn told(track: &Track, window: Window, now_boot_ns: Option<u64>) -> Told {
    let mut slots = Vec::new();
    let mut tell = |now_boot_ns: u64, at_ns: u64, cell: Cell<'_>| {
        let value = match cell {
            Cell::Begin => None,
            Cell::Number(value) => Some(f64::from(value)),
            Cell::Counts(counts) => Some(counts.buckets().map(|(_, count)| count as f64).sum()),
        };
        slots.push((now_boot_ns.saturating_sub(at_ns) as f64 / 1e9, value));
    };
    if let Some(now_boot_ns) = now_boot_ns {
        track.cells(window, |at_ns, _, cell| tell(now_boot_ns, at_ns, cell));
    }
    let names = track.series.labels.iter().map(|&name| name.to_owned());
    Told {
        series: track.series.name.to_owned(),
        labels: names.zip(track.labels.iter().cloned()).collect(),
        was: was(track, window).unwrap_or(Was::Nothing),
        slots,
    }
}

#[expect(clippy::cast_precision_loss, reason = "spans of seconds need no nanoseconds")]
fn was(track: &Track, window: Window) -> Option<Was> {
    Some(match track.series.kind {
        Kind::Gauge => {
            let gauge = track.gauge(window)?;
            Was::Gauge { mean: gauge.mean, least: gauge.least, greatest: gauge.greatest, last: gauge.last }
        }
        Kind::Counter => {
            let increase = track.increase(window)?;
            Was::Counter {
                increase: increase.amount,
                per_second: increase.per_second(),
                covered_seconds: increase.covered_ns as f64 / 1e9,
            }
        }
        Kind::Histogram => {
            let distribution = track.distribution(window)?;
            let quantile = |share: f64| Some((share.to_string(), distribution.quantile(share)?));
            Was::Histogram {
                count: distribution.histogram.count,
                sum: distribution.histogram.sum,
                covered_seconds: distribution.covered_ns as f64 / 1e9,
                quantiles: [0.5, 0.95, 0.99].into_iter().filter_map(quantile).collect(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Point, Sample, engine::GENERATION_TOKENS_TOTAL};

    const SECOND: u64 = 1_000_000_000;

    /// What is answered to `question` after these readings of a counter, one a second, as the command line reads it.
    fn check(readings: &[f64], question: &Question) -> Result<Answer, String> {
        let mut timeline = Timeline::default();
        for (second, reading) in (1000..).zip(readings) {
            let points = Ok(vec![Point::new(&GENERATION_TOKENS_TOTAL, &["e", "m"], *reading)]);
            timeline.observe(&Sample { source: "engine:e".to_owned(), taken_boot_ns: second * SECOND, points }, false);
        }
        let answer = answer(&timeline, question, 1100 * SECOND).map_err(|error| error.to_string())?;
        serde_json::to_string(&answer).and_then(|text| serde_json::from_str(&text)).map_err(|error| error.to_string())
    }

    fn of(series: &str) -> Question {
        Question { series: Some(series.to_owned()), slots: true, ..Question::default() }
    }

    #[test]
    fn a_counter_is_told_with_its_slots_and_one_reading_is_nothing_yet() {
        let told = check(&[5.0, 8.0], &of(GENERATION_TOKENS_TOTAL.name)).expect("an answer").tracks.remove(0);
        assert!(matches!(told.was, Was::Counter { increase: 3.0, covered_seconds: 1.0, .. }), "{told:?}");
        assert_eq!(told.slots, [(100.0, None), (99.0, Some(3.0))]);
        let told = check(&[5.0], &of(GENERATION_TOKENS_TOTAL.name)).expect("an answer").tracks.remove(0);
        assert!(matches!(told.was, Was::Nothing), "{told:?}");
    }

    #[test]
    fn without_a_series_the_answer_is_which_there_are_and_of_an_unknown_one_an_error() {
        let answer = check(&[5.0], &Question::default()).expect("an answer");
        assert_eq!(answer.series.into_iter().collect::<Vec<_>>(), [(GENERATION_TOKENS_TOTAL.name.to_owned(), 1)]);
        assert!(check(&[5.0], &of("x")).unwrap_err().contains("no series `x`"));
        let with = Question { with: Some("x".to_owned()), ..Question::default() };
        assert!(check(&[5.0], &with).unwrap_err().contains("expected LABEL=VALUE"));
    }
}
