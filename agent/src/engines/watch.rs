//! The tasks: one per engine, and one that looks for engines.

mod task;

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::MissedTickBehavior,
};

use self::task::scrape_for_ever;
use super::{
    access::{Access, Way},
    config::{Choice, EngineName, Engines, Interval, Target},
    dialect::Dialect,
    discover::{self, Candidate},
    scrape::{self, Limits, ScrapeError},
    translate,
};
use crate::{clock::boot_ns, containers, identity::pod::Page, incident::Incident, message::Message, series::Sample};

/// Time between two looks at the node's processes.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(15);

/// Candidates that are asked for their first page at once: each may send as much as a page may have.
const MOST_ASKED_AT_ONCE: usize = 8;

/// Between two questions to an engine's process that has no page, and to an annotated pod that is no engine.
const LONGEST_PAUSE_OF_PROCESS: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Where the node tells of its processes.
#[derive(Debug, Clone)]
pub struct Places {
    /// Normally `/proc`.
    pub proc: PathBuf,
    /// Where the kubelet names pods, normally `/var/log`.
    pub logs: PathBuf,
    /// Where pods say that their metrics are.
    pub annotated: watch::Receiver<Vec<Page>>,
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
    pid: Option<u32>,
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
        let mut refused: BTreeMap<String, Refused> = BTreeMap::new();
        let mut hidden = Vec::new();
        let mut left_out = 0;
        loop {
            ticks.tick().await;
            let Places { proc, logs, annotated } = places.clone();
            // Reading /proc blocks; a panic there would be a defect, and the next look is as good.
            let Ok(found) = tokio::task::spawn_blocking(move || discover::look(&proc, &logs)).await else { continue };
            let mut candidates = Candidate::annotated(&annotated.borrow(), &found);
            candidates.splice(0..0, found.candidates);
            if found.hidden != hidden {
                tracing::warn!(pids = ?found.hidden, "engines whose network namespace may not be seen are not scraped");
                hidden = found.hidden;
            }
            if found.left_out > 0 && found.left_out != left_out {
                tracing::warn!(count = found.left_out, "more engine processes than are looked at");
            }
            left_out = found.left_out;
            let pid_of =
                |url: &String| candidates.iter().find(|found| found.access.to_string() == *url).map(|found| found.pid);
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
            for found in &candidates {
                let configured = configured.iter().filter(|target| is_same(&target.access, &found.access));
                known.extend(configured.filter_map(|target| Some((target.name.to_string(), found.pid?))));
            }
            let is_new = |found: &Candidate| {
                let url = found.access.to_string();
                let is_due = refused.get(&url).is_none_or(|refused| Instant::now() >= refused.ask_again);
                is_due
                    && !self.discovered.contains_key(&url)
                    && !configured.iter().any(|target| is_same(&target.access, &found.access))
            };
            // Side by side: each may take as long as it likes.
            let mut asked = JoinSet::new();
            let few = Arc::new(Semaphore::new(MOST_ASKED_AT_ONCE));
            for candidate in candidates.into_iter().filter(is_new) {
                let few = Arc::clone(&few);
                asked.spawn(async move {
                    let _turn = few.acquire().await;
                    let outcome = confirm(&candidate).await;
                    (candidate, outcome)
                });
            }
            let mut answers = asked.join_all().await;
            answers.sort_by_key(|(candidate, _)| candidate.pid);
            for (candidate, outcome) in answers {
                let url = candidate.access.to_string();
                match outcome {
                    Ok(dialect) => {
                        refused.remove(&url);
                        let pid = candidate.pid;
                        let target = self.target(candidate, dialect, configured);
                        let name = target.name.clone();
                        let task = self.start(target);
                        self.discovered.insert(url, Discovered { name, pid, task });
                    }
                    Err(error) => {
                        let refused = refused.entry(url.clone()).or_default();
                        let is_news = refused.again(error.reason(), candidate.pid.is_some());
                        let reason = error.to_line();
                        match candidate.pid {
                            Some(pid) if is_news => {
                                tracing::warn!(pid, url, reason, "engine process has no page to scrape");
                            }
                            // Most pods that are annotated are no engines.
                            None if is_news => tracing::debug!(url, reason, "annotated pod is not read as an engine"),
                            _ => {}
                        }
                    }
                }
            }
            known.extend(self.discovered.values().filter_map(|engine| Some((engine.name.to_string(), engine.pid?))));
            processes.send_replace(known);
        }
    }

    /// A found engine has the name that discovery gave it, with a number if there is another of that name.
    fn target(&self, candidate: Candidate, dialect: &'static Dialect, configured: &[Target]) -> Target {
        let base = candidate.name(dialect);
        let Candidate { access, model, .. } = candidate;
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
        // Nothing of it comes after what is said now.
        while !task.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let taken_boot_ns = boot_ns();
        let gone = Err("the engine's process is gone".to_owned());
        for (source, points) in [(format!("engine:{name}"), gone), (format!("scrape:{name}"), Ok(Vec::new()))] {
            self.samples.send(Message::Sample(Sample { source, taken_boot_ns, points })).await?;
        }
        Ok(())
    }
}

/// What is known of a candidate that gave no page.
struct Refused {
    reason: &'static str,
    ask_again: Instant,
    pause: Duration,
}

impl Default for Refused {
    fn default() -> Self {
        Self { reason: "", ask_again: Instant::now(), pause: DISCOVERY_INTERVAL / 2 }
    }
}

impl Refused {
    /// Whether the reason is another than before. Who gives no page is asked more and more seldom.
    fn again(&mut self, reason: &'static str, is_process: bool) -> bool {
        self.pause = (self.pause * 2).min(if is_process { LONGEST_PAUSE_OF_PROCESS } else { LONGEST_PAUSE });
        self.ask_again = Instant::now() + self.pause;
        std::mem::replace(&mut self.reason, reason) != reason
    }
}

/// Whether what is configured is what was found.
fn is_same(access: &Access, found: &Access) -> bool {
    let (url, other) = (&access.url, &found.url);
    match (&access.way, &found.way) {
        (Way::Tcp, Way::Tcp) => {
            let is_same_host = url.host() == other.host() || (url.is_loopback() && other.is_loopback());
            url.port() == other.port() && is_same_host
        }
        // By the address of its pod.
        (Way::Tcp, Way::TcpIn(network, at)) => {
            let address = url.address().filter(|address| !address.ip().is_loopback());
            url.port() == at.port() && address.is_some_and(|address| discover::has_address(&network.path, address.ip()))
        }
        (Way::TcpIn(network, address), Way::TcpIn(other, at)) => {
            let inode = std::fs::metadata(&network.path).map(|file| file.ino()).ok();
            address.port() == at.port() && inode.is_some() && inode == other.inode
        }
        (Way::Unix(path), Way::UnixIn(within)) => {
            let socket = std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
            socket.is_some() && socket == within.socket
        }
        _ => false,
    }
}

async fn confirm(candidate: &Candidate) -> Result<&'static Dialect, ScrapeError> {
    let page = scrape::fetch(&candidate.access, Limits::default()).await?;
    let reading = translate::translate(&page.body, page.format, candidate.dialect, "", "");
    reading.map(|reading| reading.dialect).ok_or(ScrapeError::Unrecognised)
}

#[cfg(test)]
mod tests;
