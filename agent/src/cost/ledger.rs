//! The ledger: time becomes money as it passes, tokens and joules are counted as samples tell of them.
//!
//! Spend runs on the clock alone, so that idle time and an engine's outage cost what they cost. A price that is not
//! known makes the time unpriced, and every figure whose window holds unpriced time is absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cumulative::{Counter, Cumulative};
use super::prices::PriceBook;
use crate::gpu;
use crate::series::{Point, Sample, cost, engine};

/// The named windows, the widest bounded one being [`WINDOW_NS`].
const WINDOWS: [(&str, Option<u64>); 2] = [("5m", Some(WINDOW_NS)), ("start", None)];
const WINDOW_NS: u64 = 300 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

/// Time between two marks, which is how much longer than its name a window may be.
const MARK_NS: u64 = 5 * SECOND_NS;

/// A node is priced as one without GPU only after the GPU worker said so, or has been silent for so long.
const PATIENCE_NS: u64 = 30 * SECOND_NS;

/// A model that no engine has spoken of for so long gives up its series; its tokens stay in the sums since start.
const RETIRE_NS: u64 = 3600 * SECOND_NS;

/// So many models are followed at a time. An engine that names more makes the cost per token absent.
const MAX_MODELS: usize = 1000;

const GPU_INFO: &str = "plumbline_gpu_info";
const GPU_ENERGY: &str = "plumbline_gpu_energy_joules_total";

/// What the node has spent and what came of it. All but what is skipped goes on over a restart of the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    #[serde(skip)]
    prices: Option<PriceBook>,
    /// Up to when time has been turned into money; `None` before the first sample or tick.
    accrued_boot_ns: Option<u64>,
    #[serde(skip)]
    began_boot_ns: u64,
    marked_boot_ns: u64,
    #[serde(skip)]
    has_gpu_worker_spoken: bool,
    /// Product name by UUID, as last reported; empty on a node without GPU.
    gpus: BTreeMap<String, String>,
    is_simulated: bool,
    basis: Option<Basis>,
    /// Since the ledger began, by basis.
    spent: BTreeMap<Basis, f64>,
    sums: Sums,
    energy_counters: BTreeMap<String, Counter>,
    /// By engine and model.
    #[serde(with = "pairs")]
    models: BTreeMap<(String, String), Model>,
    retired: Retired,
}

/// What has a price. When it changes, the windows begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Basis {
    Gpu,
    GpuSimulated,
    Node,
}

/// The node as a whole.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sums {
    elapsed_seconds: Cumulative,
    unpriced_seconds: Cumulative,
    spend: Cumulative,
    energy_joules: Cumulative,
    /// Readings of models beyond [`MAX_MODELS`].
    untracked: Cumulative,
}

/// The tokens of one model in one engine. `None`: the engine never said.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    seen_boot_ns: u64,
    generated: Option<Meter>,
    prompt: Option<Meter>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meter {
    counter: Counter,
    tokens: Cumulative,
}

/// Tokens since start of models that are no longer followed, by kind; `None` once one of them was unknown.
#[derive(Debug, Serialize, Deserialize)]
struct Retired([Option<f64>; 2]);

/// Which tokens share the cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Generated,
    All,
}

const KINDS: [TokenKind; 2] = [TokenKind::Generated, TokenKind::All];

impl Ledger {
    /// Without prices it still counts tokens and energy.
    pub fn new(prices: Option<PriceBook>) -> Self {
        Self {
            prices,
            accrued_boot_ns: None,
            began_boot_ns: 0,
            marked_boot_ns: 0,
            has_gpu_worker_spoken: false,
            gpus: BTreeMap::new(),
            is_simulated: false,
            basis: None,
            spent: BTreeMap::new(),
            sums: Sums::default(),
            energy_counters: BTreeMap::new(),
            models: BTreeMap::new(),
            retired: Retired([Some(0.0); 2]),
        }
    }

    pub const fn prices(&self) -> Option<&PriceBook> {
        self.prices.as_ref()
    }

    /// As a daemon that begins at `boot_ns` goes on with it. Who costs is heard from the GPU worker again before time becomes money, that
    /// of the pause included.
    pub(super) fn resumed(self, prices: Option<PriceBook>, is_same_boot: bool, boot_ns: u64) -> Self {
        let is_in_order = self.accrued_boot_ns.is_none_or(|accrued| accrued <= boot_ns);
        if is_same_boot && is_in_order {
            Self { prices, began_boot_ns: boot_ns, ..self }
        } else {
            Self { spent: self.spent, ..Self::new(prices) }
        }
    }

    /// The GPUs that were known are no part of the price any more: nobody asks for them.
    pub fn without_gpus(self) -> Self {
        Self { gpus: BTreeMap::new(), ..self }
    }

    /// Takes in a sample of the GPU worker or of an engine; others do not matter here. A failed reading changes
    /// nothing: the hardware costs on, and a counter's next reading covers the gap.
    pub fn observe(&mut self, sample: &Sample) {
        self.accrue(sample.taken_boot_ns);
        let points = sample.points.as_deref().unwrap_or_default();
        if sample.source.split(':').next() == Some(gpu::SOURCE) {
            self.has_gpu_worker_spoken |= sample.source == gpu::SOURCE;
            self.observe_gpus(points);
        } else if sample.source.starts_with("engine:") {
            self.observe_engine(sample.taken_boot_ns, points);
        }
    }

    /// Lets time pass. To be called every few seconds, and before [`Ledger::points`].
    pub fn tick(&mut self, boot_ns: u64) {
        self.accrue(boot_ns);
        if boot_ns.saturating_sub(self.marked_boot_ns) < MARK_NS {
            return;
        }
        self.marked_boot_ns = boot_ns;
        let Sums { elapsed_seconds, unpriced_seconds, spend, energy_joules, untracked } = &mut self.sums;
        let of_models = self.models.values_mut().flat_map(|model| [&mut model.generated, &mut model.prompt]);
        let of_models = of_models.flatten().map(|meter| &mut meter.tokens);
        for sum in [elapsed_seconds, unpriced_seconds, spend, energy_joules, untracked].into_iter().chain(of_models) {
            sum.mark(boot_ns, WINDOW_NS);
        }
        self.retire(boot_ns);
    }

    fn observe_gpus(&mut self, points: &[Point]) {
        let infos = points.iter().filter(|point| point.series.name == GPU_INFO);
        let gpus: BTreeMap<String, String> = infos
            .clone()
            .filter_map(|point| Some((label(point, "UUID")?.to_owned(), label(point, "name").unwrap_or("").to_owned())))
            .collect();
        // A GPU that a failing driver no longer lists is paid for all the same.
        if !gpus.is_empty() {
            self.is_simulated = infos.clone().any(|point| label(point, "simulated") == Some("true"));
            self.gpus = gpus;
        }
        for point in points.iter().filter(|point| point.series.name == GPU_ENERGY) {
            let (Some(gpu), Some(joules)) = (label(point, "UUID"), amount(point)) else { continue };
            let counter = self.energy_counters.entry(gpu.to_owned()).or_default();
            self.sums.energy_joules.add(counter.advance(joules));
        }
    }

    fn observe_engine(&mut self, taken_boot_ns: u64, points: &[Point]) {
        for point in points {
            let is_generated = point.series.name == engine::GENERATION_TOKENS_TOTAL.name;
            if !is_generated && point.series.name != engine::PROMPT_TOKENS_TOTAL.name {
                continue;
            }
            let (Some(engine), Some(model), Some(tokens)) =
                (label(point, "engine"), label(point, "model"), amount(point))
            else {
                continue;
            };
            let key = (engine.to_owned(), model.to_owned());
            if self.models.len() >= MAX_MODELS && !self.models.contains_key(&key) {
                self.sums.untracked.add(1.0);
                continue;
            }
            let model = self.models.entry(key).or_default();
            model.seen_boot_ns = taken_boot_ns;
            let meter = if is_generated { &mut model.generated } else { &mut model.prompt };
            let Meter { counter, tokens: counted } = meter.get_or_insert_default();
            counted.add(counter.advance(tokens));
        }
    }

    /// Turns the time since the last call into money at the price that held during it.
    fn accrue(&mut self, boot_ns: u64) {
        let Some(since) = self.accrued_boot_ns else {
            self.accrued_boot_ns = Some(boot_ns);
            self.began_boot_ns = boot_ns;
            return;
        };
        let is_basis_known = self.has_gpu_worker_spoken || boot_ns.saturating_sub(self.began_boot_ns) >= PATIENCE_NS;
        if boot_ns <= since || !is_basis_known {
            return;
        }
        self.accrued_boot_ns = Some(boot_ns);
        let basis = self.current_basis();
        if self.basis.replace(basis).is_some_and(|before| before != basis) {
            self.begin_anew();
        }
        let seconds = seconds(boot_ns - since);
        self.sums.elapsed_seconds.add(seconds);
        match self.per_hour(basis) {
            Some(per_hour) => {
                let spend = per_hour * seconds / 3600.0;
                self.sums.spend.add(spend);
                *self.spent.entry(basis).or_default() += spend;
            }
            None => self.sums.unpriced_seconds.add(seconds),
        }
    }

    fn current_basis(&self) -> Basis {
        match (self.gpus.is_empty(), self.is_simulated) {
            (true, _) => Basis::Node,
            (false, false) => Basis::Gpu,
            (false, true) => Basis::GpuSimulated,
        }
    }

    /// `None` while something in use has no price.
    fn per_hour(&self, basis: Basis) -> Option<f64> {
        let prices = self.prices.as_ref()?;
        match basis {
            Basis::Node => Some(prices.node_per_hour?.as_f64()),
            Basis::Gpu | Basis::GpuSimulated => {
                self.gpus.values().map(|name| Some(prices.of_gpu(name)?.as_f64())).sum()
            }
        }
    }

    /// Money of one basis must not be divided by tokens of another's time.
    fn begin_anew(&mut self) {
        self.sums = Sums::default();
        self.retired = Retired([Some(0.0); 2]);
        for model in self.models.values_mut() {
            for meter in [&mut model.generated, &mut model.prompt].into_iter().flatten() {
                meter.tokens = Cumulative::default();
            }
        }
    }

    fn retire(&mut self, boot_ns: u64) {
        let is_gone = |model: &mut Model| boot_ns.saturating_sub(model.seen_boot_ns) >= RETIRE_NS;
        for (_, model) in self.models.extract_if(.., |_, model| is_gone(model)) {
            for (sum, kind) in self.retired.0.iter_mut().zip(KINDS) {
                *sum = sum.zip(model.tokens(kind, boot_ns, None)).map(|(sum, tokens)| sum + tokens);
            }
        }
    }

    /// The figures of now.
    pub fn points(&self, boot_ns: u64) -> Vec<Point> {
        let mut points = Vec::new();
        if let Some(prices) = &self.prices {
            let currency = prices.currency.as_str();
            for (basis, spent) in &self.spent {
                points.push(Point::new(&cost::TOTAL, &[currency, basis.as_str()], *spent));
            }
            if let Some((basis, per_hour)) = self.basis.and_then(|basis| Some((basis, self.per_hour(basis)?))) {
                points.push(Point::new(&cost::PER_HOUR, &[currency, basis.as_str()], per_hour));
            }
        }
        for (window, window_ns) in WINDOWS {
            let elapsed = self.sums.elapsed_seconds.within(boot_ns, window_ns);
            points.push(Point::new(&cost::WINDOW_SECONDS, &[window], elapsed));
            for kind in KINDS {
                self.add_per_token(kind, window, boot_ns, window_ns, &mut points);
            }
        }
        points
    }

    fn add_per_token(
        &self,
        kind: TokenKind,
        window: &str,
        boot_ns: u64,
        window_ns: Option<u64>,
        points: &mut Vec<Point>,
    ) {
        let total = self.tokens(kind, boot_ns, window_ns).filter(|total| *total > 0.0);
        let spend = self.spend(boot_ns, window_ns);
        let joules = self.energy_joules(boot_ns, window_ns);
        let kind_label = kind.as_str();
        for ((engine, model), counted) in &self.models {
            let Some(tokens) = counted.tokens(kind, boot_ns, window_ns) else { continue };
            points.push(Point::new(&cost::WINDOW_TOKENS, &[engine, model, kind_label, window], tokens));
            let Some(total) = total.filter(|_| tokens > 0.0) else { continue };
            // The engine's share of the spend is its share of the tokens, so its tokens cancel out.
            if let Some((currency, basis, spend)) = spend {
                let labels = [currency, basis.as_str(), engine, model, kind_label, window];
                points.push(Point::new(&cost::PER_TOKEN, &labels, spend / total));
            }
            if let Some(joules) = joules {
                let labels = [engine.as_str(), model, kind_label, window];
                points.push(Point::new(&cost::ENERGY_PER_TOKEN_JOULES, &labels, joules / total));
            }
        }
    }

    /// All tokens of the node; `None` when an engine that worked does not say how many.
    fn tokens(&self, kind: TokenKind, boot_ns: u64, window_ns: Option<u64>) -> Option<f64> {
        if self.sums.untracked.within(boot_ns, window_ns) > 0.0 {
            return None;
        }
        let retired = if window_ns.is_none() { self.retired.0[kind as usize]? } else { 0.0 };
        let of_models = self.models.values().filter(|model| !model.is_idle(boot_ns, window_ns));
        let sum = of_models.map(|model| model.tokens(kind, boot_ns, window_ns)).sum::<Option<f64>>()?;
        Some(retired + sum)
    }

    fn spend(&self, boot_ns: u64, window_ns: Option<u64>) -> Option<(&str, Basis, f64)> {
        let is_priced = self.sums.unpriced_seconds.within(boot_ns, window_ns) == 0.0;
        let currency = self.prices.as_ref()?.currency.as_str();
        is_priced.then_some((currency, self.basis?, self.sums.spend.within(boot_ns, window_ns)))
    }

    fn energy_joules(&self, boot_ns: u64, window_ns: Option<u64>) -> Option<f64> {
        let is_whole = !self.gpus.is_empty() && self.gpus.keys().all(|gpu| self.energy_counters.contains_key(gpu));
        is_whole.then(|| self.sums.energy_joules.within(boot_ns, window_ns))
    }
}

impl Model {
    /// `None` when a part of the kind is unknown.
    fn tokens(&self, kind: TokenKind, boot_ns: u64, window_ns: Option<u64>) -> Option<f64> {
        let count = |meter: &Option<Meter>| Some(meter.as_ref()?.tokens.within(boot_ns, window_ns));
        match kind {
            TokenKind::Generated => count(&self.generated),
            TokenKind::All => Some(count(&self.generated)? + count(&self.prompt)?),
        }
    }

    /// Nothing that it told of happened in the window.
    fn is_idle(&self, boot_ns: u64, window_ns: Option<u64>) -> bool {
        let mut meters = [&self.generated, &self.prompt].into_iter().flatten();
        meters.all(|meter| meter.tokens.within(boot_ns, window_ns) == 0.0)
    }
}

impl Basis {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::GpuSimulated => "gpu_simulated",
            Self::Node => "node",
        }
    }
}

impl TokenKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::All => "all",
        }
    }
}

fn label<'a>(point: &'a Point, name: &str) -> Option<&'a str> {
    let index = point.series.labels.iter().position(|label| *label == name)?;
    point.labels.get(index).map(String::as_str)
}

/// A counter's reading, if it can be one: beyond the bound no engine has got, and sums would lose their meaning.
fn amount(point: &Point) -> Option<f64> {
    point.number().filter(|number| (0.0..1e18).contains(number))
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// A map as a list of pairs: what JSON calls by name is text.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer, K: Serialize, V: Serialize>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, K: Deserialize<'de> + Ord, V: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
