//! The walk over a page, line by line.

use crate::error::{Fault, Found, SyntaxError};
use crate::line::{self, Label, Line};

/// A longer line is an error and is skipped.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// Which of the two formats the page claims to be. They differ in the unit of timestamps and in the end mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus text: timestamps are integer milliseconds, the page just ends.
    #[default]
    Text,
    /// OpenMetrics: timestamps are seconds, `# EOF` ends the page and its absence means a truncated page.
    OpenMetrics,
}

impl Format {
    /// The format that an HTTP `Content-Type` names; anything but OpenMetrics is read as Prometheus text.
    pub fn from_content_type(content_type: &str) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }
}

/// An iterator over the meaningful lines of a page: comments and blank lines are passed over.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    rest: &'a [u8],
    /// The whole page, where all of it is UTF-8: to look once is quicker than to look at each line.
    text: Option<&'a str>,
    format: Format,
    /// Number of the line last read.
    line: usize,
    done: bool,
}

impl<'a> Lines<'a> {
    pub fn new<B: AsRef<[u8]> + ?Sized>(page: &'a B, format: Format) -> Self {
        let page = page.as_ref();
        Self { rest: page, text: std::str::from_utf8(page).ok(), format, line: 0, done: false }
    }

    fn error(&self, column: usize, expected: &'static str, found: Found) -> SyntaxError {
        SyntaxError { line: self.line, column, expected, found }
    }

    /// The bytes of a line, and where they begin.
    fn next_line(&mut self) -> Option<(&'a [u8], usize)> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let start = self.text.map_or(0, |text| text.len() - self.rest.len());
        let end = memchr::memchr(b'\n', self.rest);
        let (bytes, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &self.rest[self.rest.len()..]),
        };
        self.rest = rest;
        Some((bytes.strip_suffix(b"\r").unwrap_or(bytes), start))
    }

    /// As `next`, and puts the labels of a sample into `labels`, which is emptied before each line: for who wants them all, without going
    /// through [`Sample::labels`](crate::Sample::labels) a second time.
    pub fn next_with(&mut self, labels: &mut Vec<Label<'a>>) -> Option<Result<Line<'a>, SyntaxError>> {
        self.advance(|text, format| {
            labels.clear();
            line::parse(text, format, |label| labels.push(label))
        })
    }

    fn read(
        &self,
        (bytes, start): (&'a [u8], usize),
        parse: impl FnOnce(&'a str, Format) -> Result<Option<Line<'a>>, Fault>,
    ) -> Result<Option<Line<'a>>, SyntaxError> {
        if bytes.len() > MAX_LINE_BYTES {
            return Err(self.error(1, "a line of at most 65536 bytes", Found::EndOfLine));
        }
        let text = match self.text.and_then(|text| text.get(start..start + bytes.len())) {
            Some(text) => text,
            None => std::str::from_utf8(bytes).map_err(|error| {
                let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                self.error(valid.chars().count() + 1, "UTF-8", Found::NotUtf8)
            })?,
        };
        parse(text, self.format).map_err(|fault: Fault| fault.locate(self.line, text))
    }

    fn advance(
        &mut self,
        mut parse: impl FnMut(&'a str, Format) -> Result<Option<Line<'a>>, Fault>,
    ) -> Option<Result<Line<'a>, SyntaxError>> {
        while !self.done {
            let Some(bytes) = self.next_line() else {
                self.done = true;
                self.line += 1;
                let truncated = self.format == Format::OpenMetrics;
                return truncated.then(|| Err(self.error(1, "`# EOF`", Found::EndOfPage)));
            };
            match self.read(bytes, &mut parse) {
                Ok(None) => {}
                Ok(Some(Line::Eof)) => {
                    self.done = true;
                    if let Some(&byte) = self.rest.iter().find(|byte| !byte.is_ascii_whitespace()) {
                        self.line += 1;
                        return Some(Err(self.error(1, "nothing after `# EOF`", Found::Char(char::from(byte)))));
                    }
                    return Some(Ok(Line::Eof));
                }
                Ok(Some(line)) => return Some(Ok(line)),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, SyntaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(|text, format| line::parse(text, format, |_| {}))
    }
}
