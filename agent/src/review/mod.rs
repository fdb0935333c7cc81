//! The log read by people: times, one-line records, the reviewer's report. It reads records and writes nothing.

pub mod controls;
pub mod document;
pub mod line;
pub mod occurrence;
pub mod summary;
pub mod time;
