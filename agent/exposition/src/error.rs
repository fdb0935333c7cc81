//! What is wrong with a line, and where.

use std::fmt;

/// One line that could not be read. The lines after it are still read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct SyntaxError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    pub expected: &'static str,
    pub found: Found,
}

/// What stood in the place of the expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Char(char),
    EndOfLine,
    EndOfPage,
    /// Bytes that are not UTF-8.
    NotUtf8,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Debug escapes control characters: the page is foreign and the message may reach a terminal.
            Self::Char(char) => write!(f, "{char:?}"),
            Self::EndOfLine => f.write_str("the end of the line"),
            Self::EndOfPage => f.write_str("the end of the page"),
            Self::NotUtf8 => f.write_str("bytes that are not UTF-8"),
        }
    }
}

/// An error within one line, before the line's number is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Byte offset in the line; always on a character boundary.
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
}

impl Fault {
    pub(crate) fn locate(self, line: usize, text: &str) -> SyntaxError {
        let (before, rest) = text.split_at_checked(self.at).unwrap_or((text, ""));
        SyntaxError {
            line,
            column: before.chars().count() + 1,
            expected: self.expected,
            found: rest.chars().next().map_or(Found::EndOfLine, Found::Char),
        }
    }
}
