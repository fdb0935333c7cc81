//! A zero-copy, streaming parser of the Prometheus text format 0.0.4 (and its 1.0.0 with quoted UTF-8 names) and of
//! OpenMetrics 1.0.
//!
//! [`Lines`] walks a page that the caller holds and yields one [`Line`] at a time; nothing is allocated per sample,
//! and escapes are undone only when asked for. A line that is wrong yields a [`SyntaxError`] with its place and what
//! was expected there, and the walk goes on with the next line: what to do about it is the caller's decision.
//!
//! It does not group lines into families, does not check that a counter grows or that buckets are cumulative, and
//! reads exemplars only to skip them. Input is hostile: a line is at most [`MAX_LINE_BYTES`] long and carries at most
//! [`MAX_LABELS`] labels.
//!
//! The grammars: <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>. Where producers in the field are laxer than the grammar
//! (blanks around tokens, carriage returns, no final newline, `nan` in lower case) so is this parser.
#![forbid(unsafe_code)]

mod error;
mod line;
mod lines;
mod shape;
mod text;

pub use error::{Found, SyntaxError};
pub use line::{Kind, Label, Labels, Line, MAX_LABELS, Sample};
pub use lines::{Format, Lines, MAX_LINE_BYTES};
pub use shape::shape;
pub use text::Text;
