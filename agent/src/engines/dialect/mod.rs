//! The dialects: per engine one table from its metric names to the canonical series of [`crate::series::engine`].
//!
//! A dialect is data. To add an engine, write `dialect/<name>.rs` with one `DIALECT`, and name it here in the module
//! list and in [`DIALECTS`]; a test fails when one of the two is forgotten. How a page is read with the table is in
//! `engines::translate`.

use crate::series::Series;

pub mod llamacpp;
pub mod vllm;

/// Every engine the daemon understands.
pub const DIALECTS: &[&Dialect] = &[&llamacpp::DIALECT, &vllm::DIALECT];

/// How one engine speaks.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// As in the configuration.
    pub name: &'static str,
    /// What may stand before a metric's name. `:` and `_` count as equal, because proxies rewrite one to the other.
    pub prefixes: &'static [&'static str],
    /// A page that has this metric under one of the prefixes is in this dialect.
    pub mark: &'static str,
    /// Labels that name the model, the first present wins; none where the page never says.
    pub model_labels: &'static [&'static str],
    pub fields: &'static [Field],
    pub process: Process,
}

/// Where one canonical series comes from, and what its numbers mean in this engine.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub series: &'static Series,
    /// The first that the page has wins; older names come later.
    pub sources: &'static [Source],
    pub when: When,
    pub across: Across,
}

/// How a value is made of the page's samples.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    Metric(Selector),
    /// The first less the second, where the engine counts something that the canonical series leaves out.
    Difference(Selector, Selector),
}

/// Which samples of the page: the name without prefix, and a label they must carry.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub name: &'static str,
    pub label: Option<(&'static str, &'static str)>,
}

impl Source {
    pub const fn metric(name: &'static str) -> Self {
        Self::Metric(Selector { name, label: None })
    }

    pub const fn labelled(name: &'static str, label: &'static str, value: &'static str) -> Self {
        Self::Metric(Selector { name, label: Some((label, value)) })
    }

    pub const fn difference(minuend: &'static str, subtrahend: &'static str) -> Self {
        Self::Difference(Selector { name: minuend, label: None }, Selector { name: subtrahend, label: None })
    }

    /// The selectors in reading order.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let (first, second) = match self {
            Self::Metric(selector) => (selector, None),
            Self::Difference(minuend, subtrahend) => (minuend, Some(subtrahend)),
        };
        std::iter::once(first).chain(second)
    }
}

/// When the engine adds to the number: a rate over less than a request's life is smooth only for [`When::Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A gauge: true at the moment of the scrape.
    Scrape,
    /// At every step of the scheduler.
    Step,
    /// When a request's prompt has been computed.
    PromptDone,
    /// When a request has ended; one that was aborted may never be counted.
    RequestDone,
}

/// What to do with several samples of one model: ranks, replicas, leaked process ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Across {
    Sum,
    Max,
}

/// How the engine's process is told from others.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    pub commands: &'static [Command],
    /// The port of the engine when the command line has no `--port`.
    pub default_port: u16,
    /// Command-line options that name the model, the best first; for pages that do not.
    pub model_options: &'static [&'static str],
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The file name of the first argument.
    Program(&'static str),
    /// The file name of an argument, and the argument after it.
    Subcommand(&'static str, &'static str),
    /// `python -m MODULE`, this module or one below it.
    Module(&'static str),
}

/// The dialect of this name.
pub fn by_name(name: &str) -> Option<&'static Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name == name)
}

/// `name` without `prefix`, where `:` and `_` are equal.
pub fn strip_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = name.split_at_checked(prefix.len())?;
    let fold = |byte: u8| if byte == b':' { b'_' } else { byte };
    head.bytes().map(fold).eq(prefix.bytes().map(fold)).then_some(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{self, Kind};

    #[test]
    fn every_file_here_is_registered() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/engines/dialect");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("a readable folder")
            .filter_map(|entry| Some(entry.expect("an entry").path().file_stem()?.to_str()?.to_owned()))
            .filter(|stem| stem != "mod")
            .collect();
        files.sort();
        let mut names: Vec<&str> = DIALECTS.iter().map(|dialect| dialect.name).collect();
        names.sort_unstable();
        assert_eq!(names, files, "a file in dialect/ and an entry of DIALECTS bear the same name");
    }

    #[test]
    fn every_field_maps_to_a_row_of_the_series_table_once() {
        for dialect in DIALECTS {
            for (index, field) in dialect.fields.iter().enumerate() {
                let name = field.series.name;
                assert!(series::engine::ROWS.contains(&field.series), "{}: {name}", dialect.name);
                assert!(!dialect.fields[..index].iter().any(|other| other.series == field.series), "{name} twice");
                assert_eq!(field.series.labels, ["engine", "model"], "{name}");
                assert_eq!(field.series.kind == Kind::Gauge, field.when == When::Scrape, "{}: {name}", dialect.name);
                assert!(!field.sources.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn every_mark_is_a_name_that_the_dialect_maps() {
        for dialect in DIALECTS {
            let mut selectors = dialect.fields.iter().flat_map(|field| field.sources).flat_map(Source::selectors);
            assert!(selectors.any(|selector| selector.name == dialect.mark), "{}", dialect.name);
        }
    }

    #[test]
    fn colon_and_underscore_are_equal_in_a_prefix() {
        assert_eq!(strip_prefix("vllm:x_total", "vllm:"), Some("x_total"));
        assert_eq!(strip_prefix("vllm_x_total", "vllm:"), Some("x_total"));
        assert_eq!(strip_prefix("ray_vllm_x", "ray_vllm:"), Some("x"));
        assert_eq!(strip_prefix("ray_vllm_x", "vllm:"), None);
        assert_eq!(strip_prefix("x", ""), Some("x"));
        assert_eq!(strip_prefix("vll", "vllm:"), None);
        assert_eq!(strip_prefix("äöüäöü", "vllm:"), None);
    }
}
