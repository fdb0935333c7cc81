//! Power and energy.

use super::{super::Series, GPU, Unit, counter, gauge};

pub const ROWS: &[&Series] = &[
    &POWER_WATTS,
    &POWER_INSTANT_WATTS,
    &POWER_AVERAGE_WATTS,
    &MODULE_POWER_WATTS,
    &POWER_LIMIT_WATTS,
    &ENERGY_JOULES_TOTAL,
];

pub static POWER_WATTS: Series = gauge(
    "plumbline_gpu_power_watts",
    Unit::Watts,
    GPU,
    "hw.power",
    "nvmlDeviceGetPowerUsage",
    "Power that the GPU draws; newer GPUs report the mean of the last second, GA100 and older ones the instant.",
);

pub static POWER_INSTANT_WATTS: Series = gauge(
    "plumbline_gpu_power_instant_watts",
    Unit::Watts,
    GPU,
    "plumbline.gpu.power.instant",
    "NVML_FI_DEV_POWER_INSTANT, scope 0",
    "Power that the GPU draws at the time of asking.",
);

pub static POWER_AVERAGE_WATTS: Series = gauge(
    "plumbline_gpu_power_average_watts",
    Unit::Watts,
    GPU,
    "plumbline.gpu.power.average",
    "NVML_FI_DEV_POWER_AVERAGE, scope 0",
    "Power that the GPU drew in the last second, on average.",
);

pub static MODULE_POWER_WATTS: Series = gauge(
    "plumbline_gpu_module_power_watts",
    Unit::Watts,
    GPU,
    "plumbline.gpu.module.power",
    "NVML_FI_DEV_POWER_INSTANT, scope 1",
    "Power that the whole module draws at the time of asking: on Grace Hopper and Grace Blackwell, with the CPU.",
);

pub static POWER_LIMIT_WATTS: Series = gauge(
    "plumbline_gpu_power_limit_watts",
    Unit::Watts,
    GPU,
    "hw.power.limit",
    "nvmlDeviceGetEnforcedPowerLimit",
    "Power limit in force, the lowest of all that were set.",
);

pub static ENERGY_JOULES_TOTAL: Series = counter(
    "plumbline_gpu_energy_joules_total",
    Unit::Joules,
    GPU,
    "hw.energy",
    "nvmlDeviceGetTotalEnergyConsumption",
    "Energy that the GPU has consumed since its driver was loaded.",
);
