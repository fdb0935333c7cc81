//! What a page says of one model under one selector, taken together over its ranks.

use plumbline_exposition::Label;

use super::{MAX_BUCKETS, table::get};
use crate::{
    engines::dialect::Across,
    series::{Histogram, Series, Unit},
};

/// Data-parallel replicas of one engine; no node has as many.
const MAX_REPLICAS: usize = 256;

/// Room for those of a usual histogram.
const USUAL_BUCKETS: usize = 24;

/// Which part of a family a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Value,
    Sum,
    Count,
    Bucket,
}

/// Where in a cell a number goes.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    Value,
    /// The value that each rank of this replica tells.
    Replica(u64),
    Sum,
    Count,
    /// By its upper bound; `None` where the page gives none.
    Bucket(Option<f64>),
}

/// Why a number goes nowhere.
#[derive(Debug, Clone, Copy)]
pub enum Wrong {
    Value(f64),
    Replicas,
    Bound,
}

impl Place {
    pub fn of(part: Part, labels: &[Label<'_>]) -> Self {
        match part {
            Part::Value => Self::Value,
            Part::Sum => Self::Sum,
            Part::Count => Self::Count,
            Part::Bucket => {
                // As a number: `1`, `1.0` and `1e+00` are one bound.
                let bound = get(labels, "le").and_then(|text| text.unescape().parse::<f64>().ok());
                // Nor are `0` and `-0` two: adding zero takes the sign away.
                Self::Bucket(bound.filter(|bound| !bound.is_nan()).map(|bound| bound + 0.0))
            }
        }
    }
}

/// One model's, under one value of the series' own label.
#[derive(Default)]
pub struct Cell {
    pub model: String,
    pub own: String,
    value: Number,
    /// The greatest of ranks that tell the same, by what the others call themselves.
    replicas: Vec<(u64, f64)>,
    sum: Number,
    count: Number,
    /// By upper bound, ascending.
    buckets: Vec<(f64, Number)>,
    pub is_impossible: bool,
}

/// The samples of one number, taken together.
#[derive(Default, Clone, Copy)]
struct Number {
    samples: u32,
    value: f64,
}

impl Number {
    fn add(&mut self, value: f64, across: Across) {
        self.samples += 1;
        self.value = match across {
            Across::Sum => self.value + value,
            Across::Max => self.value.max(value),
        };
    }
}

impl Cell {
    pub fn new(model: &str, own: &str) -> Self {
        Self { model: model.to_owned(), own: own.to_owned(), ..Self::default() }
    }

    /// Forgets the numbers, as before the first.
    pub fn clear(&mut self) {
        let Self { model: _, own: _, value, replicas, sum, count, buckets, is_impossible } = self;
        [*value, *sum, *count] = [Number::default(); 3];
        replicas.clear();
        buckets.clear();
        *is_impossible = false;
    }

    pub fn add(&mut self, place: Place, value: f64, across: Across) -> Result<(), Wrong> {
        let number = match place {
            Place::Value => &mut self.value,
            Place::Replica(replica) => return self.add_of_replica(replica, value),
            Place::Sum => &mut self.sum,
            Place::Count => &mut self.count,
            Place::Bucket(bound) => self.bucket(bound.ok_or(Wrong::Bound)?)?,
        };
        number.add(value, across);
        Ok(())
    }

    fn add_of_replica(&mut self, replica: u64, value: f64) -> Result<(), Wrong> {
        let is_full = self.replicas.len() >= MAX_REPLICAS;
        match self.replicas.iter_mut().find(|(known, _)| *known == replica) {
            Some((_, greatest)) => *greatest = greatest.max(value),
            None if is_full => return Err(Wrong::Replicas),
            None => self.replicas.push((replica, value)),
        }
        Ok(())
    }

    fn bucket(&mut self, bound: f64) -> Result<&mut Number, Wrong> {
        // Pages tell them in order.
        let is_last = self.buckets.last().is_none_or(|(last, _)| *last < bound);
        let place = if is_last {
            Err(self.buckets.len())
        } else {
            self.buckets.binary_search_by(|(other, _)| other.total_cmp(&bound))
        };
        let index = match place {
            Ok(index) => index,
            Err(_) if self.buckets.len() >= MAX_BUCKETS => return Err(Wrong::Bound),
            Err(index) => {
                if self.buckets.is_empty() {
                    self.buckets.reserve(USUAL_BUCKETS);
                }
                self.buckets.insert(index, (bound, Number::default()));
                index
            }
        };
        Ok(&mut self.buckets[index].1)
    }

    pub fn number(&self, across: Across) -> f64 {
        let mut number = self.value;
        self.replicas.iter().for_each(|(_, value)| number.add(*value, across));
        number.value
    }

    /// `None` unless all ranks have the same bounds and the counts are cumulative.
    pub fn histogram(&self) -> Option<Histogram> {
        let mut buckets = Vec::with_capacity(self.buckets.len() + 1);
        for (bound, number) in &self.buckets {
            let count = whole(number.value)?;
            let grows = buckets.last().is_none_or(|(_, below)| *below <= count);
            if number.samples != self.count.samples || !grows {
                return None;
            }
            buckets.push((*bound, count));
        }
        let count = whole(self.count.value)?;
        let is_whole = self.sum.samples == self.count.samples
            && match buckets.last() {
                Some((f64::INFINITY, all)) => *all == count,
                Some((_, below)) => *below <= count,
                None => true,
            };
        if buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            buckets.push((f64::INFINITY, count));
        }
        Some(Histogram { buckets, sum: possible(self.sum.value)?, count }).filter(|_| is_whole)
    }
}

/// Nothing here can be negative or not a number; a ratio may be above one by rounding only.
pub fn is_possible(series: &Series, value: f64) -> bool {
    value.is_finite() && value >= 0.0 && (series.unit != Unit::Ratio || value <= 1.0 + 1e-6)
}

/// What ranks make together, which can be infinite where each of them is not.
pub fn possible(number: f64) -> Option<f64> {
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn whole(number: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the condition excludes both")]
    (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
}
