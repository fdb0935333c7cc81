//! Text as it stands on the page, escapes included.

use std::borrow::Cow;
use std::fmt;

/// A borrowed piece of the page: a name, a label value or a help text.
///
/// `\n`, `\"` and `\\` are escapes; a backslash before anything else stands for itself, as in Prometheus' own parser.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    pub(crate) fn plain(raw: &'a str) -> Self {
        Self { raw, escaped: false }
    }

    pub(crate) fn escaped(raw: &'a str) -> Self {
        Self { raw, escaped: raw.contains('\\') }
    }

    /// The text exactly as on the page.
    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// The text that is meant. It borrows from the page unless there is an escape to undo.
    pub fn unescape(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(self.chars().collect()) } else { Cow::Borrowed(self.raw) }
    }

    /// The characters that are meant, without allocating.
    pub fn chars(self) -> impl Iterator<Item = char> + 'a {
        let mut rest = self.raw.chars();
        std::iter::from_fn(move || {
            let char = rest.next()?;
            if char != '\\' {
                return Some(char);
            }
            let meant = match rest.clone().next() {
                Some('n') => '\n',
                Some('"') => '"',
                Some('\\') => '\\',
                _ => return Some('\\'),
            };
            rest.next();
            Some(meant)
        })
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        if self.escaped { self.chars().eq(other.chars()) } else { self.raw == other }
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.unescape(), f)
    }
}
