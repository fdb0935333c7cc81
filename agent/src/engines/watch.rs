//! The tasks: one per engine, and one that looks for engines.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::access::{Access, Way};
use super::config::{Choice, EngineName, Engines, Interval, Target};
use super::discover::{self, Candidate};
use super::scrape::{self, Limits, ScrapeError};
use super::translate::{self, Reading};
use crate::clock::boot_ns;
use crate::containers;
use crate::incident::Incident;
use crate::message::Message;
use crate::series::{Point, Sample, engine};

/// Time between two looks at the node's processes.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(15);

/// Between two scrapes in an incident, at most.
const INCIDENT_INTERVAL: Duration = Duration::from_secs(1);

/// An engine answers us for a twentieth of the time, and not more …
const SHARE_OF_TIME: u32 = 20;

/// … unless it would not be heard for so long.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// Where the node tells of its processes.
#[derive(Debug, Clone)]
pub struct Places {
    /// Normally `/proc`.
    pub proc: PathBuf,
    /// Where the kubelet names pods, normally `/var/log`.
    pub logs: PathBuf,
}

/// Scrapes what is configured and what is found, until `stop` is true or dropped, or nobody listens any more.
pub async fn run(
    config: Engines,
    places: Places,
    incident: Incident,
    samples: mpsc::Sender<Message>,
    stop: watch::Receiver<bool>,
) {
    let (processes, known) = watch::channel(containers::Engines::new());
    let containers = containers::run(known, places.proc.clone(), incident.clone(), samples.clone());
    let engines = run_looking_every(DISCOVERY_INTERVAL, config, places, processes, incident, samples, stop);
    tokio::join!(engines, containers);
}

async fn run_looking_every(
    discovery_interval: Duration,
    config: Engines,
    places: Places,
    processes: watch::Sender<containers::Engines>,
    incident: Incident,
    samples: mpsc::Sender<Message>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = Tasks { samples: samples.clone(), incident, running: JoinSet::new(), discovered: BTreeMap::new() };
    let configured = config.targets.clone();
    for target in config.targets {
        tasks.start(target);
    }
    let look = async {
        if config.discover {
            tasks.discover(discovery_interval, &configured, &places, &processes).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = samples.closed() => {}
        () = look => {}
    }
    // Dropping the set ends every task.
}

struct Tasks {
    samples: mpsc::Sender<Message>,
    incident: Incident,
    running: JoinSet<()>,
    /// Engines that discovery has found and that are being scraped, by how they are reached.
    discovered: BTreeMap<String, Discovered>,
}

struct Discovered {
    name: EngineName,
    /// The process by which it is reached.
    pid: u32,
    task: AbortHandle,
}

impl Tasks {
    fn start(&mut self, target: Target) -> AbortHandle {
        tracing::info!(engine = %target.name, url = %target.access, "scraping engine");
        self.running.spawn(scrape_for_ever(target, self.incident.clone(), self.samples.clone()))
    }

    /// Returns only when nobody listens.
    async fn discover(
        &mut self,
        interval: Duration,
        configured: &[Target],
        places: &Places,
        processes: &watch::Sender<containers::Engines>,
    ) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What was said of a candidate, so that it is said once; forgotten with the candidate.
        let mut refused: BTreeMap<String, &'static str> = BTreeMap::new();
        let mut hidden = Vec::new();
        loop {
            ticks.tick().await;
            let Places { proc, logs } = places.clone();
            // Reading /proc blocks; a panic there would be a defect, and the next look is as good.
            let Ok(found) = tokio::task::spawn_blocking(move || discover::look(&proc, &logs)).await else { continue };
            if found.hidden != hidden {
                tracing::warn!(pids = ?found.hidden, "engines whose network namespace may not be seen are not scraped");
                hidden = found.hidden;
            }
            let pid_of = |url: &String| {
                found.candidates.iter().find(|found| found.access.to_string() == *url).map(|found| found.pid)
            };
            refused.retain(|url, _| pid_of(url).is_some());
            // One that is reached by another process now is started anew.
            let is_gone = |(url, known): &(&String, &Discovered)| pid_of(url) != Some(known.pid);
            let gone: Vec<String> = self.discovered.iter().filter(is_gone).map(|(url, _)| url.clone()).collect();
            for url in gone {
                if self.retire(&url).await.is_err() {
                    return;
                }
            }
            let mut known = containers::Engines::new();
            for found in &found.candidates {
                let configured = configured.iter().filter(|target| is_same(&target.access, &found.access));
                known.extend(configured.map(|target| (target.name.to_string(), found.pid)));
            }
            let is_new = |found: &Candidate| {
                let is_read = self.discovered.contains_key(&found.access.to_string());
                !is_read && !configured.iter().any(|target| is_same(&target.access, &found.access))
            };
            // Side by side: each may take as long as it likes.
            let mut asked = JoinSet::new();
            for candidate in found.candidates.into_iter().filter(is_new) {
                asked.spawn(async move {
                    let outcome = confirm(&candidate).await;
                    (candidate, outcome)
                });
            }
            let mut answers = asked.join_all().await;
            answers.sort_by_key(|(candidate, _)| candidate.pid);
            for (candidate, outcome) in answers {
                let url = candidate.access.to_string();
                match outcome {
                    Ok(()) => {
                        refused.remove(&url);
                        let pid = candidate.pid;
                        let target = self.target(candidate, configured);
                        let name = target.name.clone();
                        let task = self.start(target);
                        self.discovered.insert(url, Discovered { name, pid, task });
                    }
                    Err(error) => {
                        if refused.insert(url.clone(), error.reason()) != Some(error.reason()) {
                            let reason = error.to_line();
                            tracing::warn!(pid = candidate.pid, url, reason, "engine process has no page to scrape");
                        }
                    }
                }
            }
            known.extend(self.discovered.values().map(|engine| (engine.name.to_string(), engine.pid)));
            processes.send_replace(known);
        }
    }

    /// A found engine has the name that discovery gave it, with a number if there is another of that name.
    fn target(&self, candidate: Candidate, configured: &[Target]) -> Target {
        let Candidate { dialect, access, model, name: base, pid: _ } = candidate;
        let is_taken = |name: &EngineName| {
            configured.iter().any(|target| target.name == *name)
                || self.discovered.values().any(|known| known.name == *name)
        };
        let names = std::iter::once(base.clone()).chain((2_u32..).map(|n| format!("{base}.{n}")));
        let name = names
            .filter_map(|name| EngineName::try_from(name).ok())
            .find(|name| !is_taken(name))
            .expect("there are more names than engines");
        Target { name, access, dialect: Choice::Only(dialect), interval: Interval::default(), model }
    }

    /// An engine whose process is gone: nothing is known of it any more, not even that it is down.
    async fn retire(&mut self, url: &str) -> Result<(), mpsc::error::SendError<Message>> {
        let Some(Discovered { name, task, .. }) = self.discovered.remove(url) else { return Ok(()) };
        tracing::info!(engine = %name, url, "engine is gone");
        task.abort();
        let taken_boot_ns = boot_ns();
        let gone = Err("the engine's process is gone".to_owned());
        for (source, points) in [(format!("engine:{name}"), gone), (format!("scrape:{name}"), Ok(Vec::new()))] {
            self.samples.send(Message::Sample(Sample { source, taken_boot_ns, points })).await?;
        }
        Ok(())
    }
}

/// Whether what is configured is what was found.
fn is_same(access: &Access, found: &Access) -> bool {
    let is_file = |path: &Path, other: &Path| {
        let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        identity(path).is_some_and(|file| identity(other) == Some(file))
    };
    match (&access.way, &found.way) {
        (Way::Tcp, Way::Tcp) => {
            let is_same_host = access.url.is_loopback() || access.url.host() == found.url.host();
            access.url.port() == found.url.port() && is_same_host
        }
        (Way::TcpIn(network, address), Way::TcpIn(other, at)) => {
            address.port() == at.port() && is_file(&network.path, &other.path)
        }
        (Way::Unix(path), Way::Unix(other)) => is_file(path, other),
        _ => false,
    }
}

async fn confirm(candidate: &Candidate) -> Result<(), ScrapeError> {
    let page = scrape::fetch(&candidate.access, Limits::default()).await?;
    match translate::translate(&page.body, page.format, Some(candidate.dialect), "", "") {
        Some(_) => Ok(()),
        None => Err(ScrapeError::Unrecognised),
    }
}

/// Ends only when nobody listens.
async fn scrape_for_ever(target: Target, incident: Incident, samples: mpsc::Sender<Message>) {
    let mut account = Account::default();
    loop {
        let taken_boot_ns = boot_ns();
        let began = Instant::now();
        let outcome = read(&target).await;
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
fn pause(interval: Interval, took: Duration, is_incident: bool) -> Duration {
    let interval = interval.as_duration();
    let wanted = if is_incident { interval.min(INCIDENT_INTERVAL) } else { interval };
    let bearable = (took * SHARE_OF_TIME).min(LONGEST_BACK_OFF);
    wanted.max(bearable)
}

async fn read(target: &Target) -> Result<Reading, ScrapeError> {
    let page = scrape::fetch(&target.access, Limits::default()).await?;
    let model = target.model.as_deref().unwrap_or_default();
    translate::translate(&page.body, page.format, target.dialect.only(), target.name.as_str(), model)
        .ok_or(ScrapeError::Unrecognised)
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
                self.unmapped = unmapped.len();
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

#[cfg(test)]
mod tests;
