//! One reading of one GPU: which questions are asked, and how each answer becomes numbers of the series table.
//!
//! [`GETTERS`] and [`FIELDS`] are the whole list. A question that a GPU does not answer gives a [`Refusal`] and no
//! number. The mapping is pure; asking is one line per question.

use nvml_wrapper::{
    Device,
    enum_wrappers::device::{Clock, TemperatureSensor},
    error::NvmlError,
};

use super::{
    fields::{self, FIELDS},
    raw,
};
use crate::series::{Point, Series, gpu};

/// A number that lacks only the GPU's own labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    pub series: &'static Series,
    /// The value of the series' own label, if it has one.
    pub label: Option<String>,
    pub number: f64,
}

/// A question without an answer.
#[derive(Debug)]
pub struct Refusal {
    /// The NVML call, or the name of the field.
    pub question: &'static str,
    pub error: NvmlError,
}

/// Everything that one GPU answered.
#[derive(Debug, Default)]
pub struct Reading {
    pub measures: Vec<Measure>,
    pub refusals: Vec<Refusal>,
}

/// Labels that every series of a GPU begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    pub uuid: String,
    pub is_simulated: bool,
}

struct Getter {
    call: &'static str,
    ask: fn(&Device<'_>) -> Result<Vec<Measure>, NvmlError>,
}

const GETTERS: &[Getter] = &[
    Getter {
        call: "nvmlDeviceGetUtilizationRates",
        ask: |device| {
            let rates = device.utilization_rates()?;
            Ok(vec![
                measure(&gpu::UTILIZATION_RATIO, f64::from(rates.gpu) / 100.0),
                measure(&gpu::MEMORY_UTILIZATION_RATIO, f64::from(rates.memory) / 100.0),
            ])
        },
    },
    Getter {
        call: "nvmlDeviceGetMemoryInfo_v2",
        ask: |device| {
            let memory = device.memory_info()?;
            Ok(vec![
                measure(&gpu::MEMORY_USED_BYTES, exact(memory.used)),
                measure(&gpu::MEMORY_TOTAL_BYTES, exact(memory.total)),
            ])
        },
    },
    Getter {
        call: "nvmlDeviceGetClockInfo(NVML_CLOCK_SM)",
        ask: |device| one(&gpu::SM_CLOCK_HERTZ, device.clock_info(Clock::SM), from_mega),
    },
    Getter {
        call: "nvmlDeviceGetClockInfo(NVML_CLOCK_MEM)",
        ask: |device| one(&gpu::MEMORY_CLOCK_HERTZ, device.clock_info(Clock::Memory), from_mega),
    },
    Getter {
        call: "nvmlDeviceGetMaxClockInfo(NVML_CLOCK_SM)",
        ask: |device| one(&gpu::MAX_SM_CLOCK_HERTZ, device.max_clock_info(Clock::SM), from_mega),
    },
    Getter {
        call: "nvmlDeviceGetTemperature(NVML_TEMPERATURE_GPU)",
        ask: |device| one(&gpu::TEMPERATURE_CELSIUS, device.temperature(TemperatureSensor::Gpu), f64::from),
    },
    Getter { call: "nvmlDeviceGetPowerUsage", ask: |device| one(&gpu::POWER_WATTS, device.power_usage(), from_milli) },
    Getter {
        call: "nvmlDeviceGetEnforcedPowerLimit",
        ask: |device| one(&gpu::POWER_LIMIT_WATTS, device.enforced_power_limit(), from_milli),
    },
    Getter {
        call: "nvmlDeviceGetTotalEnergyConsumption",
        ask: |device| Ok(vec![measure(&gpu::ENERGY_JOULES_TOTAL, exact(device.total_energy_consumption()?) / 1e3)]),
    },
    Getter {
        call: "nvmlDeviceGetCurrentClocksThrottleReasons",
        ask: |device| Ok(throttle_reasons(raw::throttle_bits(device)?)),
    },
    Getter { call: "nvmlDeviceGetNvLinkState", ask: nvlinks },
    Getter {
        call: "nvmlDeviceGetPcieReplayCounter",
        ask: |device| one(&gpu::PCIE_REPLAYS_TOTAL, device.pcie_replay_counter(), f64::from),
    },
];

/// NVML_NVLINK_MAX_LINKS of `nvml.h`.
const MAX_NVLINKS: u32 = 18;

/// Bits of `nvmlClocksEventReasons` in `nvml.h`, named alike in both throttle series.
const THROTTLE_REASONS: &[(u64, &str)] = &[
    (0x1, "idle"),
    (0x2, "application_clocks"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal"),
    (0x40, "hw_thermal"),
    (0x80, "hw_power_brake"),
    (0x100, "display_clocks"),
];

impl Reading {
    /// Asks every question once.
    pub fn take(device: &Device<'_>) -> Self {
        let mut reading = Self::default();
        for getter in GETTERS {
            reading.note(getter.call, (getter.ask)(device));
        }
        match device.field_values_for(&fields::ids()) {
            Ok(answers) => {
                for (field, answer) in FIELDS.iter().zip(answers) {
                    let value = answer.and_then(|answer| answer.value);
                    let measure = value.and_then(|value| field.measure(&value).ok_or(NvmlError::NoData));
                    reading.note(field.name, measure.map(|measure| vec![measure]));
                }
            }
            Err(error) => reading.note("nvmlDeviceGetFieldValues", Err(error)),
        }
        reading
    }

    fn note(&mut self, question: &'static str, answer: Result<Vec<Measure>, NvmlError>) {
        match answer {
            Ok(measures) => self.measures.extend(measures),
            Err(error) => self.refusals.push(Refusal { question, error }),
        }
    }
}

impl Entity {
    /// The number with all its labels.
    pub fn point(&self, measure: &Measure) -> Point {
        let mut labels = vec![self.uuid.as_str(), self.simulated()];
        labels.extend(measure.label.as_deref());
        Point::new(measure.series, &labels, measure.number)
    }

    pub fn simulated(&self) -> &'static str {
        if self.is_simulated { "true" } else { "false" }
    }
}

fn measure(series: &'static Series, number: f64) -> Measure {
    Measure { series, label: None, number }
}

/// An answer that is one number, brought to the base unit.
fn one(
    series: &'static Series,
    answer: Result<u32, NvmlError>,
    to_base_unit: fn(u32) -> f64,
) -> Result<Vec<Measure>, NvmlError> {
    Ok(vec![measure(series, to_base_unit(answer?))])
}

fn from_milli(number: u32) -> f64 {
    f64::from(number) / 1e3
}

fn from_mega(number: u32) -> f64 {
    f64::from(number) * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: 9 PB, 285 years at 1 kW")]
fn exact(number: u64) -> f64 {
    number as f64
}

fn throttle_reasons(bits: u64) -> Vec<Measure> {
    let known = THROTTLE_REASONS.iter().fold(0, |known, (bit, _)| known | bit);
    let other = (!known, "other");
    let is_active = |(mask, reason): &(u64, &str)| Measure {
        series: &gpu::THROTTLE_ACTIVE,
        label: Some((*reason).to_owned()),
        number: if bits & mask == 0 { 0.0 } else { 1.0 },
    };
    THROTTLE_REASONS.iter().chain([&other]).map(is_active).collect()
}

/// The GPU has no link beyond the first that it refuses to speak of.
fn nvlinks(device: &Device<'_>) -> Result<Vec<Measure>, NvmlError> {
    let mut links = Vec::new();
    for link in 0..MAX_NVLINKS {
        match device.link_wrapper_for(link).is_active() {
            Ok(is_active) => links.push(Measure {
                series: &gpu::NVLINK_UP,
                label: Some(link.to_string()),
                number: if is_active { 1.0 } else { 0.0 },
            }),
            Err(error) if links.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests;
