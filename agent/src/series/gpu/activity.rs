//! How busy the GPU is: by the driver's own sampling, and on Hopper and newer by the counters of GPM.

use super::{super::Series, GPU, Unit, gauge};

pub const ROWS: &[&Series] = &[
    &UTILIZATION_RATIO,
    &MEMORY_UTILIZATION_RATIO,
    &VIDEO_UTILIZATION_RATIO,
    &GRAPHICS_ACTIVE_RATIO,
    &SM_ACTIVE_RATIO,
    &SM_OCCUPANCY_RATIO,
    &PIPE_ACTIVE_RATIO,
    &DRAM_ACTIVE_RATIO,
    &PCIE_THROUGHPUT_BYTES_PER_SECOND,
    &NVLINK_THROUGHPUT_BYTES_PER_SECOND,
];

const DIRECTION: &[&str] = &["UUID", "gpu", "simulated", "direction"];

pub static UTILIZATION_RATIO: Series = gauge(
    "plumbline_gpu_utilization_ratio",
    Unit::Ratio,
    GPU,
    "hw.gpu.utilization",
    "nvmlDeviceGetUtilizationRates gpu",
    "Share of the driver's last sampling period in which at least one kernel was on the GPU, 0 to 1; not how much of the \
     GPU it filled, and 1 also when a kernel only waits.",
);

pub static MEMORY_UTILIZATION_RATIO: Series = gauge(
    "plumbline_gpu_memory_utilization_ratio",
    Unit::Ratio,
    GPU,
    "plumbline.gpu.memory.utilization",
    "nvmlDeviceGetUtilizationRates memory",
    "Share of the driver's last sampling period in which the GPU's memory was read or written, 0 to 1; not how much of it \
     is allocated.",
);

pub static VIDEO_UTILIZATION_RATIO: Series = gauge(
    "plumbline_gpu_video_utilization_ratio",
    Unit::Ratio,
    &["UUID", "gpu", "simulated", "unit"],
    "plumbline.gpu.video.utilization",
    "nvmlDeviceGetEncoderUtilization, nvmlDeviceGetDecoderUtilization",
    "Share of the driver's last sampling period in which the `encoder` or `decoder` worked, 0 to 1.",
);

pub static GRAPHICS_ACTIVE_RATIO: Series = gauge(
    "plumbline_gpu_graphics_active_ratio",
    Unit::Ratio,
    GPU,
    "plumbline.gpu.graphics.active",
    "GPM 1 (NVML_GPM_METRIC_GRAPHICS_UTIL)",
    "Share of the time since the reading before in which any compute or graphics engine was active, 0 to 1.",
);

pub static SM_ACTIVE_RATIO: Series = gauge(
    "plumbline_gpu_sm_active_ratio",
    Unit::Ratio,
    GPU,
    "plumbline.gpu.sm.active",
    "GPM 2 (NVML_GPM_METRIC_SM_UTIL)",
    "Share of time in which a streaming multiprocessor had work, over all of them, since the reading before, 0 to 1.",
);

pub static SM_OCCUPANCY_RATIO: Series = gauge(
    "plumbline_gpu_sm_occupancy_ratio",
    Unit::Ratio,
    GPU,
    "plumbline.gpu.sm.occupancy",
    "GPM 3 (NVML_GPM_METRIC_SM_OCCUPANCY)",
    "Warps that were resident, of all that could be, since the reading before, 0 to 1.",
);

pub static PIPE_ACTIVE_RATIO: Series = gauge(
    "plumbline_gpu_pipe_active_ratio",
    Unit::Ratio,
    &["UUID", "gpu", "simulated", "pipe"],
    "plumbline.gpu.pipe.active",
    "GPM 4 to 7, 9, 11 to 13",
    "Share of time in which the pipe of the streaming multiprocessors worked, since the reading before, 0 to 1: \
     `tensor` is any tensor pipe, `tensor_fp64`, `tensor_fp16` and `tensor_int` each of them.",
);

pub static DRAM_ACTIVE_RATIO: Series = gauge(
    "plumbline_gpu_dram_active_ratio",
    Unit::Ratio,
    GPU,
    "plumbline.gpu.dram.active",
    "GPM 10 (NVML_GPM_METRIC_DRAM_BW_UTIL)",
    "Bandwidth of the GPU's memory that was used, of all that there is, since the reading before, 0 to 1.",
);

pub static PCIE_THROUGHPUT_BYTES_PER_SECOND: Series = gauge(
    "plumbline_gpu_pcie_throughput_bytes_per_second",
    Unit::None,
    DIRECTION,
    "plumbline.gpu.pcie.throughput",
    "GPM 20, 21 (NVML_GPM_METRIC_PCIE_TX_PER_SEC, _RX_PER_SEC), MiB/s; before Hopper nvmlDeviceGetPcieThroughput, kB/s",
    "Traffic on the PCIe link since the reading before; before Hopper in 20 ms at the time of the reading.",
);

pub static NVLINK_THROUGHPUT_BYTES_PER_SECOND: Series = gauge(
    "plumbline_gpu_nvlink_throughput_bytes_per_second",
    Unit::None,
    DIRECTION,
    "plumbline.gpu.nvlink.throughput",
    "GPM 60, 61 (NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, _TX_PER_SEC), MiB/s",
    "Traffic on all NVLinks together since the reading before.",
);
