//! Spans of time on the command line, such as `10m`.

use std::{str::FromStr, time::Duration};

use crate::review::time::{TimeError, span};

#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        Ok(Self(span(text)?.unsigned_abs()))
    }
}
