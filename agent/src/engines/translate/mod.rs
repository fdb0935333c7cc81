//! From an engine's page to canonical points, by the table of its dialect. Pure: the page is the only input.
//!
//! What the page does not say is absent from the result, never zero. A sample that cannot be true (NaN, negative, a
//! ratio above one, a histogram whose buckets shrink) makes its series absent for that model, because a sum without
//! it would be wrong; it is counted with the lines that are not valid text. Metrics that the dialect has no use for are kept
//! by name, the first `MOST_UNMAPPED` of a page.
//!
//! | file | holds |
//! |---|---|
//! | `table` | the table of one page: a column per selector, a cell per model and value of the series' own label |
//! | `index` | from a metric's name to the columns that use it |
//! | `cell` | what the page says of one model under one selector, over its ranks |
//! | `reader` | one engine's pages one after the other, which mostly differ in their values only |
//! | `explain` | where each series comes from, or why it is absent |

mod cell;
mod explain;
mod index;
mod reader;
mod table;

use std::{
    collections::{HashMap, HashSet},
    sync::{LazyLock, PoisonError, RwLock},
};

use foldhash::fast::RandomState;
use plumbline_exposition::{Format, Line, Lines};

pub use self::{
    explain::{Explained, Row, explain, words as source_words},
    reader::Reader,
    table::Absent,
};
use self::{index::Index, table::Table};
use super::dialect::{DIALECTS, Dialect, strip_prefix};
use crate::series::Point;

/// One page may speak of so many models; what is beyond goes into the model `other`.
pub const MAX_MODELS: usize = 64;

/// A histogram with more buckets is not read.
pub const MAX_BUCKETS: usize = 2048;

/// Room for those of a usual page.
const EXPECTED_UNMAPPED: usize = 96;

/// Metrics without use that are kept by name; the rest of a page's are left out.
const MOST_UNMAPPED: usize = 1024;

/// What a page said.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub dialect: &'static Dialect,
    /// What the page's names tell of the engine's version; empty where nothing.
    pub version: &'static str,
    pub points: Vec<Point>,
    /// Lines that were not valid text, stood twice, or held an impossible value.
    pub unusable_lines: u64,
    /// The first of them, in words.
    pub first_unusable: Option<String>,
    /// How many metrics there were that the dialect has no use for; [`explain`] names them.
    pub unmapped: usize,
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
    read(page, format, dialect, model).map(|mut read| read.reading(engine))
}

/// A page that was walked through.
struct Read<'a> {
    dialect: &'static Dialect,
    prefix: &'static str,
    version: &'static str,
    table: Table,
    unusable: Unusable,
    unmapped: HashSet<&'a str, RandomState>,
    samples: usize,
    /// Whether a sample says more than a value.
    has_more: bool,
}

impl Read<'_> {
    fn reading(&mut self, engine: &str) -> Reading {
        let points = self.table.points(engine, &mut self.unusable);
        Reading {
            dialect: self.dialect,
            version: self.version,
            points,
            unusable_lines: self.unusable.count,
            first_unusable: self.unusable.first.take(),
            unmapped: self.unmapped.len(),
        }
    }
}

fn read<'p>(page: &'p [u8], format: Format, dialect: Option<&'static Dialect>, model: &str) -> Option<Read<'p>> {
    let mut lines = Lines::new(page, format);
    let (dialect, prefix) = recognise(lines.clone(), dialect)?;
    let index = index_of(dialect);
    let mut read = Read {
        dialect,
        prefix,
        version: "",
        table: Table::new(dialect, index, model),
        unusable: Unusable::default(),
        unmapped: HashSet::with_capacity_and_hasher(EXPECTED_UNMAPPED, RandomState::default()),
        samples: 0,
        has_more: false,
    };
    let mut marks = vec![[false; 2]; dialect.versions.len()];
    let mut last = ("", &[][..]);
    let mut labels = Vec::new();
    while let Some(line) = lines.next_with(&mut labels) {
        match line {
            Ok(Line::Sample(sample)) => {
                let whole = sample.name.raw();
                // Samples of one name mostly follow each other.
                if whole != last.0 {
                    let name = strip_prefix(whole, prefix);
                    last = (whole, index.uses(whole, name));
                    for (version, seen) in dialect.versions.iter().zip(&mut marks) {
                        seen[0] |= name == Some(version.has);
                        seen[1] |= name == Some(version.lacks);
                    }
                    if last.1.is_empty() && read.unmapped.len() < MOST_UNMAPPED && !is_told(&read.unmapped, whole) {
                        read.unmapped.insert(whole.strip_suffix("_bucket").unwrap_or(whole));
                    }
                }
                if !last.1.is_empty() {
                    read.table.take(last.1, read.samples, &sample, &labels, &mut read.unusable);
                }
                read.samples += 1;
                read.has_more |= sample.timestamp_ms.is_some() || sample.has_exemplar;
            }
            Ok(_) => {}
            Err(error) => read.unusable.note(|| error.to_string()),
        }
    }
    let told = dialect.versions.iter().zip(marks).find(|(_, [has, lacks])| *has && !lacks);
    read.version = told.map_or("", |(version, _)| version.words);
    Some(read)
}

/// It, or the histogram or counter that it is a part of.
fn is_told(unmapped: &HashSet<&str, RandomState>, name: &str) -> bool {
    let parts = ["_bucket", "_sum", "_count", "_created"].iter().filter_map(|suffix| name.strip_suffix(suffix));
    unmapped.contains(name) || parts.into_iter().any(|family| unmapped.contains(family))
}

/// Made once for each dialect.
fn index_of(dialect: &'static Dialect) -> &'static Index {
    static ALL: LazyLock<RwLock<HashMap<&'static str, &'static Index>>> = LazyLock::new(RwLock::default);
    if let Some(index) = ALL.read().unwrap_or_else(PoisonError::into_inner).get(dialect.name) {
        return index;
    }
    let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
    all.entry(dialect.name).or_insert_with(|| Box::leak(Box::new(Index::of(dialect))))
}

/// The dialect of the page and the prefix it uses there. One page is read with one prefix: a page that carries the
/// same metrics under two must not count them twice.
fn recognise(lines: Lines<'_>, only: Option<&'static Dialect>) -> Option<(&'static Dialect, &'static str)> {
    let candidates = || DIALECTS.iter().copied().filter(|dialect| only.is_none_or(|only| only == *dialect));
    let mut last = "";
    lines.filter_map(Result::ok).find_map(|line| {
        let Line::Sample(sample) = line else { return None };
        if std::mem::replace(&mut last, sample.name.raw()) == sample.name.raw() {
            return None;
        }
        candidates().find_map(|dialect| {
            let prefix =
                dialect.prefixes.iter().find(|prefix| strip_prefix(sample.name.raw(), prefix) == Some(dialect.mark))?;
            Some((dialect, *prefix))
        })
    })
}

#[derive(Default)]
pub struct Unusable {
    count: u64,
    first: Option<String>,
}

impl Unusable {
    fn note(&mut self, say: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(say);
    }
}

#[cfg(test)]
mod tests;
