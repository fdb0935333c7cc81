//! Which columns of a dialect's table a metric's name belongs to, found in one look.

use std::collections::HashMap;

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
    /// By name without the page's prefix.
    prefixed: HashMap<String, Vec<Use>, RandomState>,
    /// By whole name.
    bare: HashMap<String, Vec<Use>, RandomState>,
}

impl Index {
    pub fn of(dialect: &'static Dialect) -> Self {
        let mut index = Self { columns: Vec::new(), prefixed: HashMap::default(), bare: HashMap::default() };
        for field in dialect.fields {
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

    /// `name` is without the page's prefix, where it had one.
    pub fn uses(&self, whole: &str, name: Option<&str>) -> &[Use] {
        let prefixed = name.and_then(|name| self.prefixed.get(name));
        prefixed.or_else(|| self.bare.get(whole)).map_or(&[], Vec::as_slice)
    }
}
