//! The field values that are collected: what `nvmlDeviceGetFieldValues` knows and no getter tells. Pure.
//!
//! Ids are those of `nvml.h` 12. Driver 580.82 moved 251 to 253 up to 269 to 271; nvml-wrapper translates what is asked
//! but not what is answered, so answers are known by their place and never by their id.

use nvml_wrapper::{enums::device::SampleValue, structs::device::FieldId, sys_exports::field_id};

use super::sample::Measure;
use crate::series::{Series, gpu};

/// One field, and how its value becomes a number of a series.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub id: u32,
    series: &'static Series,
    /// The value of the series' own label, if it has one.
    label: Option<&'static str>,
    convert: fn(&SampleValue) -> Option<f64>,
}

pub const FIELDS: &[Field] = &[
    Field {
        name: "NVML_FI_DEV_MEMORY_TEMP",
        id: field_id::NVML_FI_DEV_MEMORY_TEMP,
        series: &gpu::MEMORY_TEMPERATURE_CELSIUS,
        label: None,
        convert: celsius,
    },
    Field {
        name: "NVML_FI_DEV_ECC_DBE_VOL_TOTAL",
        id: field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
        series: &gpu::MEMORY_ERRORS_TOTAL,
        label: Some("uncorrected"),
        convert: count,
    },
    throttle("NVML_FI_DEV_PERF_POLICY_POWER", field_id::NVML_FI_DEV_PERF_POLICY_POWER, "sw_power_cap"),
    throttle("NVML_FI_DEV_PERF_POLICY_THERMAL", field_id::NVML_FI_DEV_PERF_POLICY_THERMAL, "thermal"),
    throttle("NVML_FI_DEV_PERF_POLICY_SYNC_BOOST", field_id::NVML_FI_DEV_PERF_POLICY_SYNC_BOOST, "sync_boost"),
    throttle("NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT", field_id::NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT, "board_limit"),
    throttle(
        "NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION",
        field_id::NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION,
        "low_utilization",
    ),
    throttle("NVML_FI_DEV_PERF_POLICY_RELIABILITY", field_id::NVML_FI_DEV_PERF_POLICY_RELIABILITY, "reliability"),
    throttle(
        "NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS",
        field_id::NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS,
        "application_clocks",
    ),
    throttle(
        "NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS",
        field_id::NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS,
        "base_clocks",
    ),
    throttle(
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
        field_id::NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
        "sw_thermal",
    ),
    throttle(
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
        field_id::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
        "hw_thermal",
    ),
    throttle(
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
        field_id::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
        "hw_power_brake",
    ),
];

const fn throttle(name: &'static str, id: u32, reason: &'static str) -> Field {
    Field { name, id, series: &gpu::THROTTLE_SECONDS_TOTAL, label: Some(reason), convert: seconds }
}

impl Field {
    /// `None` when the driver gave something that cannot be this field's value.
    pub fn measure(&self, value: &SampleValue) -> Option<Measure> {
        let number = (self.convert)(value)?;
        Some(Measure { series: self.series, label: self.label.map(str::to_owned), number })
    }
}

/// The ids of [`FIELDS`], in their order.
pub fn ids() -> Vec<FieldId> {
    FIELDS.iter().map(|field| FieldId(field.id)).collect()
}

/// Nanoseconds come in 64 bits. Anything narrower may have lost its upper half, and is refused.
#[expect(clippy::cast_precision_loss, reason = "104 days of throttling are exact to the nanosecond")]
fn seconds(value: &SampleValue) -> Option<f64> {
    match value {
        SampleValue::U64(nanoseconds) => Some(*nanoseconds as f64 / 1e9),
        SampleValue::I64(nanoseconds) => u64::try_from(*nanoseconds).ok().map(|nanoseconds| nanoseconds as f64 / 1e9),
        SampleValue::F64(_) | SampleValue::U32(_) => None,
    }
}

/// A number of things.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn count(value: &SampleValue) -> Option<f64> {
    match value {
        SampleValue::U64(number) => Some(*number as f64),
        SampleValue::U32(number) => Some(f64::from(*number)),
        SampleValue::I64(number) => u64::try_from(*number).ok().map(|number| number as f64),
        SampleValue::F64(_) => None,
    }
}

/// A sensor that does not exist reads 0.
#[expect(clippy::cast_precision_loss, reason = "temperatures are small")]
fn celsius(value: &SampleValue) -> Option<f64> {
    let celsius = match value {
        SampleValue::F64(celsius) => *celsius,
        SampleValue::U32(celsius) => f64::from(*celsius),
        SampleValue::U64(celsius) => *celsius as f64,
        SampleValue::I64(celsius) => *celsius as f64,
    };
    (celsius > 0.0 && celsius.is_finite()).then_some(celsius)
}
