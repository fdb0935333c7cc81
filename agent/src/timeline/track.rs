//! One series of one part of the node: what its readings become, slot by slot, at each resolution.
//!
//! A gauge is kept as the mean of a slot's readings. A counter and a histogram are kept as what they counted since the reading before: a
//! counter that fell was started anew, and all that it holds is new (as Prometheus reckons). The first reading, also after a gap,
//! counts nothing, because what it holds may lie before our time: it is a [`Cell::Begin`].

use std::sync::Arc;

use super::{
    cell::{self, Cell},
    ring::{Grid, Ring},
    window::Window,
};
use crate::series::{Histogram, Kind, Point, Series, Value};

/// In an incident.
pub static CLOSE: Grid = Grid { step_ns: 250_000_000, keep_slots: 480 };
/// Five minutes.
pub static FINE: Grid = Grid { step_ns: 1_000_000_000, keep_slots: 300 };
/// An hour.
pub static COARSE: Grid = Grid { step_ns: 10_000_000_000, keep_slots: 360 };

#[derive(Debug)]
pub struct Track {
    pub series: &'static Series,
    pub labels: Arc<[String]>,
    pub source: Arc<str>,
    /// What it was admitted with.
    pub reserved_bytes: usize,
    /// The source's reading that told of it last; it may count on from there if that was the one before.
    reading: u64,
    last: Last,
    fine: Lane,
    coarse: Lane,
    close: Option<Box<Lane>>,
    /// When it was read in an incident last.
    incident_boot_ns: u64,
}

/// The reading before.
#[derive(Debug)]
enum Last {
    Gauge,
    Counter(f64),
    Histogram(Box<Histogram>),
}

/// One resolution: slots that are over, and the one that is not.
#[derive(Debug)]
struct Lane {
    ring: Ring,
    slot: u64,
    open: Open,
}

#[derive(Debug)]
enum Open {
    None,
    Begin,
    Gauge { sum: f64, readings: u32 },
    Counter(f64),
    Counts(Box<(f64, Vec<u64>)>),
}

/// What one reading adds.
#[derive(Debug)]
enum Change<'a> {
    Begin,
    Gauge(f64),
    Counter(f64),
    Counts { sum: f64, buckets: &'a [u64] },
}

impl Track {
    /// What each bucket of a histogram takes: bound and count of the last reading, and the counts of three open slots, with what a vector
    /// has in reserve.
    pub const BUCKET_BYTES: usize = 2 * 16 + 3 * 8;

    pub fn new(point: &Point, source: Arc<str>, reserved_bytes: usize) -> Self {
        let lane = |grid| Lane { ring: Ring::new(grid), slot: 0, open: Open::None };
        let (fine, coarse) = (lane(&FINE), lane(&COARSE));
        // Reading zero is none: the first one begins.
        Self {
            series: point.series,
            labels: Arc::clone(&point.labels),
            source,
            reserved_bytes,
            reading: 0,
            last: Last::Gauge,
            fine,
            coarse,
            close: None,
            incident_boot_ns: 0,
        }
    }

    /// `reading` counts the readings of the source, from one.
    pub fn take(&mut self, boot_ns: u64, reading: u64, value: &Value, is_incident: bool, scratch: &mut Vec<u8>) {
        let follows = self.reading > 0 && self.reading + 1 == reading;
        self.reading = reading;
        if is_incident {
            self.incident_boot_ns = boot_ns;
        }
        if is_incident && self.close.is_none() {
            self.close = Some(Box::new(Lane { ring: Ring::new(&CLOSE), slot: 0, open: Open::None }));
        }
        let counted;
        let change = match (self.series.kind, value, &self.last) {
            (Kind::Gauge, Value::Number(number), _) => Change::Gauge(*number),
            (_, Value::Number(number), Last::Counter(last)) if follows => {
                Change::Counter(if number < last { *number } else { number - last })
            }
            (_, Value::Histogram(histogram), Last::Histogram(last)) if follows && is_same_shape(histogram, last) => {
                let sum;
                (sum, counted) = grown(histogram, last);
                Change::Counts { sum, buckets: &counted }
            }
            _ => Change::Begin,
        };
        if matches!((value, &self.last), (Value::Histogram(now), Last::Histogram(last)) if !is_same_shape(now, last)) {
            // Counts of other buckets have nothing to say about these.
            self.lanes().for_each(|lane| (lane.open = Open::None, lane.ring.clear()).0);
        }
        let close = self.close.as_deref_mut();
        for lane in [&mut self.fine, &mut self.coarse].into_iter().chain(close) {
            lane.take(boot_ns, &change, scratch);
        }
        match (value, &mut self.last) {
            (Value::Histogram(now), Last::Histogram(last)) if is_same_shape(now, last) => (**last).clone_from(now),
            (Value::Histogram(now), last) => *last = Last::Histogram(Box::new(now.clone())),
            (Value::Number(now), last) if self.series.kind != Kind::Gauge => *last = Last::Counter(*now),
            (Value::Number(_), _) => {}
        }
    }

    fn lanes(&mut self) -> impl Iterator<Item = &mut Lane> {
        [&mut self.fine, &mut self.coarse].into_iter().chain(self.close.as_deref_mut())
    }

    /// Forgets what is older than is kept; false when nothing is left.
    pub fn expire(&mut self, now_boot_ns: u64) -> bool {
        self.lanes().for_each(|lane| lane.expire(now_boot_ns));
        // It is fed until all of the incident is older than is kept: what it has is complete.
        let is_over = self.incident_boot_ns + CLOSE.length_ns() < now_boot_ns;
        self.close = self.close.take().filter(|lane| !lane.is_empty() && !is_over);
        !(self.fine.is_empty() && self.coarse.is_empty())
    }

    /// Forgets the oldest block, of the coarsest slots first; false when there is none.
    pub fn forget_oldest(&mut self) -> bool {
        self.coarse.ring.forget_oldest() || self.lanes().any(|lane| lane.ring.forget_oldest())
    }

    pub fn size_bytes(&self) -> usize {
        let close = self.close.as_ref().map_or(0, |lane| size_of::<Lane>() + lane.size_bytes());
        let last = match &self.last {
            Last::Histogram(histogram) => {
                size_of::<Histogram>() + histogram.buckets.capacity() * size_of::<(f64, u64)>()
            }
            _ => 0,
        };
        size_of::<Self>() + self.fine.size_bytes() + self.coarse.size_bytes() + close + last
    }

    /// Upper bounds of a histogram's buckets.
    pub fn bounds(&self) -> Vec<f64> {
        match &self.last {
            Last::Histogram(histogram) => histogram.buckets.iter().map(|(bound, _)| *bound).collect(),
            _ => Vec::new(),
        }
    }

    /// Each slot of the window at the finest resolution that goes back so far: `(when it began, its length, cell)`.
    pub fn cells(&self, window: Window, mut each: impl FnMut(u64, u64, Cell<'_>)) {
        let lane = self.lane_for(window.from_boot_ns);
        let grid = lane.ring.grid;
        let (first, last) =
            (window.from_boot_ns.div_ceil(grid.step_ns), grid.slot(window.to_boot_ns.saturating_sub(1)));
        if window.to_boot_ns <= window.from_boot_ns || first > last {
            return;
        }
        lane.ring.cells(first, last).for_each(|(slot, cell)| each(slot * grid.step_ns, grid.step_ns, cell));
        let mut open = Vec::new();
        if lane.open.write(&mut open)
            && (first..=last).contains(&lane.slot)
            && let Some((cell, _)) = cell::read(&open)
        {
            each(lane.slot * grid.step_ns, grid.step_ns, cell);
        }
    }

    fn lane_for(&self, from_boot_ns: u64) -> &Lane {
        let newest_ns = self.fine.slot * FINE.step_ns;
        let reaches = |grid: &Grid| newest_ns.saturating_sub(grid.length_ns()) <= from_boot_ns;
        // That of an incident begins with it.
        let close = self.close.as_deref().filter(|lane| reaches(&CLOSE) && lane.begins_before(from_boot_ns));
        close.unwrap_or(if reaches(&FINE) { &self.fine } else { &self.coarse })
    }
}

impl Lane {
    fn take(&mut self, boot_ns: u64, change: &Change<'_>, scratch: &mut Vec<u8>) {
        let slot = self.ring.grid.slot(boot_ns);
        if slot > self.slot {
            if self.open.write(scratch) {
                self.ring.push(self.slot, scratch);
            }
            (self.slot, self.open) = (slot, Open::None);
        }
        self.open.add(change);
    }

    fn expire(&mut self, now_boot_ns: u64) {
        let now = self.ring.grid.slot(now_boot_ns);
        self.ring.expire(now);
        if self.slot + self.ring.grid.keep_slots < now {
            self.open = Open::None;
        }
    }

    fn is_empty(&self) -> bool {
        self.ring.is_empty() && matches!(self.open, Open::None)
    }

    fn size_bytes(&self) -> usize {
        let open =
            if let Open::Counts(counts) = &self.open { size_of_val(&**counts) + counts.1.capacity() * 8 } else { 0 };
        self.ring.size_bytes() + open
    }

    fn begins_before(&self, boot_ns: u64) -> bool {
        let first = self.ring.cells(0, u64::MAX).next().map(|(slot, _)| slot);
        first.is_some_and(|slot| slot * self.ring.grid.step_ns <= boot_ns)
    }
}

impl Open {
    fn add(&mut self, change: &Change<'_>) {
        match (&mut *self, change) {
            // What is counted beside a gap is not all that there was.
            (_, Change::Begin) => *self = Self::Begin,
            (Self::Begin, _) => {}
            (Self::Gauge { sum, readings }, Change::Gauge(value)) => (*sum, *readings) = (*sum + value, *readings + 1),
            (Self::Counter(sum), Change::Counter(more)) => *sum += more,
            (Self::Counts(counts), Change::Counts { sum: more, buckets: grown }) => {
                let (sum, buckets) = &mut **counts;
                *sum += more;
                buckets.iter_mut().zip(*grown).for_each(|(bucket, more)| *bucket = bucket.saturating_add(*more));
            }
            (_, Change::Gauge(value)) => *self = Self::Gauge { sum: *value, readings: 1 },
            (_, Change::Counter(more)) => *self = Self::Counter(*more),
            (_, Change::Counts { sum, buckets }) => *self = Self::Counts(Box::new((*sum, buckets.to_vec()))),
        }
    }

    /// False when there is nothing.
    fn write(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::None => return false,
            Self::Begin => cell::begin(out),
            Self::Gauge { sum, readings } => cell::number(sum / f64::from(*readings), out),
            Self::Counter(sum) => cell::number(*sum, out),
            Self::Counts(counts) => cell::counts(counts.0, &counts.1, out),
        }
        true
    }
}

fn is_same_shape(histogram: &Histogram, other: &Histogram) -> bool {
    let (these, those) = (&histogram.buckets, &other.buckets);
    these.len() == those.len() && these.iter().zip(those).all(|((one, _), (other, _))| one.to_bits() == other.to_bits())
}

/// How much each bucket by itself has counted since the reading before, and the sum of it.
fn grown(now: &Histogram, last: &Histogram) -> (f64, Vec<u64>) {
    let falls = now.count < last.count || now.buckets.iter().zip(&last.buckets).any(|((_, now), (_, last))| now < last);
    let before = |at: usize| if falls { 0 } else { last.buckets[at].1 };
    let mut below = 0;
    let counts = now.buckets.iter().enumerate().map(|(at, (_, cumulative))| {
        let grown = cumulative - before(at);
        // Buckets that are read while the engine counts may be a little out of step.
        let own = grown.saturating_sub(below);
        below = below.max(grown);
        own
    });
    let counts = counts.collect();
    (if falls { now.sum } else { (now.sum - last.sum).max(0.0) }, counts)
}
