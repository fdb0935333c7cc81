//! Clocks and performance state.

use nvml_wrapper::{
    enum_wrappers::device::{Clock, PerformanceState},
    error::NvmlError,
};

use super::{ALL, DATACENTER, Question, Round, from_mega, getter, measure, one_labelled};
use crate::series::gpu::clock::{CLOCK_APPLICATION_HERTZ, CLOCK_HERTZ, CLOCK_MAX_HERTZ, PERFORMANCE_STATE};

pub(super) static QUESTIONS: &[Question] = &[
    getter("nvmlDeviceGetClockInfo(NVML_CLOCK_SM)", Round::Light, ALL, &[(&CLOCK_HERTZ, "sm")], |gpu| {
        one_labelled(&CLOCK_HERTZ, "sm", gpu.device.clock_info(Clock::SM), from_mega)
    }),
    getter("nvmlDeviceGetClockInfo(NVML_CLOCK_MEM)", Round::Light, ALL, &[(&CLOCK_HERTZ, "memory")], |gpu| {
        one_labelled(&CLOCK_HERTZ, "memory", gpu.device.clock_info(Clock::Memory), from_mega)
    }),
    getter("nvmlDeviceGetClockInfo(NVML_CLOCK_VIDEO)", Round::Full, ALL, &[(&CLOCK_HERTZ, "video")], |gpu| {
        one_labelled(&CLOCK_HERTZ, "video", gpu.device.clock_info(Clock::Video), from_mega)
    }),
    getter("nvmlDeviceGetMaxClockInfo(NVML_CLOCK_SM)", Round::Full, ALL, &[(&CLOCK_MAX_HERTZ, "sm")], |gpu| {
        one_labelled(&CLOCK_MAX_HERTZ, "sm", gpu.device.max_clock_info(Clock::SM), from_mega)
    }),
    getter("nvmlDeviceGetMaxClockInfo(NVML_CLOCK_MEM)", Round::Full, ALL, &[(&CLOCK_MAX_HERTZ, "memory")], |gpu| {
        one_labelled(&CLOCK_MAX_HERTZ, "memory", gpu.device.max_clock_info(Clock::Memory), from_mega)
    }),
    getter("nvmlDeviceGetMaxClockInfo(NVML_CLOCK_VIDEO)", Round::Full, ALL, &[(&CLOCK_MAX_HERTZ, "video")], |gpu| {
        one_labelled(&CLOCK_MAX_HERTZ, "video", gpu.device.max_clock_info(Clock::Video), from_mega)
    }),
    getter(
        "nvmlDeviceGetApplicationsClock(NVML_CLOCK_SM)",
        Round::Full,
        DATACENTER,
        &[(&CLOCK_APPLICATION_HERTZ, "sm")],
        |gpu| one_labelled(&CLOCK_APPLICATION_HERTZ, "sm", gpu.device.applications_clock(Clock::SM), from_mega),
    ),
    getter(
        "nvmlDeviceGetApplicationsClock(NVML_CLOCK_MEM)",
        Round::Full,
        DATACENTER,
        &[(&CLOCK_APPLICATION_HERTZ, "memory")],
        |gpu| one_labelled(&CLOCK_APPLICATION_HERTZ, "memory", gpu.device.applications_clock(Clock::Memory), from_mega),
    ),
    getter("nvmlDeviceGetPerformanceState", Round::Light, ALL, &[(&PERFORMANCE_STATE, "")], |gpu| {
        let state = gpu.device.performance_state()?;
        let number = STATES.iter().position(|other| *other == state);
        let number = number.and_then(|number| u32::try_from(number).ok()).ok_or(NvmlError::NoData)?;
        Ok(vec![measure(&PERFORMANCE_STATE, f64::from(number))])
    }),
];

/// `NVML_PSTATE_0` to `NVML_PSTATE_15`.
const STATES: [PerformanceState; 16] = [
    PerformanceState::Zero,
    PerformanceState::One,
    PerformanceState::Two,
    PerformanceState::Three,
    PerformanceState::Four,
    PerformanceState::Five,
    PerformanceState::Six,
    PerformanceState::Seven,
    PerformanceState::Eight,
    PerformanceState::Nine,
    PerformanceState::Ten,
    PerformanceState::Eleven,
    PerformanceState::Twelve,
    PerformanceState::Thirteen,
    PerformanceState::Fourteen,
    PerformanceState::Fifteen,
];
