//! Temperatures and their limits.

use nvml_wrapper::{
    enum_wrappers::device::{TemperatureSensor, TemperatureThreshold},
    sys_exports::field_id as id,
};

use super::{
    ALL, Question, Round, Tells,
    asker::Asker,
    field,
    field::{Field, FieldUnit},
    getter, measure, one_labelled,
};
use crate::{
    gpu::raw,
    series::gpu::temperature::{
        TEMPERATURE_CELSIUS, TEMPERATURE_LIMIT_CELSIUS, TEMPERATURE_MARGIN_CELSIUS, TEMPERATURE_MARGIN_LIMIT_CELSIUS,
    },
};

pub(super) static QUESTIONS: &[Question] = &[
    getter(
        "nvmlDeviceGetTemperature(NVML_TEMPERATURE_GPU)",
        Round::Light,
        ALL,
        &[(&TEMPERATURE_CELSIUS, "gpu")],
        |gpu| one_labelled(&TEMPERATURE_CELSIUS, "gpu", gpu.device.temperature(TemperatureSensor::Gpu), f64::from),
    ),
    field(
        "NVML_FI_DEV_MEMORY_TEMP (82)",
        Round::Light,
        "GPUs with HBM",
        Field::of_gpu(id::NVML_FI_DEV_MEMORY_TEMP, &TEMPERATURE_CELSIUS, &["memory"], FieldUnit::Celsius),
    ),
    limit(
        "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)",
        &[(&TEMPERATURE_LIMIT_CELSIUS, "shutdown")],
        |gpu| threshold(gpu, TemperatureThreshold::Shutdown, "shutdown"),
    ),
    limit(
        "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)",
        &[(&TEMPERATURE_LIMIT_CELSIUS, "slowdown")],
        |gpu| threshold(gpu, TemperatureThreshold::Slowdown, "slowdown"),
    ),
    limit(
        "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_MEM_MAX)",
        &[(&TEMPERATURE_LIMIT_CELSIUS, "memory_max")],
        |gpu| threshold(gpu, TemperatureThreshold::MemoryMax, "memory_max"),
    ),
    limit(
        "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_GPU_MAX)",
        &[(&TEMPERATURE_LIMIT_CELSIUS, "gpu_max")],
        |gpu| threshold(gpu, TemperatureThreshold::GpuMax, "gpu_max"),
    ),
    getter(
        "nvmlDeviceGetMarginTemperature",
        Round::Light,
        "Ada, Hopper and newer",
        &[(&TEMPERATURE_MARGIN_CELSIUS, "")],
        |gpu| Ok(vec![measure(&TEMPERATURE_MARGIN_CELSIUS, raw::margin_temperature(&gpu.device)?.into())]),
    ),
    margin("NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT (193)", id::NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT, &["shutdown"]),
    margin("NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT (194)", id::NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT, &["slowdown"]),
    margin("NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT (195)", id::NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT, &["memory_max"]),
    margin("NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT (196)", id::NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT, &["gpu_max"]),
];

const fn limit(call: &'static str, tells: Tells, ask: fn(&mut Asker) -> super::Answer) -> Question {
    getter(call, Round::Full, ALL, tells, ask)
}

fn threshold(gpu: &Asker, which: TemperatureThreshold, label: &'static str) -> super::Answer {
    one_labelled(&TEMPERATURE_LIMIT_CELSIUS, label, gpu.device.temperature_threshold(which), f64::from)
}

const fn margin(call: &'static str, id: u32, limit: &'static [&'static str]) -> Question {
    let of = Field::of_gpu(id, &TEMPERATURE_MARGIN_LIMIT_CELSIUS, limit, FieldUnit::CelsiusMargin);
    field(call, Round::Full, "Ada, Hopper and newer", of)
}
