//! The grammar of one line.

use crate::error::Fault;
use crate::lines::Format;
use crate::text::Text;

/// A sample with more labels is an error.
pub const MAX_LABELS: usize = 128;

/// One meaningful line.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    Type {
        family: Text<'a>,
        kind: Kind,
    },
    Help {
        family: Text<'a>,
        help: Text<'a>,
    },
    Unit {
        family: Text<'a>,
        unit: &'a str,
    },
    Sample(Sample<'a>),
    /// OpenMetrics only: the page is complete.
    Eof,
}

/// What `# TYPE` declares. It is a claim: producers in the field declare gauges as counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
    /// `unknown` of OpenMetrics, `untyped` of Prometheus.
    Unknown,
}

/// One value.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    pub name: Text<'a>,
    pub labels: Labels<'a>,
    /// NaN and the infinities included.
    pub value: f64,
    /// Milliseconds of the Unix epoch; OpenMetrics' seconds are rounded.
    pub timestamp_ms: Option<i64>,
    /// What it says is not read.
    pub has_exemplar: bool,
}

/// One label of a sample.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    pub name: Text<'a>,
    pub value: Text<'a>,
}

/// The labels of a sample in the order of the page, as often as they stand there. Cloning rewinds nothing and costs
/// nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Labels<'a> {
    /// What stands between the braces, known to be well formed.
    inner: &'a str,
}

impl<'a> Labels<'a> {
    /// The value of the first label of this name.
    pub fn get(self, name: &str) -> Option<Text<'a>> {
        self.into_iter().find(|label| label.name == *name).map(|label| label.value)
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = Label<'a>;

    fn next(&mut self) -> Option<Label<'a>> {
        let mut cursor = Cursor { line: self.inner, at: 0 };
        loop {
            // Every error is excluded by the scan that made `inner`; ending early beats a panic all the same.
            let entry = cursor.label_entry(true).ok()?;
            self.inner = cursor.rest();
            match entry {
                Entry::Label(label) => return Some(label),
                Entry::MetricName(_) => {}
                Entry::End => return None,
            }
        }
    }
}

enum Entry<'a> {
    Label(Label<'a>),
    /// A quoted name without a value: the metric's own name.
    MetricName(Text<'a>),
    End,
}

/// `each` is given every label of a sample, also of one that is wrong further on.
pub(crate) fn parse<'a>(line: &'a str, format: Format, each: impl FnMut(Label<'a>)) -> Result<Option<Line<'a>>, Fault> {
    let mut cursor = Cursor { line, at: 0 };
    cursor.blanks();
    match cursor.peek() {
        None => Ok(None),
        Some(b'#') => cursor.comment(format),
        Some(_) => cursor.sample(format, each).map(|sample| Some(Line::Sample(sample))),
    }
}

/// A place in a line. `at` only ever stops before or after an ASCII byte, hence on a character boundary.
struct Cursor<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn fail<T>(&self, expected: &'static str) -> Result<T, Fault> {
        Err(Fault { at: self.at, expected })
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| !accept(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Everything up to the next blank.
    fn word(&mut self) -> &'a str {
        self.take_while(|byte| byte != b' ' && byte != b'\t')
    }

    /// `# TYPE`, `# HELP`, `# UNIT`, `# EOF`, or a comment.
    fn comment(mut self, format: Format) -> Result<Option<Line<'a>>, Fault> {
        self.at += 1;
        if !matches!(self.peek(), Some(b' ' | b'\t')) {
            return Ok(None);
        }
        self.blanks();
        match self.word() {
            "TYPE" => {
                let family = self.family()?;
                let at = self.at;
                let kind = match self.word() {
                    "counter" => Kind::Counter,
                    "gauge" => Kind::Gauge,
                    "histogram" => Kind::Histogram,
                    "gaugehistogram" => Kind::GaugeHistogram,
                    "summary" => Kind::Summary,
                    "info" => Kind::Info,
                    "stateset" => Kind::StateSet,
                    "unknown" | "untyped" => Kind::Unknown,
                    _ => return Err(Fault { at, expected: "a metric type" }),
                };
                self.end()?;
                Ok(Some(Line::Type { family, kind }))
            }
            "HELP" => {
                let family = self.family()?;
                Ok(Some(Line::Help { family, help: Text::escaped(self.rest()) }))
            }
            "UNIT" => {
                let family = self.family()?;
                let unit = self.word();
                self.end()?;
                Ok(Some(Line::Unit { family, unit }))
            }
            "EOF" if format == Format::OpenMetrics => {
                self.end()?;
                Ok(Some(Line::Eof))
            }
            _ => Ok(None),
        }
    }

    /// The name of a family, and the blanks around it.
    fn family(&mut self) -> Result<Text<'a>, Fault> {
        self.blanks();
        let family = if self.eat(b'"') { self.quoted()? } else { self.name(is_metric_byte, "a metric name")? };
        if !matches!(self.peek(), None | Some(b' ' | b'\t')) {
            return self.fail("a blank after the metric name");
        }
        self.blanks();
        Ok(family)
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.blanks();
        if self.peek().is_none() { Ok(()) } else { self.fail("the end of the line") }
    }

    fn sample(mut self, format: Format, each: impl FnMut(Label<'a>)) -> Result<Sample<'a>, Fault> {
        let mut name = match self.peek() {
            Some(b'{') => None,
            _ => Some(self.name(is_metric_byte, "a metric name")?),
        };
        self.blanks();
        let open = self.at;
        let labels = if self.eat(b'{') { self.labels(&mut name, each)? } else { Labels::default() };
        let Some(name) = name else {
            return Err(Fault { at: open, expected: "a metric name before or within the braces" });
        };
        self.blanks();
        let value = self.value()?;
        let timestamp_ms = self.timestamp(format)?;
        let has_exemplar = self.eat(b'#');
        if has_exemplar {
            self.exemplar(format)?;
        }
        self.end()?;
        Ok(Sample { name, labels, value, timestamp_ms, has_exemplar })
    }

    /// After the opening brace, up to and with the closing one.
    fn labels(&mut self, metric: &mut Option<Text<'a>>, mut each: impl FnMut(Label<'a>)) -> Result<Labels<'a>, Fault> {
        let start = self.at;
        for _ in 0..=MAX_LABELS {
            if let Some(label) = self.plain_label() {
                each(label);
                continue;
            }
            match self.label_entry(metric.is_none())? {
                Entry::Label(label) => each(label),
                Entry::MetricName(name) => *metric = Some(name),
                Entry::End => return Ok(Labels { inner: &self.line[start..self.at] }),
            }
        }
        self.fail("at most 128 labels")
    }

    /// The same as [`Self::label_entry`] for a label as almost all are written, `name="value"` without blanks or escapes. `None`, and
    /// nothing is read, if it is another.
    fn plain_label(&mut self) -> Option<Label<'a>> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let name = bytes.iter().position(|&byte| !is_label_byte(byte))?;
        if name == 0 || bytes[0].is_ascii_digit() || !bytes[name..].starts_with(b"=\"") {
            return None;
        }
        let start = name + 2;
        let end = start + memchr::memchr2(b'"', b'\\', &bytes[start..])?;
        if bytes[end] != b'"' {
            return None;
        }
        let after = match bytes.get(end + 1)? {
            b',' => end + 2,
            b'}' => end + 1,
            _ => return None,
        };
        self.at += after;
        Some(Label { name: Text::plain(&rest[..name]), value: Text::plain(&rest[start..end]) })
    }

    /// One label with the comma after it, or the closing brace.
    fn label_entry(&mut self, may_be_metric: bool) -> Result<Entry<'a>, Fault> {
        self.blanks();
        let quoted = match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(Entry::End);
            }
            Some(b'"') => true,
            _ => false,
        };
        let name = if quoted {
            self.at += 1;
            self.quoted()?
        } else {
            self.name(is_label_byte, "a label name or `}`")?
        };
        self.blanks();
        let entry = if self.eat(b'=') {
            self.blanks();
            if !self.eat(b'"') {
                return self.fail("a quoted label value");
            }
            Entry::Label(Label { name, value: self.quoted()? })
        } else if quoted && may_be_metric {
            Entry::MetricName(name)
        } else {
            return self.fail("`=`");
        };
        self.blanks();
        if self.eat(b',') || self.peek() == Some(b'}') { Ok(entry) } else { self.fail("`,` or `}`") }
    }

    fn name(&mut self, accept: impl Fn(u8) -> bool, expected: &'static str) -> Result<Text<'a>, Fault> {
        if self.peek().is_none_or(|byte| byte.is_ascii_digit() || !accept(byte)) {
            return self.fail(expected);
        }
        Ok(Text::plain(self.take_while(accept)))
    }

    /// After an opening quote, up to and with the closing one.
    fn quoted(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let Some(next) = memchr::memchr2(b'"', b'\\', self.rest().as_bytes()) else {
                self.at = self.line.len();
                return self.fail("a closing quote");
            };
            self.at += next;
            if self.peek() == Some(b'"') {
                break;
            }
            escaped = true;
            // The byte after a backslash may begin a longer character; only a quote or a backslash matters.
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'"' | b'\\')));
        }
        let raw = &self.line[start..self.at];
        self.at += 1;
        Ok(if escaped { Text::escaped(raw) } else { Text::plain(raw) })
    }

    /// A number and the blanks after it.
    fn value(&mut self) -> Result<f64, Fault> {
        let at = self.at;
        // `parse` takes `NaN`, `nan`, `+Inf`, `-Inf`, `infinity` in any case, as the producers spell them.
        let Ok(value) = self.word().parse::<f64>() else { return Err(Fault { at, expected: "a number" }) };
        self.blanks();
        Ok(value)
    }

    fn timestamp(&mut self, format: Format) -> Result<Option<i64>, Fault> {
        if matches!(self.peek(), None | Some(b'#')) {
            return Ok(None);
        }
        let at = self.at;
        let word = self.word();
        self.blanks();
        let timestamp_ms = match format {
            Format::Text => word.parse().ok(),
            Format::OpenMetrics => word.parse().ok().and_then(milliseconds),
        };
        match timestamp_ms {
            Some(timestamp_ms) => Ok(Some(timestamp_ms)),
            None => Err(Fault { at, expected: "a timestamp or the end of the line" }),
        }
    }

    /// After `#`: checked for form, then forgotten.
    fn exemplar(&mut self, format: Format) -> Result<(), Fault> {
        self.blanks();
        if !self.eat(b'{') {
            return self.fail("the labels of an exemplar");
        }
        self.labels(&mut Some(Text::plain("")), |_| {})?;
        self.blanks();
        self.value()?;
        self.timestamp(format)?;
        Ok(())
    }
}

/// Letters, digits, `_`, and `:`; looked up, since every byte of a page's names is asked for.
const METRIC_BYTES: [bool; 256] = {
    let mut table = LABEL_BYTES;
    table[b':' as usize] = true;
    table
};

const LABEL_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let is_in_names = (byte as u8).is_ascii_alphanumeric();
        table[byte] = is_in_names;
        byte += 1;
    }
    table[b'_' as usize] = true;
    table
};

fn is_metric_byte(byte: u8) -> bool {
    METRIC_BYTES[usize::from(byte)]
}

fn is_label_byte(byte: u8) -> bool {
    LABEL_BYTES[usize::from(byte)]
}

fn milliseconds(seconds: f64) -> Option<i64> {
    let milliseconds = (seconds * 1e3).round();
    #[expect(clippy::cast_possible_truncation, reason = "the bound is far within i64")]
    (milliseconds.abs() < 9e15).then_some(milliseconds as i64)
}
