//! A scenario: which GPUs there are, and what they say at which time.
//!
//! Steps hold until the next one; a step changes only the fields it names. Counters are integrated: energy from power,
//! throttle time from the share of each second that a reason takes. Time begins at `nvmlInit_v2`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// A whole scenario file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// As `nvmlSystemGetDriverVersion` tells it; it decides the numbering of field ids.
    pub(crate) driver: String,
    /// The return code of `nvmlInit_v2`, such as 9 for a driver that is not loaded; 0 is success.
    #[serde(default)]
    pub(crate) init_return: u32,
    #[serde(default)]
    pub(crate) gpus: Vec<Gpu>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) uuid: String,
    /// `domain:bus:device.function`, hexadecimal.
    pub(crate) pci_bus_id: String,
    pub(crate) memory_total_bytes: u64,
    pub(crate) max_sm_clock_mhz: u32,
    pub(crate) power_limit_mw: u32,
    /// C names of functions that answer `NVML_ERROR_NOT_SUPPORTED`.
    #[serde(default)]
    pub(crate) unsupported: Vec<String>,
    /// In the order of their time; the first must be at 0.
    steps: Vec<Step>,
}

/// What changes at one time.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at_s: f64,
    utilization_percent: Option<u32>,
    memory_utilization_percent: Option<u32>,
    memory_used_bytes: Option<u64>,
    sm_clock_mhz: Option<u32>,
    memory_clock_mhz: Option<u32>,
    temperature_celsius: Option<u32>,
    /// Not supported until a step names it.
    memory_temperature_celsius: Option<u32>,
    pcie_replays: Option<u32>,
    /// Uncorrected errors since the driver was loaded; not supported until a step names them.
    ecc_uncorrected: Option<u64>,
    power_mw: Option<u32>,
    /// The raw bits of `nvmlDeviceGetCurrentClocksThrottleReasons`.
    throttle_reasons: Option<u64>,
    /// Share of time, 0 to 1, during which the driver counts a field (old numbering) of throttle nanoseconds.
    throttled_share: Option<BTreeMap<u32, f64>>,
    /// One entry per link.
    nvlinks_up: Option<Vec<bool>>,
    /// Off the bus: every call answers `NVML_ERROR_GPU_IS_LOST`.
    lost: Option<bool>,
    /// Every getter of this GPU blocks for so long.
    hang_s: Option<f64>,
}

/// What one GPU says at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) utilization_percent: u32,
    pub(crate) memory_utilization_percent: u32,
    pub(crate) memory_used_bytes: u64,
    pub(crate) sm_clock_mhz: u32,
    pub(crate) memory_clock_mhz: u32,
    pub(crate) temperature_celsius: u32,
    pub(crate) memory_temperature_celsius: Option<u32>,
    pub(crate) pcie_replays: u32,
    pub(crate) ecc_uncorrected: Option<u64>,
    pub(crate) power_mw: u32,
    pub(crate) energy_mj: u64,
    pub(crate) throttle_reasons: u64,
    /// By field id, old numbering; a field that no step names is not supported.
    pub(crate) throttle_ns: BTreeMap<u32, u64>,
    pub(crate) nvlinks_up: Vec<bool>,
    pub(crate) lost: bool,
    pub(crate) hang: Duration,
}

impl Scenario {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        for gpu in &scenario.gpus {
            let times: Vec<f64> = gpu.steps.iter().map(|step| step.at_s).collect();
            if times.first() != Some(&0.0) || !times.is_sorted() {
                return Err(format!("{}: the steps must begin at 0 and be in the order of their time", gpu.uuid));
            }
        }
        Ok(scenario)
    }

    /// Whether this driver numbers the fields 251 to 273 anew (from 580.82 on).
    pub(crate) fn renumbers_fields(&self) -> bool {
        let mut parts = self.driver.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (580, 82)
    }

    /// The id in the old numbering of a field that a client asks for by this driver's numbering.
    pub(crate) fn old_field_id(&self, asked: u32) -> u32 {
        match asked {
            269..=273 if self.renumbers_fields() => asked - 18,
            251..=268 if self.renumbers_fields() => asked + 5,
            same => same,
        }
    }
}

impl Gpu {
    /// What it says `now`, counted from the start.
    pub(crate) fn at(&self, now: Duration) -> State {
        let now_s = now.as_secs_f64();
        let mut state = State::default();
        let mut shares: BTreeMap<u32, f64> = BTreeMap::new();
        let (mut energy_mj, mut throttled_s) = (0.0, BTreeMap::<u32, f64>::new());
        for (index, step) in self.steps.iter().enumerate().take_while(|(_, step)| step.at_s <= now_s) {
            state.apply(step);
            if let Some(changed) = &step.throttled_share {
                shares.extend(changed);
            }
            let end_s = self.steps.get(index + 1).map_or(now_s, |next| next.at_s.min(now_s));
            energy_mj += f64::from(state.power_mw) * (end_s - step.at_s);
            for (&field, share) in &shares {
                *throttled_s.entry(field).or_default() += share * (end_s - step.at_s);
            }
        }
        state.energy_mj = whole(energy_mj);
        state.throttle_ns = throttled_s.into_iter().map(|(field, seconds)| (field, whole(seconds * 1e9))).collect();
        state
    }
}

impl State {
    fn apply(&mut self, step: &Step) {
        fn set<T: Clone>(field: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                field.clone_from(value);
            }
        }
        set(&mut self.utilization_percent, step.utilization_percent.as_ref());
        set(&mut self.memory_utilization_percent, step.memory_utilization_percent.as_ref());
        set(&mut self.memory_used_bytes, step.memory_used_bytes.as_ref());
        set(&mut self.sm_clock_mhz, step.sm_clock_mhz.as_ref());
        set(&mut self.memory_clock_mhz, step.memory_clock_mhz.as_ref());
        set(&mut self.temperature_celsius, step.temperature_celsius.as_ref());
        set(&mut self.memory_temperature_celsius, step.memory_temperature_celsius.map(Some).as_ref());
        set(&mut self.pcie_replays, step.pcie_replays.as_ref());
        if step.ecc_uncorrected.is_some() {
            self.ecc_uncorrected = step.ecc_uncorrected;
        }
        set(&mut self.power_mw, step.power_mw.as_ref());
        set(&mut self.throttle_reasons, step.throttle_reasons.as_ref());
        set(&mut self.nvlinks_up, step.nvlinks_up.as_ref());
        set(&mut self.lost, step.lost.as_ref());
        set(&mut self.hang, step.hang_s.map(Duration::from_secs_f64).as_ref());
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and no scenario goes back"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        Scenario::parse(include_str!("../scenarios/throttled.yaml")).unwrap()
    }

    #[test]
    fn the_shipped_scenarios_parse() {
        assert_eq!(Scenario::parse(include_str!("../scenarios/h100-pair.yaml")).unwrap().gpus.len(), 2);
        assert_eq!(Scenario::parse(include_str!("../scenarios/lost.yaml")).unwrap().gpus.len(), 2);
        assert_eq!(scenario().gpus.len(), 1);
    }

    #[test]
    fn counters_integrate_what_steps_say() {
        let gpu: Gpu = serde_yaml::from_str(
            "{name: n, uuid: u, pci_bus_id: '0:0:0.0', memory_total_bytes: 1, max_sm_clock_mhz: 1, power_limit_mw: 1, \
             steps: [{at_s: 0, power_mw: 1000}, {at_s: 2, power_mw: 3000, throttled_share: {74: 0.5}}, {at_s: 4, \
             throttled_share: {74: 0}}]}",
        )
        .unwrap();
        let at = |seconds| gpu.at(Duration::from_secs(seconds));
        assert_eq!((at(1).energy_mj, at(3).energy_mj, at(6).energy_mj), (1_000, 5_000, 14_000));
        assert_eq!(at(1).throttle_ns.get(&74), None);
        assert_eq!(at(3).throttle_ns[&74], 500_000_000);
        assert_eq!(at(9).throttle_ns[&74], 1_000_000_000);
    }

    #[test]
    fn fields_are_renumbered_from_driver_580_82_on() {
        let with = |driver: &str| Scenario { driver: driver.to_owned(), ..scenario() };
        assert_eq!(with("570.133.20").old_field_id(251), 251);
        assert_eq!(with("580.65.06").old_field_id(251), 251);
        assert_eq!(with("580.82.07").old_field_id(269), 251);
        assert_eq!(with("580.126.09").old_field_id(251), 256);
        assert_eq!(with("590.1").old_field_id(74), 74);
    }

    #[test]
    fn a_scenario_that_begins_late_or_goes_back_is_refused() {
        let steps = |steps: &str| {
            Scenario::parse(&format!(
                "driver: '1.0'\ngpus: [{{name: n, uuid: u, pci_bus_id: b, memory_total_bytes: 1, max_sm_clock_mhz: 1, \
                 power_limit_mw: 1, steps: {steps}}}]"
            ))
        };
        assert!(steps("[{at_s: 0}]").is_ok());
        assert!(steps("[{at_s: 1}]").is_err());
        assert!(steps("[]").is_err());
        assert!(steps("[{at_s: 0}, {at_s: 5}, {at_s: 4}]").is_err());
        assert!(steps("[{at_s: 0, utilisation: 5}]").is_err());
    }
}
