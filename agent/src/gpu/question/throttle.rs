//! What keeps the clocks down: bits of now, and nanoseconds since the driver was loaded.

use std::borrow::Cow;

use nvml_wrapper::sys_exports::field_id as id;

use super::{
    ALL, Measure, Question, Round, field,
    field::{Field, FieldUnit},
    getter,
};
use crate::{
    gpu::raw,
    series::gpu::throttle::{THROTTLE_ACTIVE, THROTTLE_SECONDS_TOTAL},
};

pub(super) static QUESTIONS: &[Question] = &[
    getter("nvmlDeviceGetCurrentClocksThrottleReasons", Round::Light, ALL, &[(&THROTTLE_ACTIVE, "")], |gpu| {
        Ok(active(raw::throttle_bits(&gpu.device)?))
    }),
    time("NVML_FI_DEV_PERF_POLICY_POWER (74)", id::NVML_FI_DEV_PERF_POLICY_POWER, &["sw_power_cap"]),
    time("NVML_FI_DEV_PERF_POLICY_THERMAL (75)", id::NVML_FI_DEV_PERF_POLICY_THERMAL, &["thermal"]),
    time("NVML_FI_DEV_PERF_POLICY_SYNC_BOOST (76)", id::NVML_FI_DEV_PERF_POLICY_SYNC_BOOST, &["sync_boost"]),
    time("NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT (77)", id::NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT, &["board_limit"]),
    time(
        "NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION (78)",
        id::NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION,
        &["low_utilization"],
    ),
    time("NVML_FI_DEV_PERF_POLICY_RELIABILITY (79)", id::NVML_FI_DEV_PERF_POLICY_RELIABILITY, &["reliability"]),
    time(
        "NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS (80)",
        id::NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS,
        &["application_clocks"],
    ),
    time(
        "NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS (81)",
        id::NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS,
        &["base_clocks"],
    ),
    time(
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN (251; 269 from driver 580.82 on)",
        id::NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
        &["sw_thermal"],
    ),
    time(
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN (252; 270 from driver 580.82 on)",
        id::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
        &["hw_thermal"],
    ),
    time(
        "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN (253; 271 from driver 580.82 on)",
        id::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
        &["hw_power_brake"],
    ),
];

const fn time(call: &'static str, id: u32, reason: &'static [&'static str]) -> Question {
    field(call, Round::Light, ALL, Field::of_gpu(id, &THROTTLE_SECONDS_TOTAL, reason, FieldUnit::Nanoseconds))
}

/// Bits of `nvmlClocksEventReasons` in `nvml.h`, named alike in both series.
const REASONS: &[(u64, &str)] = &[
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

pub(super) fn active(bits: u64) -> Vec<Measure> {
    let known = REASONS.iter().fold(0, |known, (bit, _)| known | bit);
    let other = (!known, "other");
    let is_active = |(mask, reason): &(u64, &'static str)| Measure {
        series: &THROTTLE_ACTIVE,
        labels: vec![Cow::Borrowed(*reason)],
        number: if bits & mask == 0 { 0.0 } else { 1.0 },
    };
    REASONS.iter().chain([&other]).map(is_active).collect()
}
