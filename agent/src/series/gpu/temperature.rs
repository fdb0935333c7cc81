//! Temperatures and their limits.

use super::{super::Series, GPU, Unit, gauge};

pub const ROWS: &[&Series] =
    &[&TEMPERATURE_CELSIUS, &TEMPERATURE_LIMIT_CELSIUS, &TEMPERATURE_MARGIN_CELSIUS, &TEMPERATURE_MARGIN_LIMIT_CELSIUS];

const LIMIT: &[&str] = &["UUID", "gpu", "simulated", "limit"];

pub static TEMPERATURE_CELSIUS: Series = gauge(
    "plumbline_gpu_temperature_celsius",
    Unit::Celsius,
    &["UUID", "gpu", "simulated", "sensor"],
    "hw.temperature",
    "nvmlDeviceGetTemperature, NVML_FI_DEV_MEMORY_TEMP",
    "Temperature of the GPU's die (`gpu`) or memory.",
);

pub static TEMPERATURE_LIMIT_CELSIUS: Series = gauge(
    "plumbline_gpu_temperature_limit_celsius",
    Unit::Celsius,
    LIMIT,
    "hw.temperature.limit",
    "nvmlDeviceGetTemperatureThreshold",
    "Temperature from which on the GPU shuts down, slows down, or is beyond what it is made for (`gpu_max`, \
     `memory_max`).",
);

pub static TEMPERATURE_MARGIN_CELSIUS: Series = gauge(
    "plumbline_gpu_temperature_margin_celsius",
    Unit::Celsius,
    GPU,
    "plumbline.gpu.temperature.margin",
    "nvmlDeviceGetMarginTemperature",
    "Degrees up to the nearest slow-down (`GPU T.Limit` of nvidia-smi); Ada and newer.",
);

pub static TEMPERATURE_MARGIN_LIMIT_CELSIUS: Series = gauge(
    "plumbline_gpu_temperature_margin_limit_celsius",
    Unit::Celsius,
    LIMIT,
    "plumbline.gpu.temperature.margin.limit",
    "NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT and its kin",
    "The margin at which the GPU shuts down, slows down, or is beyond what it is made for; mostly 0 or below.",
);
