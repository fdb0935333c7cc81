//! The table of one page: one column per selector of the dialect, one cell per model and value of the series' own label.

use std::{borrow::Cow, collections::HashSet, hash::BuildHasher, ops::Range, sync::Arc};

use foldhash::fast::RandomState;
use plumbline_exposition::{Label, Sample, Text};

use super::{
    MAX_MODELS, Unusable,
    cell::{Cell, Part, Place, Wrong, is_possible, possible},
    index::{Column, Index, Use},
};
use crate::{
    engines::dialect::{ANY, Dialect, Field, Own, Source},
    series::{Kind, Point, Value},
};

/// Values of one series' own label; what is beyond goes into `other`.
const MAX_OWN: usize = 32;

/// Room for the samples of a usual page.
const EXPECTED_SAMPLES: usize = 512;

const OTHER: &str = "other";

/// What a page calls the end of a request where it does not say why.
const UNSPECIFIED: &str = "unspecified";

pub struct Table {
    dialect: &'static Dialect,
    index: &'static Index,
    default_model: String,
    cells: Vec<Vec<Cell>>,
    /// Whether the page has a column's metric, be it under other labels than the column's.
    is_on_page: Vec<bool>,
    /// Those that the page named, the first of them.
    models: Vec<String>,
    /// Where each number of the page went.
    steps: Vec<Step>,
    seen: HashSet<u64, RandomState>,
    hasher: RandomState,
}

/// Where one number of the page goes.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The how manieth of the page's samples says it; a label of the page may say it in its place.
    sample: usize,
    in_label: Option<f64>,
    column: usize,
    cell: usize,
    place: Place,
}

/// Why a series is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The engine has nothing of the kind, as far as the dialect knows.
    NoSource,
    /// None of the metrics stands on the page.
    NotOnPage,
    /// What stands there cannot be true.
    Impossible,
}

/// One number of a field: model, own label, value.
pub type Told<'c> = (&'c str, &'c str, Value);

impl Table {
    pub fn new(dialect: &'static Dialect, index: &'static Index, default_model: &str) -> Self {
        let cells = index.columns.iter().map(|_| Vec::new()).collect();
        Self {
            dialect,
            index,
            default_model: default_model.to_owned(),
            cells,
            is_on_page: vec![false; index.columns.len()],
            models: Vec::new(),
            steps: Vec::with_capacity(EXPECTED_SAMPLES),
            seen: HashSet::with_capacity_and_hasher(EXPECTED_SAMPLES, RandomState::default()),
            hasher: RandomState::default(),
        }
    }

    /// `uses` are those of the sample's name, `nth` is its place among the page's samples.
    pub fn take(
        &mut self,
        uses: &[Use],
        nth: usize,
        sample: &Sample<'_>,
        labels: &[Label<'_>],
        unusable: &mut Unusable,
    ) {
        for &Use { column: at, part } in uses {
            let column = self.index.columns[at];
            self.is_on_page[at] = true;
            if !is_selected(&column, labels) {
                continue;
            }
            let is_rank = |name: Text<'_>| self.dialect.rank_labels.iter().any(|rank| name == *rank);
            let has_rank = labels.iter().any(|label| is_rank(label.name));
            let replica = has_rank.then(|| self.identity(at, part, labels, |name| !is_rank(name)));
            // Ranks that share one work tell the same distribution each: the first one's counts.
            let is_told = replica.is_some_and(|replica| part != Part::Value && !self.seen.insert(replica));
            if is_told {
                continue;
            }
            if !self.seen.insert(self.identity(at, part, labels, |_| true)) {
                unusable.note(|| format!("{} stands twice with the same labels", sample.name.raw()));
                continue;
            }
            let in_label = match column.source {
                Source::InLabel(_, label) => match get(labels, label).map(Text::unescape) {
                    // Older versions have not told it, or have nothing to tell.
                    None => continue,
                    Some(said) if said.is_empty() || said == "None" => continue,
                    Some(said) => Some(said.parse::<f64>().unwrap_or(f64::NAN)),
                },
                _ => None,
            };
            let place = match replica {
                Some(replica) if part == Part::Value => Place::Replica(replica),
                _ => Place::of(part, labels),
            };
            let step = Step { sample: nth, in_label, column: at, cell: self.cell(at, labels), place };
            self.steps.push(step);
            if let Err(wrong) = self.put(&step, sample.value) {
                let name = sample.name.raw();
                unusable.note(|| match wrong {
                    Wrong::Value(value) => format!("{name} cannot be {value}"),
                    Wrong::Replicas => format!("{name} is told by too many replicas"),
                    Wrong::Bound => format!("{name} has no usable `le`"),
                });
            }
        }
    }

    fn put(&mut self, step: &Step, value: f64) -> Result<(), Wrong> {
        let column = &self.index.columns[step.column];
        let value = step.in_label.unwrap_or(value);
        // What two make together may be a ratio; each of them need not be.
        let is_alone = matches!(column.source, Source::Metric(_) | Source::InLabel(..));
        let is_sound = if is_alone { is_possible(column.field.series, value) } else { possible(value).is_some() };
        let cell = &mut self.cells[step.column][step.cell];
        let outcome =
            if is_sound { cell.add(step.place, value, column.field.across) } else { Err(Wrong::Value(value)) };
        cell.is_impossible |= outcome.is_err();
        outcome
    }

    /// As if a page like the one taken had been taken in its place, with these values. False: it was not sound.
    pub fn take_again(&mut self, values: &[f64]) -> bool {
        self.cells.iter_mut().flatten().for_each(Cell::clear);
        let steps = std::mem::take(&mut self.steps);
        let is_sound =
            steps.iter().all(|step| values.get(step.sample).is_some_and(|&value| self.put(step, value).is_ok()));
        self.steps = steps;
        is_sound
    }

    /// Gives back what is needed to take a page for the first time only.
    pub fn settle(&mut self) {
        self.seen = HashSet::default();
        self.steps.shrink_to_fit();
    }

    /// Equal for two samples of one name and one set of labels, in whatever order, of those that count.
    fn identity(&self, column: usize, part: Part, labels: &[Label<'_>], counts: impl Fn(Text<'_>) -> bool) -> u64 {
        let one = |label: &Label<'_>| self.hasher.hash_one((label.name.unescape(), label.value.unescape()));
        let labels = labels.iter().filter(|label| counts(label.name)).map(one).fold(0_u64, u64::wrapping_add);
        self.hasher.hash_one((column, part, labels))
    }

    fn cell(&mut self, column: usize, labels: &[Label<'_>]) -> usize {
        let named = self.dialect.model_labels.iter().find_map(|name| get(labels, name));
        let model = named.map_or(Cow::from(&self.default_model), Text::unescape);
        let own = own(self.index.columns[column].field.own, labels);
        let cells = &mut self.cells[column];
        let find = |cells: &[Cell], model: &str, own: &str| {
            cells.iter().position(|cell| cell.model == model && cell.own == own)
        };
        match find(cells, &model, &own) {
            Some(index) => index,
            None => {
                let is_new = !self.models.iter().any(|known| *known == *model);
                let model: &str = if is_new && self.models.len() >= MAX_MODELS { OTHER } else { &model };
                if is_new && model != OTHER {
                    self.models.push(model.to_owned());
                }
                let is_full = cells.iter().filter(|cell| cell.model == model).count() >= MAX_OWN;
                let own: &str = if is_full { OTHER } else { &own };
                find(cells, model, own).unwrap_or_else(|| {
                    cells.push(Cell::new(model, own));
                    cells.len() - 1
                })
            }
        }
    }

    /// The one model that the page names, which is also that of what it does not label.
    fn only_model(&self) -> Option<&str> {
        let mut named =
            self.cells.iter().flatten().map(|cell| &*cell.model).filter(|model| *model != self.default_model);
        let first = named.next()?;
        named.all(|model| model == first).then_some(first)
    }

    /// The first source that the page has. One that it has for other values of its label only, as a node of SGLang that decodes
    /// nothing has no `mode="decode"`, says that there is nothing yet: a metric of another name, which counts at another time, is not
    /// taken in its place, else the number would leap when the first value comes.
    fn source(&self, field: &'static Field) -> Option<(&'static Source, Range<usize>)> {
        let mut begun = None;
        for (source, columns) in self.index.sources_of(field) {
            let name = source.selectors().0.name;
            if begun.is_some_and(|begun| begun != name) {
                return None;
            }
            if columns.clone().all(|at| !self.cells[at].is_empty()) {
                return Some((source, columns));
            }
            if matches!(source, Source::Metric(selector) if selector.label.is_some()) && self.is_on_page[columns.start]
            {
                begun = Some(name);
            }
        }
        None
    }

    /// The source that the page has, and what it tells of the field.
    pub fn field(
        &self,
        field: &'static Field,
        unusable: &mut Unusable,
    ) -> Result<(&'static Source, Vec<Told<'_>>), Absent> {
        let (source, mut columns) = self.source(field).ok_or(Absent::NotOnPage)?;
        let first_at = columns.next().ok_or(Absent::NotOnPage)?;
        let (column, first) = (&self.index.columns[first_at], &self.cells[first_at]);
        let second = columns.next().map(|at| &self.cells[at]);
        let mut told = Vec::with_capacity(first.len());
        for cell in first {
            let is_same = |other: &&Cell| other.model == cell.model && other.own == cell.own;
            let other = second.map(|cells| cells.iter().find(is_same));
            if cell.is_impossible || other.is_some_and(|other| other.is_none_or(|other| other.is_impossible)) {
                continue;
            }
            let number = cell.number(field.across);
            let other = other.flatten().map(|other| other.number(field.across));
            let value = match (field.series.kind, source, other) {
                (Kind::Histogram, ..) => cell.histogram().map(Value::Histogram),
                (_, Source::Difference(..), Some(other)) => possible(number - other).map(Value::Number),
                // Of nothing there is no share.
                (_, Source::Ratio(..), Some(0.0)) => continue,
                (_, Source::Ratio(..), Some(other)) => {
                    Some(number / other).filter(|ratio| is_possible(field.series, *ratio)).map(Value::Number)
                }
                (_, Source::Product(..), Some(other)) => possible(number * other).map(Value::Number),
                _ => possible(number).map(Value::Number),
            };
            let model = if cell.model == self.default_model { self.only_model() } else { None };
            match value {
                Some(value) => told.push((model.unwrap_or(&cell.model), &*cell.own, value)),
                None => unusable.note(|| format!("{} contradicts itself", column.selector.name)),
            }
        }
        told.sort_by_key(|(model, own, _)| (*model, *own));
        // One that the page labels and one that it does not may be of one model.
        told.dedup_by(|(model, own, _), (before, own_before, _)| model == before && own == own_before);
        if told.is_empty() { Err(Absent::Impossible) } else { Ok((source, told)) }
    }

    pub fn points(&self, engine: &str, unusable: &mut Unusable) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.dialect.fields.len());
        // Most series of a page have these two labels and no other; they share them.
        let mut bare: Vec<Arc<[String]>> = Vec::new();
        for field in self.dialect.fields {
            let Ok((_, told)) = self.field(field, unusable) else { continue };
            for (model, own, value) in told {
                let labels = if field.own != Own::None {
                    Arc::from([engine.to_owned(), model.to_owned(), own.to_owned()])
                } else if let Some(known) = bare.iter().find(|labels| labels[1] == model) {
                    Arc::clone(known)
                } else {
                    bare.push(Arc::from([engine.to_owned(), model.to_owned()]));
                    Arc::clone(&bare[bare.len() - 1])
                };
                points.push(Point { series: field.series, labels, value });
            }
        }
        points
    }
}

/// The value of the first label of this name.
pub fn get<'l>(labels: &[Label<'l>], name: &str) -> Option<Text<'l>> {
    labels.iter().find(|label| label.name == *name).map(|label| label.value)
}

fn is_selected(column: &Column, labels: &[Label<'_>]) -> bool {
    column.selector.label.is_none_or(|(label, values)| match get(labels, label) {
        Some(text) => values.iter().any(|value| text == *value),
        // A label that is not there is as one that is empty.
        None => values.contains(&""),
    })
}

fn own<'s>(own: Own, labels: &[Label<'s>]) -> Cow<'s, str> {
    let said = |label: &str| get(labels, label).map(Text::unescape);
    match own {
        Own::None => "".into(),
        Own::Fixed(value) => value.into(),
        Own::From(label, words) => {
            let word = |said: &str| words.iter().find(|(theirs, _)| *theirs == said).map(|(_, ours)| *ours);
            match said(label) {
                None => word("").unwrap_or(UNSPECIFIED).into(),
                Some(said) if words.is_empty() => said,
                Some(said) => word(&said).or_else(|| word(ANY)).unwrap_or(OTHER).into(),
            }
        }
        Own::StatusClass(label) => match said(label).as_deref().map(|said| said.as_bytes().first().copied()) {
            Some(Some(b'1')) => "1xx".into(),
            Some(Some(b'2')) => "2xx".into(),
            Some(Some(b'3')) => "3xx".into(),
            Some(Some(b'4')) => "4xx".into(),
            Some(Some(b'5')) => "5xx".into(),
            _ => OTHER.into(),
        },
    }
}
