//! An incident: for a bounded time, what changes fast is looked at more often.
//!
//! Whoever may say so (the API with its token, a grave finding about a GPU, a command that asks the API) begins one; all who
//! look faster meanwhile hold the same handle. Each word is kept for the core, which records it.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;

/// What the configuration says of incidents.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IncidentConfig {
    /// A file of mode 600 with the token that `POST /api/v1/incident` wants; without it, nobody may.
    pub token_file: Option<PathBuf>,
    /// How long one lasts where nobody says how long.
    pub minutes: u64,
    /// How long one lasts at most.
    pub most_minutes: u64,
    /// Grave findings about GPUs begin one of two minutes.
    pub by_findings: bool,
}

impl Default for IncidentConfig {
    fn default() -> Self {
        Self { token_file: None, minutes: 10, most_minutes: 60, by_findings: true }
    }
}

impl IncidentConfig {
    /// So long as was asked for, and no longer than may be.
    pub fn length(&self, minutes: Option<u64>) -> Duration {
        Duration::from_secs(60 * minutes.unwrap_or(self.minutes).min(self.most_minutes))
    }
}

/// How long a finding's incident lasts.
pub const BY_FINDING: Duration = Duration::from_secs(120);

/// Words that wait for the core; more within half a second are one.
const MOST_WORDS: usize = 32;

/// Whether there is an incident; all clones speak of the same.
#[derive(Debug, Clone, Default)]
pub struct Incident(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Nanoseconds of CLOCK_BOOTTIME.
    until_boot_ns: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    words: Vec<(&'static str, String)>,
    is_one: bool,
}

/// The kinds of findings that tell of it.
const BEGIN: &str = "incident.begin";
const END: &str = "incident.end";

impl Incident {
    /// Begins one, or makes it last longer; never shorter. Returns when it will be over.
    pub fn begin(&self, now_boot_ns: u64, length: Duration, why: &str) -> u64 {
        let mut said = self.lock();
        said.settle(now_boot_ns, self.until());
        let until = self.until().max(now_boot_ns + u64::try_from(length.as_nanos()).unwrap_or(0));
        self.0.until_boot_ns.store(until, Ordering::Relaxed);
        let verb = if said.is_one { "goes on" } else { "begins" };
        said.is_one = true;
        said.push(BEGIN, format!("an incident {verb} for {} s: {why}", length.as_secs()));
        until
    }

    /// Ends it before its time.
    pub fn end(&self, now_boot_ns: u64, why: &str) {
        let mut said = self.lock();
        said.settle(now_boot_ns, self.until());
        if said.is_one {
            self.0.until_boot_ns.store(0, Ordering::Relaxed);
            said.is_one = false;
            said.push(END, format!("the incident ends: {why}"));
        }
    }

    pub fn holds(&self, now_boot_ns: u64) -> bool {
        now_boot_ns < self.until()
    }

    /// What was said since the last call, and that its time was over: for the core, which records it.
    pub fn take_said(&self, now_boot_ns: u64) -> Vec<(&'static str, String)> {
        let mut said = self.lock();
        said.settle(now_boot_ns, self.until());
        std::mem::take(&mut said.words)
    }

    fn until(&self) -> u64 {
        self.0.until_boot_ns.load(Ordering::Relaxed)
    }

    /// Whoever changes anything holds this; whoever only asks does not wait for it.
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// An incident whose time is over has ended, before anything else is said.
    fn settle(&mut self, now_boot_ns: u64, until_boot_ns: u64) {
        if self.is_one && now_boot_ns >= until_boot_ns {
            self.is_one = false;
            self.push(END, "the incident ends: its time is over".to_owned());
        }
    }

    /// A beginning may be one too many; an end has always room.
    fn push(&mut self, kind: &'static str, words: String) {
        if self.words.len() < MOST_WORDS || kind == END {
            self.words.push((kind, words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn said(incident: &Incident, second: u64) -> Vec<String> {
        incident.take_said(second * SECOND_NS).into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn one_ends_with_its_time_and_says_so_once() {
        let incident = Incident::default();
        assert!(!incident.holds(0) && said(&incident, 0).is_empty());
        incident.begin(0, Duration::from_secs(10), "somebody asked");
        assert!(incident.holds(9 * SECOND_NS) && !incident.holds(10 * SECOND_NS));
        assert_eq!(said(&incident, 9), ["an incident begins for 10 s: somebody asked"]);
        assert_eq!(said(&incident, 10), ["the incident ends: its time is over"]);
        assert!(said(&incident, 11).is_empty());
    }

    #[test]
    fn another_word_makes_it_longer_and_never_shorter() {
        let incident = Incident::default();
        incident.begin(0, Duration::from_secs(60), "a");
        incident.begin(SECOND_NS, Duration::from_secs(10), "b");
        assert!(incident.holds(59 * SECOND_NS));
        assert_eq!(said(&incident, 2), ["an incident begins for 60 s: a", "an incident goes on for 10 s: b"]);
    }

    #[test]
    fn one_that_follows_another_at_once_is_another() {
        let incident = Incident::default();
        incident.begin(0, Duration::from_secs(1), "a");
        incident.begin(2 * SECOND_NS, Duration::from_secs(1), "b");
        let words =
            ["an incident begins for 1 s: a", "the incident ends: its time is over", "an incident begins for 1 s: b"];
        assert_eq!(said(&incident, 2), words);
    }

    #[test]
    fn it_can_be_ended() {
        let incident = Incident::default();
        incident.end(0, "there is none");
        incident.begin(0, Duration::from_secs(60), "a");
        incident.end(SECOND_NS, "resolved");
        assert_eq!(said(&incident, 2), ["an incident begins for 60 s: a", "the incident ends: resolved"]);
        assert!(said(&incident, 3).is_empty());
    }

    #[test]
    fn a_flood_of_words_is_bounded() {
        let incident = Incident::default();
        for _ in 0..1000 {
            incident.begin(0, Duration::from_secs(1), "x");
        }
        incident.end(0, "enough");
        let words = said(&incident, 0);
        assert_eq!(
            (words.len(), words.last().map(String::as_str)),
            (MOST_WORDS + 1, Some("the incident ends: enough"))
        );
    }

    #[test]
    fn no_incident_lasts_longer_than_the_configuration_lets_it() {
        let config = IncidentConfig::default();
        let minutes = |asked| config.length(asked).as_secs() / 60;
        assert_eq!([minutes(None), minutes(Some(5)), minutes(Some(u64::MAX / 60))], [10, 5, 60]);
    }
}
