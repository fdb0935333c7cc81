//! The node's recent past: every series by part of the node and time, in bounded memory.
//!
//! | resolution | goes back |
//! |---|---|
//! | 250 ms, of what is read in an incident | 2 minutes |
//! | 1 s | 5 minutes |
//! | 10 s | 1 hour |
//!
//! | file | its one job |
//! |---|---|
//! | `cell` | how a slot is written |
//! | `ring` | the slots of one series at one resolution |
//! | `track` | one series of one part of the node: readings into slots |
//! | `window` | questions about a span of time |
//!
//! Fed with the samples of every source. What a source does not tell any more has a gap, not a zero; a counter's resets are
//! seen here, series by series, before anybody adds anything up.

pub mod cell;
pub mod ring;
pub mod track;
pub mod window;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

pub use self::{track::Track, window::Window};
use crate::series::{Point, Sample, Series, Value, timeline as series};

/// All that it may take. 64 engines and 16 GPUs in 7 parts fit in; where most of their numbers change four times a second, in an incident, the
/// oldest of the hour goes (`cargo xtask bench timeline`).
pub const MEMORY_BYTES: usize = 24 << 20;

/// Beside what a track says of itself: its place in the maps, and what the allocator adds to each piece.
const OVERHEAD_BYTES: usize = 128;

/// What each series is sure to get, beside what its last reading takes: a new one that would leave the others less is refused.
const LEAST_BYTES: usize = 1536;

/// Of the whole, one engine's page or container may have a sixteenth, any other source half: who lies about models takes no room from others.
const SHARE_OF_ENGINE: usize = 16;
const SHARE_OF_OTHERS: usize = 2;

/// Sources that are told apart.
const MOST_SOURCES: usize = 4096;

const EXPIRE_EVERY_NS: u64 = 60_000_000_000;

/// What the core fills and others ask.
pub type SharedTimeline = Arc<Mutex<Timeline>>;

/// Locks it; a panic elsewhere leaves numbers, not broken invariants.
pub fn lock(timeline: &SharedTimeline) -> MutexGuard<'_, Timeline> {
    timeline.lock().unwrap_or_else(PoisonError::into_inner)
}

type Labels = Arc<[String]>;

#[derive(Debug)]
pub struct Timeline {
    tracks: HashMap<&'static str, HashMap<Labels, Track, RandomState>, RandomState>,
    /// How many readings of each source there were.
    readings: HashMap<String, Readings, RandomState>,
    expired_boot_ns: u64,
    limit_bytes: usize,
    used_bytes: usize,
    count: usize,
    /// What was promised to all.
    reserved_bytes: usize,
    refused: u64,
    forgotten: u64,
    scratch: Vec<u8>,
}

/// Of one source.
#[derive(Debug, Default)]
struct Readings {
    count: u64,
    newest_boot_ns: u64,
    /// What was promised to its series.
    reserved_bytes: usize,
}

/// Its own cost and losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub tracks: usize,
    pub used_bytes: usize,
    /// Readings of series that there was no room for.
    pub refused: u64,
    /// Blocks that were forgotten before their time.
    pub forgotten: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::with_limit(MEMORY_BYTES)
    }
}

impl Timeline {
    pub fn with_limit(limit_bytes: usize) -> Self {
        Self {
            tracks: HashMap::default(),
            readings: HashMap::default(),
            expired_boot_ns: 0,
            limit_bytes,
            used_bytes: 0,
            count: 0,
            reserved_bytes: 0,
            refused: 0,
            forgotten: 0,
            scratch: Vec::new(),
        }
    }

    /// Takes in a reading. A failed one is a gap in all series of its source.
    pub fn observe(&mut self, sample: &Sample, is_incident: bool) {
        if self.readings.len() >= MOST_SOURCES && !self.readings.contains_key(&sample.source) {
            self.refused += sample.points.as_ref().map_or(0, |points| points.len() as u64);
            return;
        }
        let readings = self.readings.entry(sample.source.clone()).or_default();
        (readings.count, readings.newest_boot_ns) = (readings.count + 1, sample.taken_boot_ns);
        let reading = readings.count;
        // Another name of a series that has one is not remembered twice.
        for point in sample.points.iter().flatten().filter(|point| !point.series.otel.is_empty()) {
            self.take(sample, reading, point, is_incident);
        }
        while self.used_bytes > self.limit_bytes && self.forget_oldest() {}
    }

    /// Where there is no room every series loses its oldest block, so that none loses all. Seldom: it makes room for the next block of each.
    fn forget_oldest(&mut self) -> bool {
        let before = self.forgotten;
        for track in self.tracks.values_mut().flat_map(HashMap::values_mut) {
            let size = track.size_bytes();
            if track.forget_oldest() {
                self.forgotten += 1;
                self.used_bytes = self.used_bytes + track.size_bytes() - size;
            }
        }
        self.forgotten > before
    }

    fn take(&mut self, sample: &Sample, reading: u64, point: &Point, is_incident: bool) {
        let tracks = self.tracks.entry(point.series.name).or_default();
        // One whose last reading takes more than it was admitted with is admitted anew.
        if let Some(grown) = tracks.get(&*point.labels).filter(|track| track.reserved_bytes < reserve(point)) {
            self.used_bytes -= grown.size_bytes() + OVERHEAD_BYTES;
            self.reserved_bytes -= grown.reserved_bytes;
            self.count -= 1;
            if let Some(readings) = self.readings.get_mut(&*grown.source) {
                readings.reserved_bytes = readings.reserved_bytes.saturating_sub(grown.reserved_bytes);
            }
            tracks.remove(&*point.labels);
        }
        let track = match tracks.get_mut(&*point.labels) {
            Some(track) => track,
            None => {
                let reserved_bytes = reserve(point);
                let is_engine = ["engine:", "container:"].iter().any(|kind| sample.source.starts_with(kind));
                let share = self.limit_bytes / if is_engine { SHARE_OF_ENGINE } else { SHARE_OF_OTHERS };
                let Some(readings) = self.readings.get_mut(&sample.source) else { return };
                let has_room = self.reserved_bytes + reserved_bytes <= self.limit_bytes
                    && readings.reserved_bytes + reserved_bytes <= share;
                if !has_room {
                    self.refused += 1;
                    return;
                }
                readings.reserved_bytes += reserved_bytes;
                self.reserved_bytes += reserved_bytes;
                let track = Track::new(point, sample.source.as_str().into(), reserved_bytes);
                self.used_bytes += track.size_bytes() + OVERHEAD_BYTES;
                self.count += 1;
                tracks.entry(Arc::clone(&point.labels)).or_insert(track)
            }
        };
        let before = track.size_bytes();
        track.take(sample.taken_boot_ns, reading, &point.value, is_incident, &mut self.scratch);
        self.used_bytes = self.used_bytes + track.size_bytes() - before;
    }

    /// Forgets what is older than is kept; now and then, as what is not read any more does not grow.
    pub fn expire(&mut self, now_boot_ns: u64) {
        (self.used_bytes, self.count, self.reserved_bytes) = (0, 0, 0);
        self.readings.values_mut().for_each(|readings| readings.reserved_bytes = 0);
        for tracks in self.tracks.values_mut() {
            tracks.retain(|_, track| track.expire(now_boot_ns));
            for track in tracks.values() {
                self.used_bytes += track.size_bytes() + OVERHEAD_BYTES;
                self.reserved_bytes += track.reserved_bytes;
                if let Some(readings) = self.readings.get_mut(&*track.source) {
                    readings.reserved_bytes += track.reserved_bytes;
                }
            }
            self.count += tracks.len();
        }
        self.tracks.retain(|_, tracks| !tracks.is_empty());
        // Nothing that they told is left.
        self.readings.retain(|_, readings| readings.newest_boot_ns + 2 * track::COARSE.length_ns() > now_boot_ns);
    }

    /// What is due by time: old slots are forgotten; its own cost.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub fn tick(&mut self, now_boot_ns: u64) -> Vec<Point> {
        if now_boot_ns.saturating_sub(self.expired_boot_ns) > EXPIRE_EVERY_NS {
            self.expired_boot_ns = now_boot_ns;
            self.expire(now_boot_ns);
        }
        let Account { tracks, used_bytes, refused, forgotten } = self.account();
        [
            (&series::TRACKS, tracks as f64),
            (&series::MEMORY_BYTES, used_bytes as f64),
            (&series::REFUSED_TOTAL, refused as f64),
            (&series::FORGOTTEN_TOTAL, forgotten as f64),
        ]
        .map(|(series, value)| Point::new(series, &[], value))
        .into()
    }

    pub fn account(&self) -> Account {
        Account { tracks: self.count, used_bytes: self.used_bytes, refused: self.refused, forgotten: self.forgotten }
    }

    /// The series of one part of the node.
    pub fn track(&self, series: &Series, labels: &[&str]) -> Option<&Track> {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        self.tracks.get(series.name)?.get(&*labels)
    }

    /// How many parts of the node have each series.
    pub fn names(&self) -> BTreeMap<String, usize> {
        self.tracks.iter().map(|(name, tracks)| ((*name).to_owned(), tracks.len())).collect()
    }

    /// The same series of every part of the node.
    pub fn tracks_of(&self, name: &str) -> impl Iterator<Item = &Track> {
        self.tracks.get(name).into_iter().flat_map(HashMap::values)
    }

    /// Every series with this label: all that is known of one GPU, one engine.
    pub fn tracks_with(&self, label: &str, value: &str) -> impl Iterator<Item = &Track> {
        self.tracks.values().flat_map(HashMap::values).filter(move |track| track.label(label) == Some(value))
    }
}

/// What a series is promised: its slots, and of a histogram what the last reading and the open slots take.
fn reserve(point: &Point) -> usize {
    let buckets = if let Value::Histogram(histogram) = &point.value { histogram.buckets.len() } else { 0 };
    LEAST_BYTES + buckets * Track::BUCKET_BYTES
}

impl Track {
    pub fn label(&self, name: &str) -> Option<&str> {
        let at = self.series.labels.iter().position(|label| *label == name)?;
        self.labels.get(at).map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
