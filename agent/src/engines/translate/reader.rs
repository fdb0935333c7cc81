//! One engine's pages, one after the other.
//!
//! From one scrape to the next the values of a page change, and little else: a metric comes, or a label, when something happens for
//! the first time. So a page that was read well leaves behind where each of its numbers went, and one of the same
//! [shape](plumbline_exposition::shape) only has its values put there: what it then yields is what reading it from the start would.

use foldhash::fast::RandomState;
use plumbline_exposition::{Format, shape};

use super::{Reading, Unusable, read, table::Table};
use crate::engines::dialect::Dialect;

/// A longer page is read from the start each time: what a page leaves behind is about 40 bytes for each sample.
const MOST_SAMPLES: usize = 8192;

/// Reads the pages of one engine.
#[derive(Default)]
pub struct Reader {
    dialect: Option<&'static Dialect>,
    engine: String,
    model: String,
    seed: RandomState,
    values: Vec<f64>,
    known: Option<Known>,
}

/// What the last page left behind.
struct Known {
    shape: u64,
    format: Format,
    dialect: &'static Dialect,
    version: &'static str,
    unmapped: usize,
    table: Table,
}

impl Reader {
    /// As for [`translate`](super::translate).
    pub fn new(dialect: Option<&'static Dialect>, engine: &str, model: &str) -> Self {
        Self { dialect, engine: engine.to_owned(), model: model.to_owned(), ..Self::default() }
    }

    /// What [`translate`](super::translate) would say of the page.
    pub fn read(&mut self, page: &[u8], format: Format) -> Option<Reading> {
        self.values.clear();
        let shape = shape(page, &self.seed, &mut self.values);
        let reading = shape.and_then(|shape| self.again(shape, format)).or_else(|| self.afresh(page, shape, format));
        if self.values.capacity() > MOST_SAMPLES {
            self.values = Vec::new();
        }
        reading
    }

    fn again(&mut self, shape: u64, format: Format) -> Option<Reading> {
        let known = self.known.as_mut().filter(|known| (known.shape, known.format) == (shape, format))?;
        let mut unusable = Unusable::default();
        let points = known.table.take_again(&self.values).then(|| known.table.points(&self.engine, &mut unusable))?;
        (unusable.count == 0).then_some(Reading {
            dialect: known.dialect,
            version: known.version,
            points,
            unusable_lines: 0,
            first_unusable: None,
            unmapped: known.unmapped,
        })
    }

    fn afresh(&mut self, page: &[u8], shape: Option<u64>, format: Format) -> Option<Reading> {
        self.known = None;
        let mut read = read(page, format, self.dialect, &self.model)?;
        let reading = read.reading(&self.engine);
        let is_good = reading.unusable_lines == 0 && !read.has_more && read.samples <= MOST_SAMPLES;
        if let Some(shape) = shape.filter(|_| is_good) {
            read.table.settle();
            let (dialect, version, unmapped) = (read.dialect, read.version, reading.unmapped);
            self.known = Some(Known { shape, format, dialect, version, unmapped, table: read.table });
        }
        Some(reading)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engines::translate::translate;

    const PAGES: [&str; 3] = [
        include_str!("../testdata/vllm-0.32.0.txt"),
        include_str!("../testdata/sglang-0.5.23.txt"),
        include_str!("../testdata/llamacpp-0.3.36.txt"),
    ];

    /// What happens to a line between two scrapes.
    #[derive(Debug, Clone)]
    enum Change {
        Value(String),
        Gone,
        Twice,
        Moved,
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            12 => (0..1_000_000_u32).prop_map(|value| Change::Value(value.to_string())),
            1 => "-1|NaN|[+]Inf|1e400|0.5|x|1 1700000000000|1\r|1 # [{][}] 2".prop_map(Change::Value),
            1 => Just(Change::Gone),
            1 => Just(Change::Twice),
            1 => Just(Change::Moved),
        ]
    }

    fn apply(lines: &mut Vec<String>, at: usize, change: Change) {
        match change {
            Change::Value(value) if !lines[at].starts_with('#') => {
                let before = lines[at].rsplit_once(' ').map_or("", |(before, _)| before);
                lines[at] = format!("{before} {value}");
            }
            Change::Value(_) => {}
            Change::Gone => drop(lines.remove(at)),
            Change::Twice => lines.insert(at, lines[at].clone()),
            Change::Moved => lines.rotate_left(at),
        }
    }

    proptest! {
        #[test]
        fn whatever_came_before_a_page_is_read_as_if_it_were_the_first(
            page in prop::sample::select(&PAGES[..]),
            scrapes in prop::collection::vec(prop::collection::vec((any::<prop::sample::Index>(), change()), 0..4), 1..6),
        ) {
            let mut reader = Reader::new(None, "e", "m");
            let mut lines: Vec<String> = page.lines().map(str::to_owned).collect();
            for changes in scrapes {
                for (at, change) in changes {
                    let at = at.index(lines.len());
                    apply(&mut lines, at, change);
                }
                let page = lines.join("\n") + "\n";
                let expected = translate(page.as_bytes(), Format::Text, None, "e", "m");
                prop_assert_eq!(reader.read(page.as_bytes(), Format::Text), expected);
            }
        }
    }

    #[test]
    fn values_alone_are_no_reason_to_read_a_page_from_the_start() {
        for page in PAGES {
            let mut reader = Reader::new(None, "e", "m");
            assert!(reader.read(page.as_bytes(), Format::Text).is_some());
            let line = |line: &str| match line.rsplit_once(' ') {
                Some((before, _)) if !line.starts_with('#') => format!("{before} 0\n"),
                _ => format!("{line}\n"),
            };
            let other: String = page.lines().map(line).collect();
            let mut values = Vec::new();
            let shape = shape(other.as_bytes(), &reader.seed, &mut values).expect("all lines are usual");
            reader.values = values;
            assert_eq!(reader.again(shape, Format::Text), translate(other.as_bytes(), Format::Text, None, "e", "m"));
        }
    }

    #[test]
    fn what_follows_a_value_is_not_taken_for_it() {
        for (first, second) in [(" 1700000000000", " 1700000000001"), (" # {} 2", " # {} 3")] {
            let mut reader = Reader::new(None, "e", "m");
            for after in [first, second] {
                let page = format!("vllm:num_requests_running 1{after}\n");
                let reading = reader.read(page.as_bytes(), Format::Text).expect("a page of vLLM");
                assert_eq!(reading.points[0].number(), Some(1.0), "{page}");
            }
        }
    }

    #[test]
    fn a_page_of_many_samples_leaves_nothing_behind() {
        let page: String =
            (0..=MOST_SAMPLES).map(|rank| format!("vllm:num_requests_running{{engine=\"{rank}\"}} 1\n")).collect();
        let mut reader = Reader::new(None, "e", "m");
        assert!(reader.read(page.as_bytes(), Format::Text).is_some());
        assert!(reader.known.is_none() && reader.values.capacity() == 0);
    }
}
