//! What is known of the GPUs, from the worker's frames and from its silence. Pure: time comes with the calls.
//!
//! A GPU's numbers are those of its newest light and its newest full round, each a sample of its own. Once the newest is older
//! than the patience, while a worker asks, the GPU is down, with its age, and the series of both are absent with the reason.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plumbline_policy::Severity;
use serde::{Deserialize, Serialize};

use super::dcgm;
use crate::{
    event::Finding,
    gpu::{
        held::Held,
        identity::Identity,
        question::{Measure, Refusal, Round},
        wire::{Answers, Reading},
        xid::PciAddress,
    },
    series::{
        Point, Sample, Series, Value,
        gpu::{
            identity::{REFUSED_QUESTIONS, ROUND_SECONDS, SAMPLE_AGE_SECONDS, UP},
            mig::MIG_INFO,
        },
    },
};

/// What samples of the GPUs as a whole are called; each GPU's own are `gpu:UUID:light` and `gpu:UUID:full`.
pub const SOURCE: &str = "gpu";

/// How long a GPU may take to answer before its numbers are too old to be told; or three rounds, where those are longer.
const SILENT_AFTER_NS: u64 = 5_000_000_000;

/// GPUs that are remembered: MIG and replacements included, more than a node ever has.
const MOST_GPUS: usize = 1024;

/// How a GPU fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum State {
    /// It was listed, and its first answers are awaited.
    Listed,
    Up,
    /// The question that it was asked has not been answered for so long.
    Silent,
    /// The driver says so.
    Lost,
    /// Nobody asks it, and why.
    NotAsked(String),
}

#[derive(Debug)]
struct Gpu {
    identity: Identity,
    state: State,
    /// Since when the state holds, or the newest answer's questions were asked.
    seen_boot_ns: u64,
    /// What the newest light and full round told, without the numbers: the next ones mostly tell the same.
    told: [Vec<Told>; 2],
    dcgm: dcgm::Labels,
    /// Instances of it are told, by names of dcgm-exporter instead of its own.
    is_divided: bool,
    refusals: Arc<[Refusal]>,
    /// Whether the end of its numbers was told.
    is_absence_told: bool,
}

/// Every GPU that was ever listed, by UUID: one that falls silent is down, not forgotten.
#[derive(Debug, Default)]
pub struct Fleet {
    /// The host's name, where the numbers are also told by the names of dcgm-exporter.
    dcgm_host: Option<String>,
    gpus: BTreeMap<String, Gpu>,
    /// Which container has which.
    held: Arc<Held>,
    /// Which GPU the present worker means by an index.
    by_index: BTreeMap<u32, String>,
    /// The driver when NVML was opened last, and how many GPUs it listed.
    driver: Option<String>,
    count: u32,
    /// Since when a worker has NVML open; silence before that is ours, and not a GPU's.
    open_since_boot_ns: Option<u64>,
    /// Between two rounds, as configured.
    light_ms: u64,
    /// GPUs that refuse to say who they are.
    nameless: BTreeMap<u32, String>,
    /// Those of which a finding has told.
    told_nameless: BTreeSet<u32>,
    findings: Vec<Finding>,
    /// A GPU answers that did not before, which [`Fleet::tick`] has not told yet.
    has_news: bool,
}

/// One GPU for `plumbline gpu`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuView {
    pub identity: Identity,
    #[serde(flatten)]
    pub state: State,
    pub age_seconds: f64,
    pub series: usize,
    /// Which containers have it, or an instance of it, and who says so.
    #[serde(default)]
    pub holders: Vec<String>,
    pub refusals: Arc<[Refusal]>,
}

impl Fleet {
    /// With the host's name, it also tells its numbers by the names of dcgm-exporter.
    pub fn new(dcgm_host: Option<String>, light_ms: u64) -> Self {
        Self { dcgm_host, light_ms, ..Self::default() }
    }

    /// NVML was opened.
    pub fn open(&mut self, driver: &str, count: u32, now_boot_ns: u64) {
        if let Some(before) = self.driver.replace(driver.to_owned()).filter(|before| before != driver) {
            let text = format!("the driver is {driver} now, and was {before}");
            self.find("gpu.driver", Severity::Low, String::new(), text);
        }
        self.count = count;
        self.by_index.clear();
        self.nameless.clear();
        self.open_since_boot_ns = Some(now_boot_ns);
        // Those that are not listed again have fallen silent.
        for gpu in self.gpus.values_mut().filter(|gpu| matches!(gpu.state, State::NotAsked(_))) {
            (gpu.state, gpu.seen_boot_ns) = (State::Listed, now_boot_ns);
        }
    }

    /// The worker is gone: nobody is asked until the next one has NVML open.
    pub fn closed(&mut self) {
        self.open_since_boot_ns = None;
        self.by_index.clear();
    }

    /// Nobody listened for a while: silence begins now at the earliest.
    pub fn pardon(&mut self, now_boot_ns: u64) {
        if let Some(since) = &mut self.open_since_boot_ns {
            *since = now_boot_ns;
        }
    }

    pub const fn is_open(&self) -> bool {
        self.open_since_boot_ns.is_some()
    }

    /// A GPU has said who it is.
    pub fn listed(&mut self, identity: Identity, now_boot_ns: u64) {
        if self.gpus.len() >= MOST_GPUS && !self.gpus.contains_key(&identity.uuid) {
            return;
        }
        self.by_index.insert(identity.index, identity.uuid.clone());
        let fresh = || Gpu {
            identity: identity.clone(),
            state: State::Listed,
            seen_boot_ns: now_boot_ns,
            told: [Vec::new(), Vec::new()],
            dcgm: dcgm::Labels::default(),
            is_divided: false,
            refusals: Arc::default(),
            is_absence_told: false,
        };
        let gpu = self.gpus.entry(identity.uuid.clone()).or_insert_with(fresh);
        // A GPU that is down stays so until it answers.
        if gpu.identity != identity {
            // Other labels than those that were made for the former.
            (gpu.told, gpu.dcgm) = ([Vec::new(), Vec::new()], dcgm::Labels::default());
            gpu.identity = identity;
        }
    }

    /// A GPU refuses to say who it is. Why there is nobody to ask, when all of them do.
    pub fn nameless(&mut self, index: u32, reason: &str) -> Option<String> {
        tracing::warn!(index, reason, "a gpu does not say who it is");
        self.nameless.insert(index, reason.to_owned());
        let is_known = self.gpus.values().any(|gpu| gpu.identity.index == index);
        if !is_known && self.told_nameless.insert(index) {
            let text = format!("GPU {index}, which the driver lists, does not say who it is: {reason}");
            self.find("gpu.lost", Severity::Critical, format!("index {index}"), text);
        }
        let all = self.nameless.len() == usize::try_from(self.count).unwrap_or(usize::MAX);
        all.then(|| format!("none of the driver's {} GPUs says who it is: {reason}", self.count))
    }

    /// Other containers have the GPUs than before.
    pub fn held_by(&mut self, held: Arc<Held>) {
        self.held = held;
        self.gpus.values_mut().for_each(|gpu| gpu.dcgm = dcgm::Labels::default());
    }

    /// GPUs that the driver lists, and that nobody knows yet.
    pub fn unnamed(&self) -> u32 {
        self.count.saturating_sub(u32::try_from(self.by_index.len()).unwrap_or(u32::MAX))
    }

    /// What the GPU answered: a sample of the light round, and of the full one if that was its turn.
    pub fn reading(&mut self, reading: Reading) -> Vec<Sample> {
        let known = self.by_index.get(&reading.index).and_then(|uuid| self.gpus.get_mut(uuid));
        let Some(gpu) = known else { return Vec::new() };
        if matches!(gpu.state, State::Silent | State::Lost) {
            tracing::info!(gpu = gpu.identity.uuid, index = gpu.identity.index, "a gpu answers again");
        }
        self.has_news |= gpu.state != State::Up;
        (gpu.state, gpu.is_absence_told) = (State::Up, false);
        gpu.seen_boot_ns = reading.taken_boot_ns;
        if let Some(refusals) = reading.refusals {
            gpu.refusals = refusals.into();
        }
        let (dcgm_host, held) = (self.dcgm_host.as_deref(), &self.held);
        let answers = [(Round::Light, Some(reading.light)), (Round::Full, reading.full)];
        let answered = answers.into_iter().filter_map(|(round, answers)| Some((round, answers?)));
        answered
            .map(|(round, answers)| {
                let mut points = gpu.points(round, answers);
                if let Some(host) = dcgm_host {
                    if round == Round::Full {
                        gpu.is_divided = points.iter().any(|point| *point.series == MIG_INFO);
                    }
                    points.extend(gpu.dcgm.aliases(&points, &gpu.identity, host, held, gpu.is_divided));
                }
                gpu.sample(round, reading.taken_boot_ns, Ok(points))
            })
            .collect()
    }

    /// Who the GPUs are and how they fare is to be told at once, and not in a second: numbers without it are of nobody.
    pub const fn has_news(&self) -> bool {
        self.has_news
    }

    /// The driver says that the GPU is lost.
    pub fn lost(&mut self, index: u32, question: &str) {
        let Some(gpu) = self.by_index.get(&index).and_then(|uuid| self.gpus.get_mut(uuid)) else { return };
        if gpu.state == State::Lost {
            return;
        }
        (gpu.state, gpu.is_absence_told) = (State::Lost, false);
        let uuid = gpu.identity.uuid.clone();
        let text = format!("{uuid} does not answer any more: the driver says that it is lost ({question})");
        self.find("gpu.lost", Severity::Critical, uuid, text);
    }

    /// Nobody asks the GPUs: there is no driver. What is lost stays lost until it answers.
    pub fn not_asked(&mut self, reason: &str, now_boot_ns: u64) {
        self.stand_down(reason, now_boot_ns, |state| !matches!(state, State::Lost | State::Silent));
    }

    /// Nobody asks the GPUs, because somebody wants so.
    pub fn released(&mut self, reason: &str, now_boot_ns: u64) {
        self.stand_down(reason, now_boot_ns, |_| true);
    }

    fn stand_down(&mut self, reason: &str, now_boot_ns: u64, which: impl Fn(&State) -> bool) {
        for gpu in self.gpus.values_mut().filter(|gpu| which(&gpu.state)) {
            if gpu.state != State::NotAsked(reason.to_owned()) {
                (gpu.state, gpu.is_absence_told) = (State::NotAsked(reason.to_owned()), false);
                gpu.seen_boot_ns = gpu.seen_boot_ns.min(now_boot_ns);
            }
        }
    }

    /// The GPU that the present worker means by the index.
    pub fn by_index(&self, index: u32) -> Option<&Identity> {
        self.gpus.get(self.by_index.get(&index)?).map(|gpu| &gpu.identity)
    }

    /// The GPU at this place on the bus.
    pub fn at(&self, pci: PciAddress) -> Option<&Identity> {
        let identities = self.gpus.values().map(|gpu| &gpu.identity);
        identities.into_iter().find(|identity| PciAddress::parse(&identity.pci_bus_id) == Some(pci))
    }

    /// Lets time pass: the sample of all GPUs, and of each that has nothing to tell any more.
    pub fn tick(&mut self, now_boot_ns: u64) -> Vec<Sample> {
        self.has_news = false;
        let mut samples = Vec::new();
        let mut silent = Vec::new();
        let mut told = Vec::new();
        let patience_ns = SILENT_AFTER_NS.max(3 * self.light_ms * 1_000_000);
        for gpu in self.gpus.values_mut() {
            let age_ns = now_boot_ns.saturating_sub(gpu.seen_boot_ns);
            let is_expected = matches!(gpu.state, State::Up | State::Listed);
            match self.open_since_boot_ns {
                Some(since) if is_expected && now_boot_ns.saturating_sub(since.max(gpu.seen_boot_ns)) > patience_ns => {
                    (gpu.state, gpu.is_absence_told) = (State::Silent, false);
                    silent.push(gpu.identity.uuid.clone());
                }
                // No fault of the GPU's; but its numbers are too old all the same.
                None if is_expected && age_ns > patience_ns => {
                    let reason = "the GPU worker is not there".to_owned();
                    (gpu.state, gpu.is_absence_told) = (State::NotAsked(reason), false);
                }
                _ => {}
            }
            if let Some(reason) = gpu.absence(age_ns).filter(|_| !gpu.is_absence_told) {
                gpu.is_absence_told = true;
                gpu.told = [Vec::new(), Vec::new()];
                samples.push(gpu.sample(Round::Light, now_boot_ns, Err(reason.clone())));
                samples.push(gpu.sample(Round::Full, now_boot_ns, Err(reason)));
            }
            told.extend(gpu.standing(age_ns));
        }
        for uuid in silent {
            let text = format!("{uuid} has not answered for {} s", patience_ns / 1_000_000_000);
            self.find("gpu.silent", Severity::High, uuid, text);
        }
        samples.push(Sample { source: SOURCE.to_owned(), taken_boot_ns: now_boot_ns, points: Ok(told) });
        samples
    }

    /// What began since the last call.
    pub fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    pub fn is_empty(&self) -> bool {
        self.gpus.is_empty()
    }

    /// None of the GPUs that the present worker asks answers, and one of them does not even say that it is lost: only another
    /// worker can tell more.
    pub fn is_stuck(&self) -> bool {
        let asked: Vec<&State> =
            self.by_index.values().filter_map(|uuid| self.gpus.get(uuid)).map(|gpu| &gpu.state).collect();
        let is_down = |state: &&State| matches!(state, State::Silent | State::Lost);
        asked.iter().all(is_down) && (asked.is_empty() || asked.contains(&&State::Silent))
    }

    /// A GPU is lost, or refuses to say who it is.
    pub fn has_lost(&self) -> bool {
        !self.nameless.is_empty() || self.gpus.values().any(|gpu| gpu.state == State::Lost)
    }

    /// All GPUs that are asked have told everything once.
    pub fn is_complete(&self) -> bool {
        let is_known = self.unnamed() == u32::try_from(self.nameless.len()).unwrap_or(u32::MAX);
        !self.gpus.is_empty()
            && is_known
            && self.gpus.values().all(|gpu| !gpu.told[1].is_empty() || gpu.state != State::Listed)
    }

    pub fn view(&self, now_boot_ns: u64) -> Vec<GpuView> {
        let mut views: Vec<GpuView> = self
            .gpus
            .values()
            .map(|gpu| GpuView {
                identity: gpu.identity.clone(),
                state: gpu.state.clone(),
                age_seconds: seconds(now_boot_ns.saturating_sub(gpu.seen_boot_ns)),
                series: gpu.told.iter().map(Vec::len).sum(),
                holders: self.held.of(&gpu.identity.uuid).map(|held| held.to_string()).collect(),
                refusals: Arc::clone(&gpu.refusals),
            })
            .collect();
        views.sort_by_key(|view| view.identity.index);
        views
    }

    /// Something began.
    pub fn find(&mut self, kind: &'static str, severity: Severity, entity: String, text: String) {
        match severity {
            Severity::Low => tracing::info!(kind, text, "gpu"),
            _ => tracing::error!(kind, text, "gpu"),
        }
        self.findings.push(Finding::new(kind, severity, entity, text));
    }
}

/// A number's series, its own labels and all its labels.
#[derive(Debug)]
struct Told {
    series: &'static Series,
    own: Vec<Cow<'static, str>>,
    all: Arc<[String]>,
}

impl Gpu {
    /// The answers with all their labels, which are made anew only where the round tells something else than the one before.
    fn points(&mut self, round: Round, answers: Answers) -> Vec<Point> {
        let took = Measure {
            series: &ROUND_SECONDS,
            labels: vec![Cow::Borrowed(round.as_str())],
            number: seconds(answers.took_ns),
        };
        let mut before = std::mem::take(&mut self.told[usize::from(round == Round::Full)]).into_iter();
        let mut told = Vec::with_capacity(answers.measures.len() + 1);
        let mut points = Vec::with_capacity(answers.measures.len() + 1);
        for measure in answers.measures.into_iter().chain([took]) {
            let same = before.next().filter(|told| *told.series == *measure.series && told.own == measure.labels);
            let all = match same {
                Some(same) => same.all,
                None => match self.identity.labels_of(&measure) {
                    Some(labels) => labels,
                    None => continue,
                },
            };
            points.push(Point {
                series: measure.series,
                labels: Arc::clone(&all),
                value: Value::Number(measure.number),
            });
            told.push(Told { series: measure.series, own: measure.labels, all });
        }
        self.told[usize::from(round == Round::Full)] = told;
        points
    }

    fn sample(&self, round: Round, taken_boot_ns: u64, points: Result<Vec<Point>, String>) -> Sample {
        Sample { source: format!("{SOURCE}:{}:{}", self.identity.uuid, round.as_str()), taken_boot_ns, points }
    }

    /// Why there are no numbers.
    fn absence(&self, age_ns: u64) -> Option<String> {
        match &self.state {
            State::Listed | State::Up => None,
            State::Silent => Some(format!("absent (has not answered for {:.0} s)", seconds(age_ns))),
            State::Lost => Some("absent (the driver says that the GPU is lost)".to_owned()),
            State::NotAsked(reason) => Some(format!("absent ({reason})")),
        }
    }

    /// What is told of it whether it answers or not.
    fn standing(&self, age_ns: u64) -> Vec<Point> {
        let identity = &self.identity;
        let mut points = vec![identity.info()];
        // Of a GPU that nobody asks nobody knows whether it is up.
        match self.state {
            State::NotAsked(_) | State::Listed => return points,
            State::Up => points.push(identity.number(&UP, 1.0)),
            State::Silent | State::Lost => points.push(identity.number(&UP, 0.0)),
        }
        points.push(identity.number(&SAMPLE_AGE_SECONDS, seconds(age_ns)));
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        points.push(identity.number(&REFUSED_QUESTIONS, self.refusals.len() as f64));
        points
    }
}

#[expect(clippy::cast_precision_loss, reason = "an age needs no nanoseconds")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests;
