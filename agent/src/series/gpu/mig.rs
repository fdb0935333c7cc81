//! GPU instances: the parts of a GPU under MIG. What they have together is in the other files, of the whole GPU.
//!
//! `UUID` and `gpu` are those of the whole, `GPU_I_ID` and `GPU_I_PROFILE` name the instance, as dcgm-exporter has them.

use super::{super::Series, Unit, gauge};

pub const ROWS: &[&Series] = &[
    &MIG_MODE,
    &MIG_INFO,
    &MIG_MEMORY_USED_BYTES,
    &MIG_MEMORY_FREE_BYTES,
    &MIG_MEMORY_TOTAL_BYTES,
    &MIG_GRAPHICS_ACTIVE_RATIO,
    &MIG_SM_ACTIVE_RATIO,
    &MIG_SM_OCCUPANCY_RATIO,
    &MIG_PIPE_ACTIVE_RATIO,
    &MIG_DRAM_ACTIVE_RATIO,
];

/// The labels that every number of an instance begins with.
pub const INSTANCE: &[&str] = &["UUID", "gpu", "simulated", "GPU_I_ID", "GPU_I_PROFILE"];

pub static MIG_MODE: Series = gauge(
    "plumbline_gpu_mig_mode",
    Unit::None,
    &["UUID", "gpu", "simulated", "when"],
    "plumbline.gpu.mig.mode",
    "nvmlDeviceGetMigMode",
    "Whether the GPU is divided (1) or not (0), `now` and after the next reset (`pending`).",
);

pub static MIG_INFO: Series = gauge(
    "plumbline_gpu_mig_info",
    Unit::None,
    &["UUID", "gpu", "simulated", "GPU_I_ID", "GPU_I_PROFILE", "compute_instance", "mig"],
    "plumbline.gpu.mig.info",
    "nvmlDeviceGetMigDeviceHandleByIndex, nvmlDeviceGetGpuInstanceId, nvmlDeviceGetComputeInstanceId, nvmlDeviceGetUUID, \
     nvmlDeviceGetName",
    "Always 1: a MIG device, which is a compute instance of a GPU instance; `mig` is its UUID.",
);

pub static MIG_MEMORY_USED_BYTES: Series = gauge(
    "plumbline_gpu_mig_memory_used_bytes",
    Unit::Bytes,
    INSTANCE,
    "plumbline.gpu.mig.memory.usage",
    "nvmlDeviceGetMemoryInfo_v2 used, of the MIG device",
    "Memory of the GPU instance that is allocated, by all its compute instances.",
);

pub static MIG_MEMORY_FREE_BYTES: Series = gauge(
    "plumbline_gpu_mig_memory_free_bytes",
    Unit::Bytes,
    INSTANCE,
    "plumbline.gpu.mig.memory.free",
    "nvmlDeviceGetMemoryInfo_v2 free, of the MIG device",
    "Memory of the GPU instance that nobody has allocated.",
);

pub static MIG_MEMORY_TOTAL_BYTES: Series = gauge(
    "plumbline_gpu_mig_memory_total_bytes",
    Unit::Bytes,
    INSTANCE,
    "plumbline.gpu.mig.memory.limit",
    "nvmlDeviceGetMemoryInfo_v2 total, of the MIG device",
    "Memory that the GPU instance has.",
);

pub static MIG_GRAPHICS_ACTIVE_RATIO: Series = gauge(
    "plumbline_gpu_mig_graphics_active_ratio",
    Unit::Ratio,
    INSTANCE,
    "plumbline.gpu.mig.graphics.active",
    "GPM 1 (NVML_GPM_METRIC_GRAPHICS_UTIL) of the instance",
    "Share of the time since the reading before in which an engine of the instance was active, 0 to 1.",
);

pub static MIG_SM_ACTIVE_RATIO: Series = gauge(
    "plumbline_gpu_mig_sm_active_ratio",
    Unit::Ratio,
    INSTANCE,
    "plumbline.gpu.mig.sm.active",
    "GPM 2 (NVML_GPM_METRIC_SM_UTIL) of the instance",
    "Share of time in which a streaming multiprocessor of the instance had work, since the reading before, 0 to 1.",
);

pub static MIG_SM_OCCUPANCY_RATIO: Series = gauge(
    "plumbline_gpu_mig_sm_occupancy_ratio",
    Unit::Ratio,
    INSTANCE,
    "plumbline.gpu.mig.sm.occupancy",
    "GPM 3 (NVML_GPM_METRIC_SM_OCCUPANCY) of the instance",
    "Warps that were resident in the instance, of all that could be, since the reading before, 0 to 1.",
);

pub static MIG_PIPE_ACTIVE_RATIO: Series = gauge(
    "plumbline_gpu_mig_pipe_active_ratio",
    Unit::Ratio,
    &["UUID", "gpu", "simulated", "GPU_I_ID", "GPU_I_PROFILE", "pipe"],
    "plumbline.gpu.mig.pipe.active",
    "GPM 4 to 7, 9, 11 to 13 of the instance",
    "Share of time in which the pipe of the instance's streaming multiprocessors worked, as `plumbline_gpu_pipe_active_ratio`.",
);

pub static MIG_DRAM_ACTIVE_RATIO: Series = gauge(
    "plumbline_gpu_mig_dram_active_ratio",
    Unit::Ratio,
    INSTANCE,
    "plumbline.gpu.mig.dram.active",
    "GPM 10 (NVML_GPM_METRIC_DRAM_BW_UTIL) of the instance",
    "Bandwidth of the instance's memory that was used, of all that it has, since the reading before, 0 to 1.",
);

#[cfg(test)]
mod tests {
    use super::{super::GPU, *};

    #[test]
    fn an_instance_is_named_behind_its_gpu() {
        assert!(ROWS.iter().all(|series| series.labels.starts_with(GPU)));
    }
}
