//! Times as reviewers write them: RFC 3339 in UTC, days, and how long ago.

use std::fmt;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil::Date, tz::TimeZone};
use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "expected a time such as 2026-11-24T12:00:00Z, a day such as 2026-11-24 (UTC) or a span such as 30d, found {0:?}"
)]
pub struct TimeError(String);

/// The first moment of a window and the first after it, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from_ms: u64,
    pub to_ms: u64,
}

/// A window, as it is said on the command line.
#[derive(Debug, Default, clap::Args)]
pub struct WindowArguments {
    /// From this time or day on (RFC 3339, UTC)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// To before this time or day
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The last span of time, such as 1h or 30d
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["from", "to"])]
    last: Option<String>,
}

impl WindowArguments {
    pub fn window(&self) -> Result<Window, TimeError> {
        self.at(Timestamp::now())
    }

    fn at(&self, now: Timestamp) -> Result<Window, TimeError> {
        let from = match (&self.last, &self.from) {
            (Some(last), _) => ms(now - span(last)?),
            (None, Some(from)) => ms(timestamp(from)?),
            (None, None) => 0,
        };
        let to = self.to.as_deref().map(timestamp).transpose()?.map_or(u64::MAX, ms);
        Ok(Window { from_ms: from, to_ms: to })
    }
}

impl Window {
    pub fn contains_ms(&self, time_ms: u64) -> bool {
        (self.from_ms..self.to_ms).contains(&time_ms)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = if self.from_ms == 0 { "the beginning".to_owned() } else { rfc3339_ms(self.from_ms) };
        let to = if self.to_ms == u64::MAX { "now".to_owned() } else { rfc3339_ms(self.to_ms) };
        write!(f, "{from} to {to}")
    }
}

fn timestamp(text: &str) -> Result<Timestamp, TimeError> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let day: Option<Date> = text.parse().ok();
    let midnight = day.and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    midnight.map(|midnight| midnight.timestamp()).ok_or_else(|| TimeError(text.to_owned()))
}

/// A day is 24 hours.
pub fn span(text: &str) -> Result<SignedDuration, TimeError> {
    let span: Option<Span> = text.parse().ok();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    duration.filter(SignedDuration::is_positive).ok_or_else(|| TimeError(text.to_owned()))
}

fn ms(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// `2026-11-24T12:00:00.000Z`.
pub fn rfc3339_ms(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-24T12:00:00Z";

    #[track_caller]
    fn check(from: &str, to: &str, last: &str, expect: Result<&str, &str>) {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let arguments = WindowArguments { from: some(from), to: some(to), last: some(last) };
        let window = arguments.at(NOW.parse().unwrap()).map(|window| window.to_string());
        assert_eq!(window, expect.map(str::to_owned).map_err(|text| TimeError(text.to_owned())));
    }

    #[test]
    fn windows_are_read_as_reviewers_write_them() {
        check("", "", "", Ok("the beginning to now"));
        check("2026-11-01", "2026-12-01", "", Ok("2026-11-01T00:00:00.000Z to 2026-12-01T00:00:00.000Z"));
        check("2026-11-01T01:30:00+01:00", "", "", Ok("2026-11-01T00:30:00.000Z to now"));
        check("", "", "30d", Ok("2026-10-25T12:00:00.000Z to now"));
        check("", "", "1h 30m", Ok("2026-11-24T10:30:00.000Z to now"));
    }

    #[test]
    fn what_is_no_time_is_refused_in_its_own_words() {
        check("yesterday", "", "", Err("yesterday"));
        check("", "2026-13-01", "", Err("2026-13-01"));
        check("", "", "-1h", Err("-1h"));
        check("", "", "soon", Err("soon"));
    }
}
