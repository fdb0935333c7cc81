//! The walk over a page, line by line.

use crate::error::{Fault, Found, SyntaxError};
use crate::line::{self, Line};

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
    format: Format,
    /// Number of the line last read.
    line: usize,
    done: bool,
}

impl<'a> Lines<'a> {
    pub fn new<B: AsRef<[u8]> + ?Sized>(page: &'a B, format: Format) -> Self {
        Self { rest: page.as_ref(), format, line: 0, done: false }
    }

    fn error(&self, column: usize, expected: &'static str, found: Found) -> SyntaxError {
        SyntaxError { line: self.line, column, expected, found }
    }

    fn next_line(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let end = memchr::memchr(b'\n', self.rest);
        let (bytes, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &self.rest[self.rest.len()..]),
        };
        self.rest = rest;
        Some(bytes.strip_suffix(b"\r").unwrap_or(bytes))
    }

    fn read(&self, bytes: &'a [u8]) -> Result<Option<Line<'a>>, SyntaxError> {
        if bytes.len() > MAX_LINE_BYTES {
            return Err(self.error(1, "a line of at most 65536 bytes", Found::EndOfLine));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            self.error(valid.chars().count() + 1, "UTF-8", Found::NotUtf8)
        })?;
        line::parse(text, self.format).map_err(|fault: Fault| fault.locate(self.line, text))
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, SyntaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let Some(bytes) = self.next_line() else {
                self.done = true;
                self.line += 1;
                let truncated = self.format == Format::OpenMetrics;
                return truncated.then(|| Err(self.error(1, "`# EOF`", Found::EndOfPage)));
            };
            match self.read(bytes) {
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
