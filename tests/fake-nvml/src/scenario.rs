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
    /// When time begins, nanoseconds of CLOCK_BOOTTIME; at `nvmlInit_v2` without it. With it, counters go on in the next
    /// process, as those of hardware do.
    pub(crate) epoch_boot_ns: Option<u64>,
    /// From then on every call answers with this code, as after the driver was unloaded.
    pub(crate) gone: Option<Gone>,
    /// What the event set tells.
    #[serde(default)]
    pub(crate) events: Vec<Event>,
    /// Whether the driver runs with confidential computing; not supported without it.
    pub(crate) confidential_compute: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gone {
    pub(crate) at_s: f64,
    #[serde(rename = "return")]
    pub(crate) code: u32,
}

/// `nvmlEventData_t`, once.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) at_s: f64,
    /// By index.
    pub(crate) gpu: usize,
    /// The XID.
    pub(crate) xid: u64,
    #[serde(default = "no_instance")]
    pub(crate) gpu_instance: u32,
    #[serde(default = "no_instance")]
    pub(crate) compute_instance: u32,
}

const fn no_instance() -> u32 {
    u32::MAX
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
    /// So many of this kind: UUID, PCI bus and minor number count on.
    #[serde(default = "one")]
    count: u32,
    #[serde(default)]
    pub(crate) minor: u32,
    pub(crate) serial: Option<String>,
    pub(crate) vbios: Option<String>,
    pub(crate) numa_node: Option<u32>,
    pub(crate) max_memory_clock_mhz: Option<u32>,
    pub(crate) max_video_clock_mhz: Option<u32>,
    pub(crate) application_sm_clock_mhz: Option<u32>,
    pub(crate) application_memory_clock_mhz: Option<u32>,
    /// Shutdown, slowdown, memory, GPU: in the order of `nvmlTemperatureThresholds_t`.
    #[serde(default)]
    pub(crate) temperature_limits_celsius: Vec<u32>,
    /// Generation now and at most, width now and at most.
    pub(crate) pcie: Option<[u32; 4]>,
    #[serde(default)]
    pub(crate) memory_reserved_bytes: u64,
    /// Sent and received, kB/s.
    pub(crate) pcie_throughput: Option<[u32; 2]>,
    /// Corrected, uncorrected by parity and by more bits; and whether that is too many.
    pub(crate) sram_errors: Option<([u64; 3], bool)>,
    /// Its parts under MIG; none for one that is not divided, and without the field it cannot be.
    pub(crate) mig: Option<Vec<MigDevice>>,
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
    performance_state: Option<u32>,
    video_clock_mhz: Option<u32>,
    encoder_percent: Option<u32>,
    decoder_percent: Option<u32>,
    margin_celsius: Option<i32>,
    /// Field values by id (old numbering), whatever the scope; those of earlier steps hold.
    fields: Option<BTreeMap<u32, i64>>,
    /// Field values that are asked for with a link as their scope.
    link_fields: Option<BTreeMap<u32, Vec<i64>>>,
    /// Field values that count up by so much a second.
    field_rates: Option<BTreeMap<u32, f64>>,
    /// GPM metrics by id; without any, the GPU has no GPM.
    gpm: Option<BTreeMap<u32, f64>>,
    processes: Option<Vec<Process>>,
    /// Clients of MPS; not supported until a step names them.
    mps_processes: Option<Vec<Process>>,
    fabric: Option<Fabric>,
    /// Off the bus: every call answers `NVML_ERROR_GPU_IS_LOST`.
    lost: Option<bool>,
    /// Every getter of this GPU blocks for so long.
    hang_s: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) memory_bytes: u64,
    #[serde(default)]
    pub(crate) sm_percent: u32,
    #[serde(default = "no_instance")]
    pub(crate) gpu_instance: u32,
    #[serde(default = "no_instance")]
    pub(crate) compute_instance: u32,
}

/// A compute instance of a GPU instance.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MigDevice {
    pub(crate) uuid: String,
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
    pub(crate) profile: String,
    /// Of the GPU instance.
    pub(crate) memory_total_bytes: u64,
    pub(crate) memory_used_bytes: u64,
    /// Of the GPU instance: metrics of GPM by id.
    #[serde(default)]
    pub(crate) gpm: BTreeMap<u32, f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fabric {
    pub(crate) state: u8,
    #[serde(default)]
    pub(crate) status: u32,
    #[serde(default)]
    pub(crate) clique: u32,
    #[serde(default)]
    pub(crate) health_mask: u32,
    #[serde(default)]
    pub(crate) health_summary: u8,
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
    pub(crate) performance_state: Option<u32>,
    pub(crate) video_clock_mhz: Option<u32>,
    pub(crate) encoder_percent: Option<u32>,
    pub(crate) decoder_percent: Option<u32>,
    pub(crate) margin_celsius: Option<i32>,
    pub(crate) fields: BTreeMap<u32, i64>,
    pub(crate) link_fields: BTreeMap<u32, Vec<i64>>,
    pub(crate) gpm: BTreeMap<u32, f64>,
    pub(crate) processes: Option<Vec<Process>>,
    pub(crate) mps_processes: Option<Vec<Process>>,
    pub(crate) fabric: Option<Fabric>,
    pub(crate) lost: bool,
    pub(crate) hang: Duration,
}

impl Scenario {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut scenario: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        scenario.gpus = scenario.gpus.iter().flat_map(Gpu::each).collect();
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

const fn one() -> u32 {
    1
}

impl Gpu {
    /// All of this kind.
    fn each(&self) -> Vec<Self> {
        let number = |number: u32| {
            let digits = self.uuid.len().saturating_sub(12);
            let (start, end) = self.uuid.split_at_checked(digits).unwrap_or(("", &self.uuid));
            let end = u64::from_str_radix(end, 16)
                .map_or_else(|_| end.to_owned(), |end| format!("{:012x}", end + u64::from(number)));
            let mut bus: Vec<String> = self.pci_bus_id.split(':').map(str::to_owned).collect();
            if let Some(of_bus) = bus.get_mut(1) {
                let counted = u32::from_str_radix(of_bus, 16).map(|bus| bus + number);
                *of_bus = counted.map_or_else(|_| of_bus.clone(), |bus| format!("{bus:02X}"));
            }
            Self {
                uuid: format!("{start}{end}"),
                pci_bus_id: bus.join(":"),
                minor: self.minor + number,
                count: 1,
                ..self.clone()
            }
        };
        if self.count == 1 { vec![self.clone()] } else { (0..self.count).map(number).collect() }
    }

    /// What it says `now`, counted from the start.
    pub(crate) fn at(&self, now: Duration) -> State {
        let now_s = now.as_secs_f64();
        let mut state = State::default();
        let mut shares: BTreeMap<u32, f64> = BTreeMap::new();
        let (mut rates, mut counted) = (BTreeMap::<u32, f64>::new(), BTreeMap::<u32, f64>::new());
        let (mut energy_mj, mut throttled_s) = (0.0, BTreeMap::<u32, f64>::new());
        for (index, step) in self.steps.iter().enumerate().take_while(|(_, step)| step.at_s <= now_s) {
            state.apply(step);
            if let Some(changed) = &step.throttled_share {
                shares.extend(changed);
            }
            if let Some(changed) = &step.field_rates {
                rates.extend(changed);
            }
            let end_s = self.steps.get(index + 1).map_or(now_s, |next| next.at_s.min(now_s));
            energy_mj += f64::from(state.power_mw) * (end_s - step.at_s);
            for (&field, share) in &shares {
                *throttled_s.entry(field).or_default() += share * (end_s - step.at_s);
            }
            for (&field, rate) in &rates {
                *counted.entry(field).or_default() += rate * (end_s - step.at_s);
            }
        }
        state.energy_mj = whole(energy_mj);
        for (field, number) in counted {
            *state.fields.entry(field).or_default() += whole(number).cast_signed();
        }
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
        set(&mut self.performance_state, step.performance_state.map(Some).as_ref());
        set(&mut self.video_clock_mhz, step.video_clock_mhz.map(Some).as_ref());
        set(&mut self.encoder_percent, step.encoder_percent.map(Some).as_ref());
        set(&mut self.decoder_percent, step.decoder_percent.map(Some).as_ref());
        set(&mut self.margin_celsius, step.margin_celsius.map(Some).as_ref());
        self.fields.extend(step.fields.iter().flatten());
        self.link_fields.extend(step.link_fields.clone().into_iter().flatten());
        set(&mut self.gpm, step.gpm.as_ref());
        set(&mut self.processes, step.processes.clone().map(Some).as_ref());
        set(&mut self.mps_processes, step.mps_processes.clone().map(Some).as_ref());
        set(&mut self.fabric, step.fabric.map(Some).as_ref());
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
        for (scenario, gpus) in [
            (include_str!("../scenarios/h100x8.yaml"), 8),
            (include_str!("../scenarios/b200x8.yaml"), 8),
            (include_str!("../scenarios/l4.yaml"), 1),
            (include_str!("../scenarios/throttle-burst.yaml"), 1),
            (include_str!("../scenarios/xid-79.yaml"), 2),
            (include_str!("../scenarios/ecc.yaml"), 1),
            (include_str!("../scenarios/hang.yaml"), 2),
            (include_str!("../scenarios/reload.yaml"), 1),
            (include_str!("../scenarios/nvlink-down.yaml"), 1),
            (include_str!("../scenarios/a100-mig.yaml"), 2),
            (include_str!("../scenarios/h100-mig.yaml"), 1),
        ] {
            assert_eq!(Scenario::parse(scenario).unwrap().gpus.len(), gpus, "{scenario}");
        }
    }

    #[test]
    fn gpus_of_a_kind_count_on() {
        let gpus = Scenario::parse(include_str!("../scenarios/h100x8.yaml")).unwrap().gpus;
        let of = |index: usize| (&*gpus[index].uuid, &*gpus[index].pci_bus_id, gpus[index].minor);
        assert_eq!(of(0), ("GPU-5eed0000-0000-4000-8000-000000000000", "00000000:18:00.0", 0));
        assert_eq!(of(7), ("GPU-5eed0000-0000-4000-8000-000000000007", "00000000:1F:00.0", 7));
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
