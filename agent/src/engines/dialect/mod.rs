//! The dialects: per engine one table from its metric names to the canonical series of [`crate::series::engine`].
//!
//! A dialect is data. To add an engine, write `dialect/<name>.rs` with one `DIALECT`, and name it here in the module
//! list and in [`DIALECTS`]; a test fails when one of the two is forgotten. How a page is read with the table is in
//! `engines::translate`; `docs/engines.md` is made of the tables.

#[cfg(test)]
mod docs;
pub mod dynamo;
pub mod llamacpp;
pub mod lmdeploy;
pub mod sglang;
#[cfg(test)]
mod tests;
pub mod tgi;
pub mod triton;
pub mod trtllm;
pub mod vllm;

use crate::series::Series;

/// Every engine the daemon understands. The first whose mark a page has is its dialect.
pub const DIALECTS: &[&Dialect] = &[
    &dynamo::DIALECT,
    &llamacpp::DIALECT,
    &lmdeploy::DIALECT,
    &sglang::DIALECT,
    &tgi::DIALECT,
    &triton::DIALECT,
    &trtllm::DIALECT,
    &vllm::DIALECT,
];

/// How one engine speaks.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// As in the configuration.
    pub name: &'static str,
    /// Which engines, and where their names are from.
    pub about: &'static str,
    /// What may stand before a metric's name. `:` and `_` count as equal, because proxies rewrite one to the other.
    pub prefixes: &'static [&'static str],
    /// A page that has this metric under one of the prefixes is in this dialect.
    pub mark: &'static str,
    /// What the names of a page tell of the engine's version: the first whose name is there.
    pub versions: &'static [Version],
    /// Labels that name the model, the first present wins; none where the page never says.
    pub model_labels: &'static [&'static str],
    /// Labels of ranks that share one work and each tell the whole of it: of them, the greatest number counts.
    pub rank_labels: &'static [&'static str],
    pub fields: &'static [Field],
    pub process: Process,
}

/// A name that only some versions have.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    pub words: &'static str,
    pub has: &'static str,
    /// A name that they have no more, or not yet; none where it is empty.
    pub lacks: &'static str,
}

/// Where one canonical series comes from, and what its numbers mean in this engine.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub series: &'static Series,
    /// The first that the page has wins; older names come later.
    pub sources: &'static [Source],
    pub own: Own,
    pub when: When,
    pub across: Across,
    pub means: &'static [Means],
}

/// The label that a series has beside engine and model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    None,
    Fixed(&'static str),
    /// The value of this label of the page; the words that it becomes, or as it is where there are none. What is not among the
    /// words is `other`, or what [`ANY`] becomes.
    From(&'static str, &'static [(&'static str, &'static str)]),
    /// The class of the HTTP status in this label: `2xx`.
    StatusClass(&'static str),
}

/// Of the words of a label: any other.
pub const ANY: &str = "*";

/// What must be known to use a number rightly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Prompt tokens that were served from a cache are among them.
    IncludesCached,
    /// Seconds of each request's slot, which go on side by side: they add up to more than time has passed.
    SlotSeconds,
    /// What the engine has promised to running requests, not what they use.
    Reserved,
    /// Requests that a client gave up are in no count.
    WithoutAborted,
    /// The first token of each request, which its prefill makes, is in no count.
    WithoutFirst,
    /// Counted in blocks of the cache before 0.9.
    OnceBlocks,
}

impl Means {
    pub const fn words(self) -> &'static str {
        match self {
            Self::IncludesCached => "cached tokens included",
            Self::SlotSeconds => "slot seconds",
            Self::Reserved => "reserved, not used",
            Self::WithoutAborted => "without what clients gave up",
            Self::WithoutFirst => "without each request's first",
            Self::OnceBlocks => "blocks, not tokens, before 0.9",
        }
    }
}

/// How a value is made of the page's samples.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    Metric(Selector),
    /// The first less the second, where the engine counts something that the canonical series leaves out.
    Difference(Selector, Selector),
    Ratio(Selector, Selector),
    Product(Selector, Selector),
    /// The number in a label of a metric that is always 1.
    InLabel(Selector, &'static str),
}

/// Which samples of the page: the name without prefix, and a label that must have one of these values.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub name: &'static str,
    pub label: Option<(&'static str, &'static [&'static str])>,
    /// The name stands without the page's prefix.
    pub is_bare: bool,
}

pub const fn all(name: &'static str) -> Selector {
    Selector { name, label: None, is_bare: false }
}

pub const fn only(name: &'static str, label: &'static str, values: &'static [&'static str]) -> Selector {
    Selector { name, label: Some((label, values)), is_bare: false }
}

pub const fn bare(name: &'static str) -> Selector {
    Selector { name, label: None, is_bare: true }
}

impl Source {
    pub const fn metric(name: &'static str) -> Self {
        Self::Metric(all(name))
    }

    pub const fn labelled(name: &'static str, label: &'static str, values: &'static [&'static str]) -> Self {
        Self::Metric(only(name, label, values))
    }

    pub const fn difference(minuend: &'static str, subtrahend: &'static str) -> Self {
        Self::Difference(all(minuend), all(subtrahend))
    }

    /// The selectors in reading order.
    pub const fn selectors(&self) -> (&Selector, Option<&Selector>) {
        match self {
            Self::Metric(selector) | Self::InLabel(selector, _) => (selector, None),
            Self::Difference(first, second) | Self::Ratio(first, second) | Self::Product(first, second) => {
                (first, Some(second))
            }
        }
    }
}

impl Field {
    /// True at the moment of the scrape.
    pub const fn gauge(series: &'static Series, sources: &'static [Source]) -> Self {
        Self::new(series, sources, When::Scrape)
    }

    pub const fn new(series: &'static Series, sources: &'static [Source], when: When) -> Self {
        Self { series, sources, own: Own::None, when, across: Across::Sum, means: &[] }
    }

    pub const fn own(self, own: Own) -> Self {
        Self { own, ..self }
    }

    /// Of several ranks or replicas, the greatest.
    pub const fn greatest(self) -> Self {
        Self { across: Across::Max, ..self }
    }

    pub const fn means(self, means: &'static [Means]) -> Self {
        Self { means, ..self }
    }
}

/// When the engine adds to the number: a rate over less than a request's life is smooth only for [`When::Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A gauge: true at the moment of the scrape.
    Scrape,
    /// At every step of the scheduler, or every few.
    Step,
    /// When a request's prompt has been computed.
    PromptDone,
    /// When a request has ended; one that was aborted may never be counted.
    RequestDone,
}

impl When {
    pub const fn words(self) -> &'static str {
        match self {
            Self::Scrape => "now",
            Self::Step => "each step",
            Self::PromptDone => "prompt done",
            Self::RequestDone => "request done",
        }
    }
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
    /// Command-line options that name the port of the page, the first present wins.
    pub port_options: &'static [&'static str],
    /// Command-line options that name a unix socket in place of a port.
    pub socket_options: &'static [&'static str],
    /// The port where the command line has none of them.
    pub default_port: u16,
    pub path: &'static str,
    /// Command-line options that name the model, the best first; for pages that do not.
    pub model_options: &'static [&'static str],
}

/// The page of most engines.
pub const METRICS: &str = "/metrics";

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
mod rules {
    use super::*;
    use crate::series::{
        self, Kind,
        engine::{ENGINE_MODEL, INFO},
    };

    #[test]
    fn every_file_here_is_registered() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/engines/dialect");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("a readable folder")
            .filter_map(|entry| Some(entry.expect("an entry").path().file_stem()?.to_str()?.to_owned()))
            .filter(|stem| !["mod", "docs", "tests"].contains(&stem.as_str()))
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
                let is_same = |other: &Field| other.series == field.series && other.own == field.own;
                assert!(!dialect.fields[..index].iter().any(is_same), "{}: {name} twice", dialect.name);
                let own = usize::from(field.own != Own::None);
                assert!(field.series.labels.starts_with(ENGINE_MODEL) && *field.series != INFO, "{name}");
                assert_eq!(field.series.labels.len(), ENGINE_MODEL.len() + own, "{}: {name}", dialect.name);
                assert_eq!(field.series.kind == Kind::Gauge, field.when == When::Scrape, "{}: {name}", dialect.name);
                assert!(!field.sources.is_empty(), "{name}");
                let is_histogram = field.series.kind == Kind::Histogram;
                let is_plain = field.sources.iter().all(|source| matches!(source, Source::Metric(_)));
                assert!(is_plain || !is_histogram, "{}: {name} is made of one histogram", dialect.name);
            }
        }
    }

    #[test]
    fn every_mark_is_a_name_that_the_dialect_maps() {
        for dialect in DIALECTS {
            let sources = dialect.fields.iter().flat_map(|field| field.sources);
            let mut names = sources.flat_map(|source| {
                let (first, second) = source.selectors();
                [Some(first), second].into_iter().flatten().map(|selector| selector.name)
            });
            assert!(names.any(|name| name == dialect.mark), "{}", dialect.name);
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
