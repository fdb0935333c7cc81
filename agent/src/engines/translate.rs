//! From an engine's page to canonical points, by the table of its dialect. Pure: the page is the only input.
//!
//! What the page does not say is absent from the result, never zero. A sample that cannot be true (NaN, negative, a
//! ratio above one, a histogram whose buckets shrink) makes its series absent for that model, because a sum without
//! it would be wrong; it is counted with the lines that are not valid text.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use plumbline_exposition::{Format, Label, Line, Lines, Sample, Text};

use super::dialect::{Across, DIALECTS, Dialect, Field, Selector, Source, strip_prefix};
use crate::series::{Histogram, Kind, Point, Series, Unit, Value};

/// One page may speak of so many models; what is beyond goes into the model `other`.
pub const MAX_MODELS: usize = 64;

/// A histogram with more buckets is not read.
pub const MAX_BUCKETS: usize = 2048;

/// What a page said.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub dialect: &'static Dialect,
    pub points: Vec<Point>,
    /// Lines that were not valid text, stood twice, or held an impossible value.
    pub unusable_lines: u64,
    /// The first of them, in words.
    pub first_unusable: Option<String>,
}

/// Reads `page` as `dialect`, or as whatever dialect recognises it. `engine` and `model` become labels, the latter
/// where the page names no model. `None`: no dialect recognises the page.
pub fn translate(
    page: &[u8],
    format: Format,
    dialect: Option<&'static Dialect>,
    engine: &str,
    model: &str,
) -> Option<Reading> {
    let (dialect, prefix) = recognise(page, format, dialect)?;
    let mut table = Table::new(dialect, model);
    let mut unusable = Unusable::default();
    for line in Lines::new(page, format) {
        match line {
            Ok(Line::Sample(sample)) => {
                if let Some(name) = strip_prefix(sample.name.raw(), prefix) {
                    table.take(name, &sample, &mut unusable);
                }
            }
            Ok(_) => {}
            Err(error) => unusable.note(|| error.to_string()),
        }
    }
    let points = table.points(engine, &mut unusable);
    Some(Reading { dialect, points, unusable_lines: unusable.count, first_unusable: unusable.first })
}

/// The dialect of the page and the prefix it uses there. One page is read with one prefix: a page that carries the
/// same metrics under two must not count them twice.
fn recognise(page: &[u8], format: Format, only: Option<&'static Dialect>) -> Option<(&'static Dialect, &'static str)> {
    let candidates = || DIALECTS.iter().copied().filter(|dialect| only.is_none_or(|only| only == *dialect));
    Lines::new(page, format).filter_map(Result::ok).find_map(|line| {
        let Line::Sample(sample) = line else { return None };
        candidates().find_map(|dialect| {
            let prefix =
                dialect.prefixes.iter().find(|prefix| strip_prefix(sample.name.raw(), prefix) == Some(dialect.mark))?;
            Some((dialect, *prefix))
        })
    })
}

#[derive(Default)]
struct Unusable {
    count: u64,
    first: Option<String>,
}

impl Unusable {
    fn note(&mut self, say: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(say);
    }
}

/// One column per selector of the dialect, one cell per model.
struct Table<'a> {
    dialect: &'static Dialect,
    default_model: &'a str,
    columns: Vec<Column>,
    seen: HashSet<u64>,
    hasher: RandomState,
}

struct Column {
    field: &'static Field,
    source: &'static Source,
    selector: &'static Selector,
    cells: Vec<Cell>,
}

impl<'a> Table<'a> {
    fn new(dialect: &'static Dialect, default_model: &'a str) -> Self {
        let sources = dialect.fields.iter().flat_map(|field| field.sources.iter().map(move |source| (field, source)));
        let columns = sources.flat_map(|(field, source)| {
            source.selectors().map(move |selector| Column { field, source, selector, cells: Vec::new() })
        });
        Self { dialect, default_model, columns: columns.collect(), seen: HashSet::new(), hasher: RandomState::new() }
    }

    fn take(&mut self, name: &str, sample: &Sample<'_>, unusable: &mut Unusable) {
        for index in 0..self.columns.len() {
            let Some(part) = self.columns[index].part(name, sample) else { continue };
            if !self.seen.insert(self.identity(index, part, sample)) {
                unusable.note(|| format!("{} stands twice with the same labels", sample.name.raw()));
                continue;
            }
            let field = self.columns[index].field;
            let cell = self.cell(index, sample);
            if !is_possible(field.series, sample.value) {
                cell.impossible = true;
                unusable.note(|| format!("{} cannot be {}", sample.name.raw(), sample.value));
            } else if !cell.add(part, sample, field.across) {
                cell.impossible = true;
                unusable.note(|| format!("{} has no usable `le`", sample.name.raw()));
            }
        }
    }

    /// Equal for two samples of one name and one set of labels, in whatever order.
    fn identity(&self, column: usize, part: Part, sample: &Sample<'_>) -> u64 {
        let one = |label: Label<'_>| self.hasher.hash_one((label.name.unescape(), label.value.unescape()));
        let labels = sample.labels.map(one).fold(0_u64, u64::wrapping_add);
        self.hasher.hash_one((column, part, labels))
    }

    fn cell(&mut self, column: usize, sample: &Sample<'_>) -> &mut Cell {
        let named = self.dialect.model_labels.iter().find_map(|name| sample.labels.get(name));
        let model = named.map_or(self.default_model.into(), Text::unescape);
        let cells = &mut self.columns[column].cells;
        let find = |cells: &[Cell], model: &str| cells.iter().position(|cell| cell.model == model);
        let index = match find(cells, &model) {
            Some(index) => index,
            None => {
                let model = if cells.len() < MAX_MODELS { &*model } else { "other" };
                find(cells, model).unwrap_or_else(|| {
                    cells.push(Cell::new(model));
                    cells.len() - 1
                })
            }
        };
        &mut cells[index]
    }

    fn points(&self, engine: &str, unusable: &mut Unusable) -> Vec<Point> {
        let mut points = Vec::new();
        for field in self.dialect.fields {
            let columns_of = |source| self.columns.iter().filter(move |column| std::ptr::eq(column.source, source));
            let is_present = |source: &&Source| columns_of(*source).all(|column| !column.cells.is_empty());
            let Some(source) = field.sources.iter().find(is_present) else { continue };
            let mut columns = columns_of(source);
            let (Some(first), second) = (columns.next(), columns.next()) else { continue };
            for cell in &first.cells {
                let subtrahend = second.map(|column| column.cells.iter().find(|other| other.model == cell.model));
                let parts = [Some(Some(cell)), subtrahend];
                if parts.iter().flatten().any(|part| part.is_none_or(|cell| cell.impossible)) {
                    continue;
                }
                let value = match (field.series.kind, subtrahend.flatten()) {
                    (Kind::Histogram, _) => cell.histogram().map(Value::Histogram),
                    (_, None) => possible(cell.value.value).map(Value::Number),
                    (_, Some(other)) => possible(cell.value.value - other.value.value).map(Value::Number),
                };
                match value {
                    Some(value) => {
                        let labels = vec![engine.to_owned(), cell.model.clone()];
                        points.push(Point { series: field.series, labels: labels.into(), value });
                    }
                    None => unusable.note(|| format!("{} contradicts itself", first.selector.name)),
                }
            }
        }
        points
    }
}

/// Which part of a family a sample is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Value,
    Sum,
    Count,
    Bucket,
}

impl Column {
    /// Which part of this column's metric the sample is, if it is one at all.
    fn part(&self, name: &str, sample: &Sample<'_>) -> Option<Part> {
        let suffix = name.strip_prefix(self.selector.name)?;
        let part = match (self.field.series.kind, suffix) {
            (Kind::Histogram, "_sum") => Part::Sum,
            (Kind::Histogram, "_count") => Part::Count,
            (Kind::Histogram, "_bucket") => Part::Bucket,
            (Kind::Counter | Kind::Gauge, "") => Part::Value,
            _ => return None,
        };
        let is_ours = |(label, value): (&str, &str)| sample.labels.get(label).is_some_and(|text| text == value);
        self.selector.label.is_none_or(is_ours).then_some(part)
    }
}

/// What the page says of one model under one selector.
#[derive(Default)]
struct Cell {
    model: String,
    value: Number,
    sum: Number,
    count: Number,
    /// By upper bound, ascending.
    buckets: Vec<(f64, Number)>,
    impossible: bool,
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
    fn new(model: &str) -> Self {
        Self { model: model.to_owned(), ..Self::default() }
    }

    /// False when the sample has no usable bucket bound.
    fn add(&mut self, part: Part, sample: &Sample<'_>, across: Across) -> bool {
        let number = match part {
            Part::Value => &mut self.value,
            Part::Sum => &mut self.sum,
            Part::Count => &mut self.count,
            Part::Bucket => {
                // As a number: `1`, `1.0` and `1e+00` are one bound.
                let bound = sample.labels.get("le").and_then(|text| text.unescape().parse::<f64>().ok());
                // Nor are `0` and `-0` two: adding zero takes the sign away.
                let Some(bound) = bound.filter(|bound| !bound.is_nan()).map(|bound| bound + 0.0) else { return false };
                let index = match self.buckets.binary_search_by(|(other, _)| other.total_cmp(&bound)) {
                    Ok(index) => index,
                    Err(_) if self.buckets.len() >= MAX_BUCKETS => return false,
                    Err(index) => {
                        self.buckets.insert(index, (bound, Number::default()));
                        index
                    }
                };
                &mut self.buckets[index].1
            }
        };
        number.add(sample.value, across);
        true
    }

    /// `None` unless all ranks have the same bounds and the counts are cumulative.
    fn histogram(&self) -> Option<Histogram> {
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
fn is_possible(series: &Series, value: f64) -> bool {
    value.is_finite() && value >= 0.0 && (series.unit != Unit::Ratio || value <= 1.0 + 1e-6)
}

/// What ranks make together, which can be infinite where each of them is not.
fn possible(number: f64) -> Option<f64> {
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn whole(number: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the condition excludes both")]
    (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
}

#[cfg(test)]
mod tests;
