//! What the GPUs' driver says of them. `gpu` is the UUID; `simulated` is `true` when the library that answers is the
//! test bench's, so that no made-up number passes for a measured one.
//!
//! A GPU that does not know an answer has no such series: absent is not zero.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] = &[
    &INFO,
    &UP,
    &UTILIZATION_RATIO,
    &MEMORY_UTILIZATION_RATIO,
    &MEMORY_USED_BYTES,
    &MEMORY_TOTAL_BYTES,
    &SM_CLOCK_HERTZ,
    &MEMORY_CLOCK_HERTZ,
    &MAX_SM_CLOCK_HERTZ,
    &TEMPERATURE_CELSIUS,
    &MEMORY_TEMPERATURE_CELSIUS,
    &POWER_WATTS,
    &POWER_LIMIT_WATTS,
    &ENERGY_JOULES_TOTAL,
    &THROTTLE_ACTIVE,
    &THROTTLE_SECONDS_TOTAL,
    &MEMORY_ERRORS_TOTAL,
    &NVLINK_UP,
    &PCIE_REPLAYS_TOTAL,
];

const GPU: &[&str] = &["gpu", "simulated"];
const GPU_REASON: &[&str] = &["gpu", "simulated", "reason"];

pub static INFO: Series = Series {
    name: "plumbline_gpu_info",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Always 1: a GPU that the driver has listed since the daemon started, and what it is.",
    source: "nvmlDeviceGetUUID, nvmlDeviceGetName, nvmlDeviceGetPciInfo_v3, nvmlSystemGetDriverVersion",
    otel: "plumbline.gpu.info",
    labels: &["gpu", "simulated", "index", "name", "pci_bus_id", "driver"],
};

pub static UP: Series = Series {
    name: "plumbline_gpu_up",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Whether the GPU answered at least one question of the newest round (1) or fell silent since it was listed (0).",
    source: "all NVML calls",
    otel: "plumbline.gpu.up",
    labels: GPU,
};

pub static UTILIZATION_RATIO: Series = Series {
    name: "plumbline_gpu_utilization_ratio",
    kind: Kind::Gauge,
    unit: Unit::Ratio,
    help: "Share of the driver's last sampling period in which at least one kernel was on the GPU, 0 to 1; not how much \
           of the GPU it filled, and 1 also when a kernel only waits.",
    source: "nvmlDeviceGetUtilizationRates gpu",
    otel: "plumbline.gpu.utilization",
    labels: GPU,
};

pub static MEMORY_UTILIZATION_RATIO: Series = Series {
    name: "plumbline_gpu_memory_utilization_ratio",
    kind: Kind::Gauge,
    unit: Unit::Ratio,
    help: "Share of the driver's last sampling period in which the GPU's memory was read or written, 0 to 1; not how \
           much of it is allocated.",
    source: "nvmlDeviceGetUtilizationRates memory",
    otel: "plumbline.gpu.memory.utilization",
    labels: GPU,
};

pub static MEMORY_USED_BYTES: Series = Series {
    name: "plumbline_gpu_memory_used_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    help: "Memory of the GPU that is allocated, without what the driver reserves for itself.",
    source: "nvmlDeviceGetMemoryInfo_v2 used",
    otel: "plumbline.gpu.memory.used",
    labels: GPU,
};

pub static MEMORY_TOTAL_BYTES: Series = Series {
    name: "plumbline_gpu_memory_total_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    help: "Memory that the GPU has, with what the driver reserves for itself.",
    source: "nvmlDeviceGetMemoryInfo_v2 total",
    otel: "plumbline.gpu.memory.total",
    labels: GPU,
};

pub static SM_CLOCK_HERTZ: Series = Series {
    name: "plumbline_gpu_sm_clock_hertz",
    kind: Kind::Gauge,
    unit: Unit::Hertz,
    help: "Clock of the streaming multiprocessors at the time of asking.",
    source: "nvmlDeviceGetClockInfo NVML_CLOCK_SM",
    otel: "plumbline.gpu.sm_clock",
    labels: GPU,
};

pub static MEMORY_CLOCK_HERTZ: Series = Series {
    name: "plumbline_gpu_memory_clock_hertz",
    kind: Kind::Gauge,
    unit: Unit::Hertz,
    help: "Clock of the GPU's memory at the time of asking.",
    source: "nvmlDeviceGetClockInfo NVML_CLOCK_MEM",
    otel: "plumbline.gpu.memory_clock",
    labels: GPU,
};

pub static MAX_SM_CLOCK_HERTZ: Series = Series {
    name: "plumbline_gpu_max_sm_clock_hertz",
    kind: Kind::Gauge,
    unit: Unit::Hertz,
    help: "Highest clock that the streaming multiprocessors can be given.",
    source: "nvmlDeviceGetMaxClockInfo NVML_CLOCK_SM",
    otel: "plumbline.gpu.max_sm_clock",
    labels: GPU,
};

pub static TEMPERATURE_CELSIUS: Series = Series {
    name: "plumbline_gpu_temperature_celsius",
    kind: Kind::Gauge,
    unit: Unit::Celsius,
    help: "Temperature of the GPU's die.",
    source: "nvmlDeviceGetTemperature NVML_TEMPERATURE_GPU",
    otel: "plumbline.gpu.temperature",
    labels: GPU,
};

pub static MEMORY_TEMPERATURE_CELSIUS: Series = Series {
    name: "plumbline_gpu_memory_temperature_celsius",
    kind: Kind::Gauge,
    unit: Unit::Celsius,
    help: "Temperature of the GPU's memory.",
    source: "nvmlDeviceGetFieldValues NVML_FI_DEV_MEMORY_TEMP (82)",
    otel: "plumbline.gpu.memory_temperature",
    labels: GPU,
};

pub static POWER_WATTS: Series = Series {
    name: "plumbline_gpu_power_watts",
    kind: Kind::Gauge,
    unit: Unit::Watts,
    help: "Power that the GPU draws; newer GPUs report the mean of the last second, GA100 and older ones the instant.",
    source: "nvmlDeviceGetPowerUsage",
    otel: "plumbline.gpu.power",
    labels: GPU,
};

pub static POWER_LIMIT_WATTS: Series = Series {
    name: "plumbline_gpu_power_limit_watts",
    kind: Kind::Gauge,
    unit: Unit::Watts,
    help: "Power limit in force, the lowest of all that were set.",
    source: "nvmlDeviceGetEnforcedPowerLimit",
    otel: "plumbline.gpu.power_limit",
    labels: GPU,
};

pub static ENERGY_JOULES_TOTAL: Series = Series {
    name: "plumbline_gpu_energy_joules_total",
    kind: Kind::Counter,
    unit: Unit::Joules,
    help: "Energy that the GPU has consumed since its driver was loaded.",
    source: "nvmlDeviceGetTotalEnergyConsumption",
    otel: "plumbline.gpu.energy",
    labels: GPU,
};

pub static THROTTLE_ACTIVE: Series = Series {
    name: "plumbline_gpu_throttle_active",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Whether the reason kept the clocks from being higher at the time of asking (1) or not (0); several may at \
           once, and `other` is a reason that this version does not know.",
    source: "nvmlDeviceGetCurrentClocksThrottleReasons",
    otel: "plumbline.gpu.throttle.active",
    labels: GPU_REASON,
};

pub static THROTTLE_SECONDS_TOTAL: Series = Series {
    name: "plumbline_gpu_throttle_seconds_total",
    kind: Kind::Counter,
    unit: Unit::Seconds,
    help: "Time for which the reason has kept the clocks down, counted by the driver, so that no burst between two \
           readings is missed.",
    source: "nvmlDeviceGetFieldValues 74-81 and 251-253 (269-271 from driver 580.82 on)",
    otel: "plumbline.gpu.throttle.time",
    labels: GPU_REASON,
};

pub static MEMORY_ERRORS_TOTAL: Series = Series {
    name: "plumbline_gpu_memory_errors_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Errors of the GPU's memory since the driver was loaded; `uncorrected` ones have cost what was in it.",
    source: "nvmlDeviceGetFieldValues 4 (NVML_FI_DEV_ECC_DBE_VOL_TOTAL)",
    otel: "plumbline.gpu.memory.errors",
    labels: &["gpu", "simulated", "kind"],
};

pub static NVLINK_UP: Series = Series {
    name: "plumbline_gpu_nvlink_up",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Whether the NVLink of the GPU is active (1) or not (0).",
    source: "nvmlDeviceGetNvLinkState",
    otel: "plumbline.gpu.nvlink.up",
    labels: &["gpu", "simulated", "link"],
};

pub static PCIE_REPLAYS_TOTAL: Series = Series {
    name: "plumbline_gpu_pcie_replays_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Packets that had to be sent again on the GPU's PCIe link; a growing number tells of a bad link.",
    source: "nvmlDeviceGetPcieReplayCounter",
    otel: "plumbline.gpu.pcie.replays",
    labels: GPU,
};
