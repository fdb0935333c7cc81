//! Questions about a span of the recent past. Pure: a track and a window in, numbers out.

use super::{cell::Cell, track::Track};
use crate::series::Histogram;

/// From one time to another, both in nanoseconds of CLOCK_BOOTTIME, the second not included. Only whole slots count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from_boot_ns: u64,
    pub to_boot_ns: u64,
}

/// A gauge over a window. Gaps are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gauge {
    pub mean: f64,
    pub least: f64,
    pub greatest: f64,
    pub last: f64,
    /// From which the others are.
    pub slots: u64,
}

/// What a counter counted, and in how much of the window it was watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Increase {
    pub amount: f64,
    pub covered_ns: u64,
}

impl Increase {
    pub fn per_second(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a span needs no nanoseconds")]
        let seconds = self.covered_ns as f64 / 1e9;
        (seconds > 0.0).then(|| self.amount / seconds)
    }
}

/// What a histogram counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Cumulative, as everywhere.
    pub histogram: Histogram,
    pub covered_ns: u64,
}

impl Window {
    /// The last so many nanoseconds.
    pub const fn last(length_ns: u64, now_boot_ns: u64) -> Self {
        Self { from_boot_ns: now_boot_ns.saturating_sub(length_ns), to_boot_ns: now_boot_ns }
    }
}

impl Track {
    /// `None`: nothing was read in the window, or it is no gauge.
    pub fn gauge(&self, window: Window) -> Option<Gauge> {
        let mut found: Option<Gauge> = None;
        let mut sum = 0.0;
        self.cells(window, |_, _, cell| {
            let Cell::Number(value) = cell else { return };
            let value = f64::from(value);
            sum += value;
            let before = found.unwrap_or(Gauge { mean: 0.0, least: value, greatest: value, last: value, slots: 0 });
            found = Some(Gauge {
                mean: 0.0,
                least: before.least.min(value),
                greatest: before.greatest.max(value),
                last: value,
                slots: before.slots + 1,
            });
        });
        #[expect(clippy::cast_precision_loss, reason = "a few thousand slots")]
        found.map(|found| Gauge { mean: sum / found.slots as f64, ..found })
    }

    /// The slots of the window in which the gauge was above `limit`, of those in which it was read.
    pub fn share_above(&self, limit: f64, window: Window) -> Option<f64> {
        let (mut above, mut all) = (0.0, 0.0);
        self.cells(window, |_, _, cell| {
            if let Cell::Number(value) = cell {
                all += 1.0;
                above += f64::from(u8::from(f64::from(value) > limit));
            }
        });
        (all > 0.0).then(|| above / all)
    }

    /// What was counted between the first reading in the window and the last, gaps left out; `None` where there are not two readings
    /// that follow each other.
    pub fn increase(&self, window: Window) -> Option<Increase> {
        let mut amount = 0.0;
        let covered_ns = self.counted(window, |cell| {
            if let Cell::Number(more) = cell {
                amount += f64::from(more);
            }
        })?;
        Some(Increase { amount, covered_ns })
    }

    /// The same of a histogram.
    pub fn distribution(&self, window: Window) -> Option<Distribution> {
        let mut counts: Vec<(f64, u64)> = self.bounds().into_iter().map(|bound| (bound, 0)).collect();
        let mut sum = 0.0;
        let covered_ns = self.counted(window, |cell| {
            let Cell::Counts(more) = cell else { return };
            sum += f64::from(more.sum);
            for (bucket, count) in more.buckets() {
                if let Some((_, known)) = counts.get_mut(bucket) {
                    *known = known.saturating_add(count);
                }
            }
        })?;
        let mut count = 0_u64;
        for (_, cumulative) in &mut counts {
            count = count.saturating_add(*cumulative);
            *cumulative = count;
        }
        Some(Distribution { histogram: Histogram { buckets: counts, sum, count }, covered_ns })
    }

    /// Every cell that follows another, and the time from the one to the other in all.
    fn counted(&self, window: Window, mut each: impl FnMut(Cell<'_>)) -> Option<u64> {
        let mut before = None;
        let mut covered_ns = 0;
        self.cells(window, |at_ns, _, cell| {
            if let (Some(before), false) = (before, cell == Cell::Begin) {
                covered_ns += at_ns - before;
                each(cell);
            }
            before = Some(at_ns);
        });
        (covered_ns > 0).then_some(covered_ns)
    }
}

impl Distribution {
    /// The value that this share of observations does not exceed, evenly spread within its bucket, as Prometheus' `histogram_quantile`
    /// reckons: in the bucket without end it is the greatest bound. `None` where nothing was observed.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let Histogram { buckets, count, .. } = &self.histogram;
        if *count == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts")]
        let (rank, lossy) = (share.clamp(0.0, 1.0) * *count as f64, |count: u64| count as f64);
        let at = buckets.iter().position(|(_, cumulative)| lossy(*cumulative) >= rank)?;
        let below = at.checked_sub(1).map(|at| buckets[at]);
        let (bound, cumulative) = buckets[at];
        let (low, before) = below.unwrap_or((0.0, 0));
        if bound.is_infinite() {
            return below.map(|(bound, _)| bound);
        }
        if below.is_none() && bound <= 0.0 {
            return Some(bound);
        }
        let own = lossy(cumulative - before);
        Some(if own > 0.0 { low + (bound - low) * (rank - lossy(before)) / own } else { bound })
    }
}
