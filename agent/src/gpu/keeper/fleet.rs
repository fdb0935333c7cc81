//! What is known of the GPUs, from the worker's frames and from its silence. Pure: time comes with the calls.
//!
//! A GPU's numbers are those of its newest light and its newest full round. They are never told again once they are older
//! than [`SILENT_AFTER_NS`]: then the GPU is down, with its age, and its series are absent with the reason.

use std::collections::BTreeMap;

use plumbline_policy::Severity;
use serde::{Deserialize, Serialize};

use crate::{
    event::Finding,
    gpu::{
        identity::Identity,
        question::{Refusal, Round},
        wire::{Answers, Reading},
        xid::PciAddress,
    },
    series::{
        Point, Sample,
        gpu::identity::{REFUSED_QUESTIONS, ROUND_SECONDS, SAMPLE_AGE_SECONDS, UP},
    },
};

/// What samples of the GPUs as a whole are called; each GPU's own are `gpu:UUID`.
pub const SOURCE: &str = "gpu";

/// How long a GPU may take to answer before its numbers are too old to be told.
pub const SILENT_AFTER_NS: u64 = 5_000_000_000;

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
    light: Vec<Point>,
    full: Vec<Point>,
    refusals: Vec<Refusal>,
    /// Whether the end of its numbers was told.
    is_absence_told: bool,
}

/// Every GPU that was ever listed, by UUID: one that falls silent is down, not forgotten.
#[derive(Debug, Default)]
pub struct Fleet {
    gpus: BTreeMap<String, Gpu>,
    /// Which GPU the present worker means by an index.
    by_index: BTreeMap<u32, String>,
    /// The driver when NVML was opened last, and how many GPUs it listed.
    driver: Option<String>,
    count: u32,
    /// GPUs that refuse to say who they are.
    nameless: BTreeMap<u32, String>,
    findings: Vec<Finding>,
}

/// One GPU for `plumbline gpu`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuView {
    pub identity: Identity,
    #[serde(flatten)]
    pub state: State,
    pub age_seconds: f64,
    pub series: usize,
    pub refusals: Vec<Refusal>,
}

impl Fleet {
    /// NVML was opened.
    pub fn open(&mut self, driver: &str, count: u32) {
        if let Some(before) = self.driver.replace(driver.to_owned()).filter(|before| before != driver) {
            let text = format!("the driver is {driver} now, and was {before}");
            self.find("gpu.driver", Severity::Low, String::new(), text);
        }
        self.count = count;
        self.by_index.clear();
        self.nameless.clear();
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
            light: Vec::new(),
            full: Vec::new(),
            refusals: Vec::new(),
            is_absence_told: false,
        };
        let gpu = self.gpus.entry(identity.uuid.clone()).or_insert_with(fresh);
        // A GPU that is down stays so until it answers.
        if matches!(gpu.state, State::NotAsked(_)) {
            (gpu.state, gpu.seen_boot_ns) = (State::Listed, now_boot_ns);
        }
        gpu.identity = identity;
    }

    /// A GPU refuses to say who it is. Why there is nobody to ask, when all of them do.
    pub fn nameless(&mut self, index: u32, reason: &str) -> Option<String> {
        tracing::warn!(index, reason, "a gpu does not say who it is");
        self.nameless.insert(index, reason.to_owned());
        let all = self.nameless.len() == usize::try_from(self.count).unwrap_or(usize::MAX);
        all.then(|| format!("none of the driver's {} GPUs says who it is: {reason}", self.count))
    }

    /// GPUs that the driver lists, and that nobody knows yet.
    pub fn unnamed(&self) -> u32 {
        self.count.saturating_sub(u32::try_from(self.by_index.len()).unwrap_or(u32::MAX))
    }

    /// The GPU's numbers, with what it answers now.
    pub fn reading(&mut self, reading: Reading) -> Option<Sample> {
        let gpu = self.gpus.get_mut(self.by_index.get(&reading.index)?)?;
        let was_down = matches!(gpu.state, State::Silent | State::Lost);
        (gpu.state, gpu.is_absence_told) = (State::Up, false);
        gpu.seen_boot_ns = reading.taken_boot_ns;
        gpu.light = points(&gpu.identity, Round::Light, &reading.light);
        if let Some(full) = &reading.full {
            gpu.full = points(&gpu.identity, Round::Full, full);
        }
        if let Some(refusals) = reading.refusals {
            gpu.refusals = refusals;
        }
        let sample = gpu.sample(reading.taken_boot_ns, Ok(gpu.light.iter().chain(&gpu.full).cloned().collect()));
        let (uuid, index) = (gpu.identity.uuid.clone(), gpu.identity.index);
        if was_down {
            tracing::info!(gpu = uuid, index, "a gpu answers again");
        }
        Some(sample)
    }

    /// The driver says that the GPU is lost.
    pub fn lost(&mut self, index: u32, question: &str) {
        let Some(gpu) = self.by_index.get(&index).and_then(|uuid| self.gpus.get_mut(uuid)) else { return };
        if gpu.state == State::Lost {
            return;
        }
        gpu.state = State::Lost;
        let uuid = gpu.identity.uuid.clone();
        let text = format!("{uuid} does not answer any more: the driver says that it is lost ({question})");
        self.find("gpu.lost", Severity::Critical, uuid, text);
    }

    /// Nobody asks the GPUs: there is no driver, or they were released.
    pub fn not_asked(&mut self, reason: &str, now_boot_ns: u64) {
        for gpu in self.gpus.values_mut() {
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
    pub fn tick(&mut self, now_boot_ns: u64, own: Vec<Point>) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut silent = Vec::new();
        let mut told = own;
        for gpu in self.gpus.values_mut() {
            let age_ns = now_boot_ns.saturating_sub(gpu.seen_boot_ns);
            if matches!(gpu.state, State::Up | State::Listed) && age_ns > SILENT_AFTER_NS {
                gpu.state = State::Silent;
                silent.push(gpu.identity.uuid.clone());
            }
            if let Some(reason) = gpu.absence(age_ns).filter(|_| !gpu.is_absence_told) {
                gpu.is_absence_told = true;
                (gpu.light, gpu.full) = (Vec::new(), Vec::new());
                samples.push(gpu.sample(now_boot_ns, Err(reason)));
            }
            told.extend(gpu.standing(age_ns));
        }
        for uuid in silent {
            let text = format!("{uuid} has not answered for {} s", SILENT_AFTER_NS / 1_000_000_000);
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

    /// Some GPU that the present worker asks answers. If none does, only another worker can tell more.
    pub fn is_answering(&self) -> bool {
        let mut asked = self.by_index.values().filter_map(|uuid| self.gpus.get(uuid));
        asked.any(|gpu| matches!(gpu.state, State::Up | State::Listed))
    }

    /// All GPUs that are asked have told everything once.
    pub fn is_complete(&self) -> bool {
        let is_known = self.unnamed() == u32::try_from(self.nameless.len()).unwrap_or(u32::MAX);
        !self.gpus.is_empty()
            && is_known
            && self.gpus.values().all(|gpu| !gpu.full.is_empty() || gpu.state != State::Listed)
    }

    pub fn view(&self, now_boot_ns: u64) -> Vec<GpuView> {
        let mut views: Vec<GpuView> = self
            .gpus
            .values()
            .map(|gpu| GpuView {
                identity: gpu.identity.clone(),
                state: gpu.state.clone(),
                age_seconds: seconds(now_boot_ns.saturating_sub(gpu.seen_boot_ns)),
                series: gpu.light.len() + gpu.full.len(),
                refusals: gpu.refusals.clone(),
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
        self.findings.push(Finding { kind, severity, entity, text, evidence: Vec::new(), process: None });
    }
}

impl Gpu {
    fn sample(&self, taken_boot_ns: u64, points: Result<Vec<Point>, String>) -> Sample {
        Sample { source: format!("{SOURCE}:{}", self.identity.uuid), taken_boot_ns, points }
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

fn points(identity: &Identity, round: Round, answers: &Answers) -> Vec<Point> {
    let name = match round {
        Round::Light => "light",
        Round::Full => "full",
    };
    let [uuid, gpu, simulated] = identity.labels();
    let took = Point::new(&ROUND_SECONDS, &[&uuid, &gpu, &simulated, name], seconds(answers.took_ns));
    answers.measures.iter().filter_map(|measure| identity.point(measure)).chain([took]).collect()
}

#[expect(clippy::cast_precision_loss, reason = "an age needs no nanoseconds")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests;
