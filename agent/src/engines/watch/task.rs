//! One engine's task: asks for its page, again and again, and keeps account of how that goes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    clock::boot_ns,
    engines::{
        config::{EngineName, Interval, Target},
        scrape::{self, Limits, ScrapeError},
        translate::{Reader, Reading},
    },
    incident::Incident,
    message::Message,
    series::{Point, Sample, engine},
};

/// Between two scrapes in an incident, at most.
const INCIDENT_INTERVAL: Duration = Duration::from_secs(1);

/// An engine answers us for a twentieth of the time, and not more …
const SHARE_OF_TIME: u32 = 20;

/// … unless it would not be heard for so long.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// Ends only when nobody listens.
pub(super) async fn scrape_for_ever(target: Target, incident: Incident, samples: mpsc::Sender<Message>) {
    let mut account = Account::default();
    let model = target.model.as_deref().unwrap_or_default();
    let mut reader = Reader::new(target.dialect.only(), target.name.as_str(), model);
    loop {
        let taken_boot_ns = boot_ns();
        let began = Instant::now();
        let outcome = read(&target, &mut reader).await;
        let took = began.elapsed();
        let points = account.book(&target.name, taken_boot_ns, outcome);
        let own = account.points(&target, boot_ns(), took);
        for (kind, points) in [("engine", points), ("scrape", Ok(own))] {
            let sample = Sample { source: format!("{kind}:{}", target.name), taken_boot_ns, points };
            if samples.send(Message::Sample(sample)).await.is_err() {
                return;
            }
        }
        // An incident may begin meanwhile.
        loop {
            let left = pause(target.interval, took, incident.holds(boot_ns())).saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(INCIDENT_INTERVAL)).await;
        }
    }
}

/// From the start of one scrape to the start of the next. An engine that needs long for its page is asked the more seldom, also in
/// an incident: it serves its users from the same loop.
pub(super) fn pause(interval: Interval, took: Duration, is_incident: bool) -> Duration {
    let interval = interval.as_duration();
    let wanted = if is_incident { interval.min(INCIDENT_INTERVAL) } else { interval };
    let bearable = (took * SHARE_OF_TIME).min(LONGEST_BACK_OFF);
    wanted.max(bearable)
}

async fn read(target: &Target, reader: &mut Reader) -> Result<Reading, ScrapeError> {
    let page = scrape::fetch(&target.access, Limits::default()).await?;
    reader.read(&page.body, page.format).ok_or(ScrapeError::Unrecognised)
}

/// How the scrapes of one engine went so far.
#[derive(Debug, Default)]
struct Account {
    is_up: bool,
    last_good_boot_ns: Option<u64>,
    errors: BTreeMap<&'static str, u64>,
    unusable_lines: u64,
    /// Dialect and version of the newest page.
    known: Option<(&'static str, &'static str)>,
    unmapped: usize,
    /// What was last said in the log, so that a lasting fault is said once.
    said: Option<&'static str>,
}

impl Account {
    /// Takes note of a scrape and hands on what it gave.
    fn book(
        &mut self,
        name: &EngineName,
        taken_boot_ns: u64,
        outcome: Result<Reading, ScrapeError>,
    ) -> Result<Vec<Point>, String> {
        self.is_up = outcome.is_ok();
        match outcome {
            Ok(Reading { dialect, version, points, unusable_lines, first_unusable, unmapped }) => {
                self.known = Some((dialect.name, version));
                self.unmapped = unmapped;
                self.last_good_boot_ns = Some(taken_boot_ns);
                if let (0, Some(first)) = (self.unusable_lines, first_unusable) {
                    tracing::warn!(engine = %name, count = unusable_lines, first, "engine's page has unusable lines");
                }
                self.unusable_lines += unusable_lines;
                if self.said.replace("up") != Some("up") {
                    tracing::info!(engine = %name, dialect = dialect.name, series = points.len(), "engine answers");
                }
                Ok(points)
            }
            Err(error) => {
                *self.errors.entry(error.reason()).or_default() += 1;
                let line = error.to_line();
                if self.said.replace(error.reason()) != Some(error.reason()) {
                    tracing::warn!(engine = %name, reason = line, "engine gives no reading");
                }
                Err(line)
            }
        }
    }

    fn points(&self, target: &Target, now_boot_ns: u64, duration: Duration) -> Vec<Point> {
        let engine = target.name.as_str();
        let mut points = vec![
            Point::new(&engine::UP, &[engine], f64::from(u8::from(self.is_up))),
            Point::new(&engine::SCRAPE_DURATION_SECONDS, &[engine], duration.as_secs_f64()),
            Point::new(&engine::UNUSABLE_LINES_TOTAL, &[engine], self.unusable_lines as f64),
        ];
        if let Some(last) = self.last_good_boot_ns {
            let age_seconds = now_boot_ns.saturating_sub(last) as f64 / 1e9;
            points.push(Point::new(&engine::SAMPLE_AGE_SECONDS, &[engine], age_seconds));
        }
        if let Some((dialect, version)) = self.known.filter(|_| self.is_up) {
            let url = target.access.to_string();
            points.push(Point::new(&engine::INFO, &[engine, dialect, version, &url], 1.0));
            points.push(Point::new(&engine::UNMAPPED_FAMILIES, &[engine], self.unmapped as f64));
        }
        points.extend(
            self.errors
                .iter()
                .map(|(reason, count)| Point::new(&engine::SCRAPE_ERRORS_TOTAL, &[engine, reason], *count as f64)),
        );
        points
    }
}
