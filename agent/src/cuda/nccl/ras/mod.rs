//! NCCL's RAS, asked now and then what it knows of the ranks of a job, those of other nodes among them (`cuda.nccl_ras`).
//!
//! | file | its one job |
//! |---|---|
//! | `ask` | the protocol |
//! | `report` | what an answer says |
//!
//! RAS listens on the loopback address of the network namespace that its processes are in, one process for all of a job. Whoever is in that
//! namespace may answer in its place: what is said is told with the process by which it was asked, and is believed of nobody else.

mod ask;
mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use plumbline_policy::Severity;

use self::{
    ask::{AskError, ask},
    report::{Job, Known, State, job, read},
};
use super::{
    super::{
        account::{float, of_process},
        told::process_name,
    },
    account::result,
};
use crate::{
    core::chain,
    event::{Finding, FoundProcess},
    netns::{Network, NetworkError},
    series::{Point, nccl},
};

/// NCCL_RAS_CLIENT_PORT of NCCL's `src/include/ras.h`.
const PORT: u16 = 28028;

/// From one round to the next. RAS has all processes of a job asked each time.
const EVERY: Duration = Duration::from_secs(60);

/// Network namespaces that are asked in one round: a node has no more GPUs.
const MOST_NETWORKS: usize = 16;

/// Ranks of a communicator that are told to be behind, the furthest.
const MOST_BEHIND: usize = 64;

/// Ranks that are remembered.
const MOST_KNOWN: usize = 65_536;

/// What is told of one round, and which ranks are named in it.
const MOST_FINDINGS: usize = 16;
const MOST_NAMED: usize = 8;

/// Lines of the page, of all that is asked.
const MOST_POINTS: usize = 2048;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum RasError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("what RAS says is no report")]
    Report(#[from] serde_json::Error),
}

/// By whom a job is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    pid: u32,
    name: String,
    network: Network,
}

type Answer = (Asked, Result<Job, RasError>);

#[derive(Debug, Default)]
pub struct Ras {
    is_wanted: bool,
    asked_at: Option<Instant>,
    /// Network namespaces in which somebody had NCCL in the last round, whether they were asked or not.
    networks: BTreeSet<u64>,
    /// Until all have answered.
    asking: Option<Receiver<Answer>>,
    /// Of this round, as far as it is.
    answers: Vec<(Asked, Job)>,
    /// Of the last that was whole.
    jobs: Vec<(Asked, Job)>,
    known: HashMap<Rank, Progress>,
    outcomes: BTreeMap<&'static str, u64>,
}

/// A rank by the namespace in which its job is asked, its communicator, and its number.
type Rank = (u64, String, u32);

#[derive(Debug, Default)]
struct Progress {
    called: u64,
    was: Option<State>,
    is_lost: bool,
    is_stuck: bool,
}

impl Ras {
    pub fn of(is_wanted: bool) -> Self {
        Self { is_wanted, ..Self::default() }
    }

    /// Asks again if it is time to, those that these processes belong to; and what begins and ends by what was answered meanwhile.
    pub fn look(&mut self, processes: impl Iterator<Item = u32>, proc: &Path) -> Vec<Finding> {
        if !self.is_wanted {
            return Vec::new();
        }
        if self.asking.is_none() && self.asked_at.is_none_or(|at| at.elapsed() >= EVERY) {
            let networks = networks(processes, proc);
            self.networks = networks.keys().copied().collect();
            if networks.is_empty() {
                return self.observe(Vec::new());
            }
            self.asked_at = Some(Instant::now());
            self.asking = Some(round(networks.into_iter().take(MOST_NETWORKS).map(|of| asked(of, proc)).collect()));
        }
        let Some(answers) = self.asking.take() else { return Vec::new() };
        loop {
            match answers.try_recv() {
                Ok((asked, answer)) => self.take(asked, answer),
                Err(TryRecvError::Empty) => {
                    self.asking = Some(answers);
                    return Vec::new();
                }
                // The thread that asked has ended.
                Err(TryRecvError::Disconnected) => {
                    let answers = std::mem::take(&mut self.answers);
                    return self.observe(answers);
                }
            }
        }
    }

    /// Nobody is looked at any more, whatever becomes of them.
    pub fn forget(&mut self) {
        let (is_wanted, outcomes) = (self.is_wanted, std::mem::take(&mut self.outcomes));
        *self = Self { outcomes, ..Self::of(is_wanted) };
    }

    fn take(&mut self, asked: Asked, answer: Result<Job, RasError>) {
        let outcome = match answer {
            Ok(job) => {
                self.answers.push((asked, job));
                "report"
            }
            // NCCL before 2.24, or told not to.
            Err(RasError::Ask(AskError::Connect(..))) => "nobody",
            Err(error) => {
                tracing::debug!(
                    process = asked.name,
                    pid = asked.pid,
                    reason = chain(&error),
                    "NCCL's RAS says nothing"
                );
                "error"
            }
        };
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    fn observe(&mut self, jobs: Vec<(Asked, Job)>) -> Vec<Finding> {
        // Who did not answer this time may do so the next, as long as there is somebody.
        let networks = &self.networks;
        let gone: Vec<(Rank, Progress)> =
            self.known.extract_if(|(network, ..), _| !networks.contains(network)).collect();
        let has_answered = |network: u64| jobs.iter().any(|(asked, _)| asked.network.inode == Some(network));
        let mut before: HashMap<Rank, Progress> =
            self.known.extract_if(|(network, ..), _| has_answered(*network)).collect();
        let mut findings = Vec::new();
        for (asked, job) in &jobs {
            let network = asked.network.inode.unwrap_or_default();
            for (comm, ranks) in job {
                let mut told: BTreeMap<Told, Vec<(u32, &Known)>> = BTreeMap::new();
                for (rank, known) in ranks {
                    if self.known.len() >= MOST_KNOWN {
                        break;
                    }
                    let key = (network, comm.clone(), *rank);
                    let mut progress = before.remove(&key).unwrap_or_default();
                    if let Some(one) = progress.observe(known) {
                        told.entry(one).or_default().push((*rank, known));
                    }
                    self.known.insert(key, progress);
                }
                findings.extend(told.iter().map(|(told, ranks)| finding(*told, asked, comm, ranks)));
            }
        }
        let is_told_of = |(network, comm, rank): &Rank| {
            let of_it = jobs.iter().filter(|(asked, _)| asked.network.inode == Some(*network));
            of_it.filter_map(|(_, job)| job.get(comm)).any(|ranks| ranks.contains_key(rank))
        };
        before.retain(|rank, _| !is_told_of(rank));
        // In another namespace of the same job they may be stuck still.
        let stuck = self.known.iter().filter(|(_, progress)| progress.is_stuck);
        let stuck: HashSet<(&str, u32)> = stuck.map(|((_, comm, rank), _)| (comm.as_str(), *rank)).collect();
        let ended = before.into_iter().chain(gone);
        findings.extend(no_more(ended.filter(|((_, comm, rank), _)| !stuck.contains(&(comm.as_str(), *rank)))));
        self.jobs = jobs;
        let withheld = findings.len().saturating_sub(MOST_FINDINGS);
        findings.truncate(MOST_FINDINGS);
        if withheld > 0 {
            tracing::warn!(withheld, "NCCL's RAS says more than is recorded");
        }
        findings
    }

    /// Nothing where nobody wants to know.
    pub fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for (outcome, count) in &self.outcomes {
            points.push(Point::new(&nccl::RAS_ANSWERS_TOTAL, &[outcome], float(*count)));
        }
        for (asked, job) in &self.jobs {
            for (comm, ranks) in job {
                points.extend(State::NAMES.map(|state| {
                    let count = ranks.values().filter(|known| known.state.as_str() == state).count();
                    of_process(&nccl::RAS_RANKS, asked.pid, &[comm, state], float(count as u64))
                }));
                let mut behind: Vec<_> = ranks.iter().filter(|(_, known)| known.behind > 0).collect();
                behind.sort_by_key(|(rank, known)| (std::cmp::Reverse(known.behind), **rank));
                points.extend(behind.into_iter().take(MOST_BEHIND).map(|(rank, known)| {
                    of_process(&nccl::RAS_BEHIND, asked.pid, &[comm, &rank.to_string()], float(known.behind))
                }));
            }
        }
        points.truncate(MOST_POINTS);
        points
    }
}

/// What is to be told of ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Lost,
    Stuck,
    Moves,
}

impl Progress {
    fn observe(&mut self, known: &Known) -> Option<Told> {
        let before = self.was.replace(known.state);
        let is_lost = match known.state {
            State::Dead | State::Failed(_) => true,
            // It may have been busy.
            State::Unresponsive => before == Some(State::Unresponsive),
            State::Running | State::Ending => false,
        };
        let has_moved = before.is_none() || known.called != self.called;
        self.called = known.called;
        let was_lost = std::mem::replace(&mut self.is_lost, is_lost);
        if is_lost && !was_lost {
            self.is_stuck = false;
            return Some(Told::Lost);
        }
        let is_stuck = known.state == State::Running && known.behind > 0 && !has_moved;
        let was_stuck = std::mem::replace(&mut self.is_stuck, is_stuck);
        match (was_stuck, is_stuck) {
            (false, true) => Some(Told::Stuck),
            (true, false) => Some(Told::Moves),
            _ => None,
        }
    }
}

/// Of all ranks of a communicator of which the same is to be told.
fn finding(told: Told, asked: &Asked, comm: &str, ranks: &[(u32, &Known)]) -> Finding {
    let (kind, severity) = match told {
        Told::Lost => ("nccl.ras.lost", Severity::High),
        Told::Stuck => ("nccl.ras.stuck", Severity::High),
        Told::Moves => ("nccl.ras.stuck.end", Severity::Low),
    };
    let one = |(rank, known): &(u32, &Known)| {
        let Known { state, place, behind, .. } = known;
        let what = match (told, state) {
            (Told::Lost, State::Failed(error)) => format!("has failed: {}", result(*error)),
            (Told::Lost, state) => format!("is {}", state.as_str()),
            (Told::Stuck, _) => format!("has called {behind} collectives fewer than another, and none for a minute"),
            (Told::Moves, _) => "goes on, or ends".to_owned(),
        };
        format!("rank {rank} ({place}) {what}")
    };
    let mut named: Vec<String> = ranks.iter().take(MOST_NAMED).map(one).collect();
    if ranks.len() > MOST_NAMED {
        named.push(format!("{} more", ranks.len() - MOST_NAMED));
    }
    let Asked { pid, name, .. } = asked;
    let text = format!("RAS of NCCL, asked by way of {name} ({pid}), of communicator {comm}: {}", named.join("; "));
    let process = Some(FoundProcess { pid: *pid, name: name.clone() });
    let evidence = vec![("ranks".to_owned(), float(ranks.len() as u64))];
    Finding { process, evidence, ..Finding::new(kind, severity, comm.to_owned(), text) }
}

/// Who was stuck is not there any more, by communicator.
fn no_more(ranks: impl Iterator<Item = (Rank, Progress)>) -> impl Iterator<Item = Finding> {
    let mut stuck: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for ((_, comm, rank), _) in ranks.filter(|(_, progress)| progress.is_stuck) {
        stuck.entry(comm).or_default().insert(rank);
    }
    stuck.into_iter().map(|(comm, ranks)| {
        let mut named: Vec<String> = ranks.iter().take(MOST_NAMED).map(|rank| format!("rank {rank}")).collect();
        if ranks.len() > MOST_NAMED {
            named.push(format!("{} more", ranks.len() - MOST_NAMED));
        }
        let named = named.join(" and ");
        let text = format!("RAS of NCCL does not tell of {named} of communicator {comm} any more");
        let evidence = vec![("ranks".to_owned(), float(ranks.len() as u64))];
        Finding { evidence, ..Finding::new("nccl.ras.stuck.end", Severity::Low, comm, text) }
    })
}

/// One process of each network namespace, by its inode.
fn networks(processes: impl Iterator<Item = u32>, proc: &Path) -> BTreeMap<u64, u32> {
    let mut found: BTreeMap<u64, u32> = BTreeMap::new();
    for pid in processes {
        let inode = fs::metadata(proc.join(format!("{pid}/ns/net"))).map(|metadata| metadata.ino());
        if let Ok(inode) = inode {
            // The oldest, most likely.
            let first = found.entry(inode).or_insert(pid);
            *first = pid.min(*first);
        }
    }
    found
}

fn asked((inode, pid): (u64, u32), proc: &Path) -> Asked {
    let network = Network { path: proc.join(format!("{pid}/ns/net")), inode: Some(inode) };
    Asked { pid, name: process_name(proc, pid), network }
}

/// One after the other, so that one answer is held at a time, by a thread that ends with the last: it has been elsewhere.
fn round(networks: Vec<Asked>) -> Receiver<Answer> {
    let (answers, receiver) = channel();
    let ask_all = move || {
        for asked in networks {
            let answer = ask_one(&asked.network);
            if answers.send((asked, answer)).is_err() {
                return;
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("ras".to_owned()).spawn(ask_all) {
        tracing::warn!(%error, "NCCL's RAS is not asked");
    }
    receiver
}

fn ask_one(network: &Network) -> Result<Job, RasError> {
    network.enter()?;
    let bytes = ask(SocketAddr::from(([127, 0, 0, 1], PORT)))?;
    Ok(job(&read(&bytes)?))
}
