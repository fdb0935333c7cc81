//! A page explained: for each canonical series where it comes from, or why it is absent.

use plumbline_exposition::Format;

use super::{Absent, read};
use crate::{
    engines::dialect::{Dialect, Field, Own, Selector, Source},
    series::{
        Series, Value,
        engine::{ENGINE_MODEL, ROWS},
    },
};

/// What a page told, and how it was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    pub dialect: &'static Dialect,
    /// As it stands on the page.
    pub prefix: &'static str,
    pub version: &'static str,
    pub rows: Vec<Row>,
    pub unmapped: Vec<String>,
    pub unusable_lines: u64,
    pub first_unusable: Option<String>,
}

/// Model, own label, value.
pub type Number = (String, String, Value);

/// One canonical series.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub series: &'static Series,
    pub field: Option<&'static Field>,
    /// Where it comes from and what it says, or why there is nothing.
    pub told: Result<(String, Vec<Number>), Absent>,
}

/// As [`translate`](super::translate), for people.
pub fn explain(page: &[u8], format: Format, dialect: Option<&'static Dialect>, model: &str) -> Option<Explained> {
    let mut read = read(page, format, dialect, model)?;
    let mut rows = Vec::new();
    for series in ROWS.iter().copied().filter(|series| series.source != "the scrape") {
        let mut fields = read.dialect.fields.iter().filter(|field| field.series == series).peekable();
        if fields.peek().is_none() {
            rows.push(Row { series, field: None, told: Err(Absent::NoSource) });
        }
        for field in fields {
            let told = read.table.field(field, &mut read.unusable).map(|(source, told)| {
                let told = told.into_iter().map(|(model, own, value)| (model.to_owned(), own.to_owned(), value));
                (words(source, read.prefix), told.collect())
            });
            rows.push(Row { series, field: Some(field), told });
        }
    }
    let mut unmapped: Vec<String> = read.unmapped.iter().map(|&name| name.to_owned()).collect();
    unmapped.sort_unstable();
    Some(Explained {
        dialect: read.dialect,
        prefix: read.prefix,
        version: read.version,
        rows,
        unmapped,
        unusable_lines: read.unusable.count,
        first_unusable: read.unusable.first.take(),
    })
}

/// A source as it stands on a page with this prefix.
pub fn words(source: &Source, prefix: &str) -> String {
    let one = |selector: &Selector| {
        let prefix = if selector.is_bare { "" } else { prefix };
        let label = selector.label.map(|(label, values)| format!("{{{label}={}}}", values.join("|")));
        format!("{prefix}{}{}", selector.name, label.unwrap_or_default())
    };
    match source {
        Source::Metric(selector) => one(selector),
        Source::Difference(first, second) => format!("{} − {}", one(first), one(second)),
        Source::Ratio(first, second) => format!("{} ÷ {}", one(first), one(second)),
        Source::Product(first, second) => format!("{} × {}", one(first), one(second)),
        Source::InLabel(selector, label) => format!("label {label} of {}", one(selector)),
    }
}

impl Row {
    /// `plumbline_engine_…{reason=stop}`, without engine and model.
    pub fn name(&self, own: &str) -> String {
        let label = self.series.labels.get(ENGINE_MODEL.len());
        match label.filter(|_| !own.is_empty()) {
            Some(label) => format!("{}{{{label}={own}}}", self.series.name),
            None => self.series.name.to_owned(),
        }
    }

    /// What must be known to use the number.
    pub fn flags(&self) -> String {
        let Some(field) = self.field else { return String::new() };
        let means = field.means.iter().map(|means| means.words());
        std::iter::once(field.when.words()).chain(means).collect::<Vec<_>>().join(", ")
    }

    pub const fn fixed(&self) -> &'static str {
        match self.field {
            Some(Field { own: Own::Fixed(value), .. }) => value,
            _ => "",
        }
    }
}
