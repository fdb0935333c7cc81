//! Which columns of a dialect's table a metric's name belongs to, found in one look.

use std::{collections::HashMap, ops::Range};

use foldhash::fast::RandomState;

use super::cell::Part;
use crate::{
    engines::dialect::{Dialect, Field, Selector, Source},
    series::Kind,
};

/// One selector of the dialect: a column of the table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub field: &'static Field,
    pub source: &'static Source,
    pub selector: &'static Selector,
}

/// What a name is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    pub column: usize,
    pub part: Part,
}

#[derive(Debug)]
pub struct Index {
    pub columns: Vec<Column>,
    /// The first column of each field, by the field's address: they are statics, in one array.
    starts: HashMap<usize, usize, RandomState>,
    /// By name without the page's prefix.
    prefixed: HashMap<String, Vec<Use>, RandomState>,
    /// By whole name.
    bare: HashMap<String, Vec<Use>, RandomState>,
}

impl Index {
    pub fn of(dialect: &'static Dialect) -> Self {
        let mut index = Self {
            columns: Vec::new(),
            starts: HashMap::default(),
            prefixed: HashMap::default(),
            bare: HashMap::default(),
        };
        for field in dialect.fields {
            index.starts.insert(std::ptr::from_ref(field).addr(), index.columns.len());
            for source in field.sources {
                let (first, second) = source.selectors();
                for selector in [Some(first), second].into_iter().flatten() {
                    index.add(Column { field, source, selector });
                }
            }
        }
        index
    }

    fn add(&mut self, column: Column) {
        let parts: &[(&str, Part)] = match column.field.series.kind {
            Kind::Histogram => &[("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count)],
            Kind::Counter | Kind::Gauge => &[("", Part::Value)],
        };
        let names = if column.selector.is_bare { &mut self.bare } else { &mut self.prefixed };
        for (suffix, part) in parts {
            let name = format!("{}{suffix}", column.selector.name);
            names.entry(name).or_default().push(Use { column: self.columns.len(), part: *part });
        }
        self.columns.push(column);
    }

    /// The sources of a field and the columns of each: one, or two where it is made of two.
    pub fn sources_of(&self, field: &'static Field) -> impl Iterator<Item = (&'static Source, Range<usize>)> {
        let start = self.starts.get(&std::ptr::from_ref(field).addr()).copied();
        let sources = start.map_or(&[][..], |_| field.sources);
        sources.iter().scan(start.unwrap_or_default(), |next, source| {
            let start = *next;
            *next += if source.selectors().1.is_some() { 2 } else { 1 };
            Some((source, start..*next))
        })
    }

    /// `name` is without the page's prefix, where it had one.
    pub fn uses(&self, whole: &str, name: Option<&str>) -> &[Use] {
        let prefixed = name.and_then(|name| self.prefixed.get(name));
        prefixed.or_else(|| self.bare.get(whole)).map_or(&[], Vec::as_slice)
    }
}
