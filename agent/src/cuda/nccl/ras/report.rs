//! What RAS knows of a job's communicators (`rasDumpCommsToJSON` in NCCL's `src/ras/client_support.cc`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// Communicators of one report, and ranks of one communicator, that are looked at.
const MOST_COMMUNICATORS: usize = 256;
const MOST_RANKS: usize = 4096;

/// Functions of one rank; NCCL has a dozen.
const MOST_FUNCTIONS: usize = 32;

/// Characters of what is text.
const MOST_TEXT: usize = 64;

/// Fields that later versions add are passed over; those that may be missing are what they are worth then.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub communicators: Vec<Communicator>,
}

#[derive(Debug, Deserialize)]
pub struct Communicator {
    /// `commHash`, as `0x%lx`.
    pub hash: String,
    #[serde(default)]
    pub ranks: Vec<Rank>,
    #[serde(default)]
    pub missing_ranks: Vec<MissingRank>,
}

/// A rank that answered.
#[derive(Debug, Deserialize)]
pub struct Rank {
    pub rank: u32,
    #[serde(default)]
    pub host: String,
    /// In its own namespace; -1 where it is not known.
    #[serde(default)]
    pub pid: i64,
    #[serde(default)]
    pub status: Status,
    /// Collectives that it called, by function: of a graph, when it was recorded.
    #[serde(default)]
    pub collective_counts: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `ncclResult_t`.
    pub async_error: u32,
    pub finalize_called: bool,
    pub destroy_flag: bool,
    pub abort_flag: bool,
}

/// A rank that did not.
#[derive(Debug, Deserialize)]
pub struct MissingRank {
    pub rank: u32,
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub pid: i64,
    #[serde(default)]
    pub status: MissingStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MissingStatus {
    pub unresponsive: bool,
    pub considered_dead: bool,
}

/// How a rank is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Running,
    /// It has ended the communicator, or is about to; or has not begun it.
    Ending,
    /// NCCL says that something went wrong there (`ncclResult_t`).
    Failed(u32),
    Unresponsive,
    Dead,
}

impl State {
    pub const NAMES: [&str; 5] = ["running", "ending", "failed", "unresponsive", "dead"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => Self::NAMES[0],
            Self::Ending => Self::NAMES[1],
            Self::Failed(_) => Self::NAMES[2],
            Self::Unresponsive => Self::NAMES[3],
            Self::Dead => Self::NAMES[4],
        }
    }
}

/// What is said of one rank, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub state: State,
    /// Process and host, as RAS names them.
    pub place: String,
    /// Collectives that it has called.
    pub called: u64,
    /// How many the one that is furthest has called more, of the function of which that is most.
    pub behind: u64,
}

/// By communicator and rank.
pub type Job = BTreeMap<String, BTreeMap<u32, Known>>;

/// Whatever comes before it is passed over.
pub fn read(bytes: &[u8]) -> Result<Report, serde_json::Error> {
    let begin = memchr::memchr(b'{', bytes).unwrap_or(0);
    serde_json::from_slice(&bytes[begin..])
}

pub fn job(report: &Report) -> Job {
    let communicators = report.communicators.iter().take(MOST_COMMUNICATORS);
    communicators.map(|communicator| (text(&communicator.hash), ranks(communicator))).collect()
}

fn ranks(communicator: &Communicator) -> BTreeMap<u32, Known> {
    let mut furthest: BTreeMap<&str, u64> = BTreeMap::new();
    for (function, count) in communicator.ranks.iter().take(MOST_RANKS).flat_map(counts) {
        let most = furthest.entry(function).or_default();
        *most = (*most).max(*count);
    }
    let behind = |rank: &Rank| {
        let of = |function: &str| rank.collective_counts.get(function).copied().unwrap_or_default();
        furthest
            .iter()
            .take(MOST_FUNCTIONS)
            .map(|(function, most)| most.saturating_sub(of(function)))
            .max()
            .unwrap_or_default()
    };
    let answered = communicator.ranks.iter().take(MOST_RANKS).map(|rank| {
        let state = match rank.status {
            Status { async_error, .. } if async_error != 0 && async_error != IN_PROGRESS => State::Failed(async_error),
            Status { finalize_called: true, .. }
            | Status { destroy_flag: true, .. }
            | Status { abort_flag: true, .. } => State::Ending,
            _ => State::Running,
        };
        let called = counts(rank).fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        (rank.rank, Known { state, place: place(rank.pid, &rank.host), called, behind: behind(rank) })
    });
    let missing = communicator.missing_ranks.iter().take(MOST_RANKS).map(|rank| {
        let state = match rank.status {
            MissingStatus { considered_dead: true, .. } => State::Dead,
            MissingStatus { unresponsive: true, .. } => State::Unresponsive,
            // Its process has answered, and has no such communicator.
            _ => State::Ending,
        };
        (rank.rank, Known { state, place: place(rank.pid, &rank.host), called: 0, behind: 0 })
    });
    answered.chain(missing).collect()
}

/// Of what all ranks call as often.
fn counts(rank: &Rank) -> impl Iterator<Item = (&String, &u64)> {
    rank.collective_counts.iter().filter(|(function, _)| is_of_all(function)).take(MOST_FUNCTIONS)
}

/// Whether all ranks call it as often.
fn is_of_all(function: &str) -> bool {
    !["Send", "Recv", "Put", "Signal", "Wait"].iter().any(|one| function.starts_with(one))
}

/// `ncclInProgress`.
const IN_PROGRESS: u32 = 7;

fn place(pid: i64, host: &str) -> String {
    let host = if host.is_empty() { "an unknown host".to_owned() } else { text(host) };
    if pid < 0 { host } else { format!("process {pid} of {host}") }
}

/// Whoever answers may say anything.
fn text(given: &str) -> String {
    given.chars().filter(|char| !char.is_control()).take(MOST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As NCCL 2.28 writes it: six ranks, of which one is behind, one has failed, one is dead, one does not answer, and one has ended.
    const REPORT: &str = include_str!("testdata/status.json");

    #[test]
    fn who_is_behind_failed_or_missing_is_read_from_a_report() {
        let job = job(&read(REPORT.as_bytes()).unwrap());
        let words = job.iter().flat_map(|(comm, ranks)| {
            ranks.iter().map(move |(rank, known)| {
                let Known { state, place, called, behind } = known;
                format!("{comm} {rank} {} ({place}) {called} called, {behind} behind", state.as_str())
            })
        });
        assert_eq!(
            words.collect::<Vec<_>>(),
            [
                "0x6afe1cc17717e1f4 0 running (process 77 of 10.0.0.1) 104 called, 0 behind",
                "0x6afe1cc17717e1f4 1 running (process 78 of 10.0.0.1) 103 called, 1 behind",
                "0x6afe1cc17717e1f4 2 failed (process 77 of 10.0.0.2) 104 called, 0 behind",
                "0x6afe1cc17717e1f4 3 dead (process 78 of 10.0.0.2) 0 called, 0 behind",
                "0x6afe1cc17717e1f4 4 unresponsive (10.0.0.3) 0 called, 0 behind",
                "0x6afe1cc17717e1f4 5 ending (process 79 of 10.0.0.3) 0 called, 0 behind",
            ]
        );
    }

    #[test]
    fn what_is_no_report_is_refused_and_what_is_missing_is_nothing() {
        for wrong in ["", "no", "{", "[]", "{}", r#"{"communicators": {}}"#, r#"{"communicators": [{}]}"#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(job(&read(br#"hello {"communicators": []}"#).unwrap()).is_empty());
        let few = br#"{"communicators": [{"hash": "0x1\u001b[31m", "ranks": [{"rank": 0}], "missing_ranks": [{"rank": 1}]}]}"#;
        let job = job(&read(few).unwrap());
        let states: Vec<_> = job["0x1[31m"].values().map(|known| known.state).collect();
        assert_eq!(states, [State::Running, State::Ending]);
    }

    proptest! {
        #[test]
        fn no_report_is_too_much(bytes in prop::collection::vec(any::<u8>(), 0..60), at in 0..2000_usize) {
            let mut whole = REPORT.as_bytes().to_vec();
            let at = at.min(whole.len());
            whole.splice(at..(at + bytes.len()).min(REPORT.len()), bytes);
            let _ = read(&whole).map(|report| job(&report));
        }
    }
}
