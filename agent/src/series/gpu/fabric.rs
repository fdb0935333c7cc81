//! The NVLink fabric: whether the fabric manager has made the GPU part of it, and how it fares there.

use super::{super::Series, GPU, Unit, gauge};

pub const ROWS: &[&Series] = &[&FABRIC_STATE, &FABRIC_STATUS, &FABRIC_HEALTH, &FABRIC_FAULT, &FABRIC_INFO];

pub static FABRIC_STATE: Series = gauge(
    "plumbline_gpu_fabric_state",
    Unit::None,
    GPU,
    "plumbline.gpu.fabric.state",
    "nvmlDeviceGetGpuFabricInfoV state",
    "How far the fabric manager is with the GPU: 1 not begun, 2 in progress, 3 done; absent without a fabric.",
);

pub static FABRIC_STATUS: Series = gauge(
    "plumbline_gpu_fabric_status",
    Unit::None,
    GPU,
    "plumbline.gpu.fabric.status",
    "nvmlDeviceGetGpuFabricInfoV status",
    "How it ended, once it is done: 0 well, else the error as an `nvmlReturn_t`.",
);

pub static FABRIC_HEALTH: Series = gauge(
    "plumbline_gpu_fabric_health",
    Unit::None,
    GPU,
    "plumbline.gpu.fabric.health",
    "nvmlDeviceGetGpuFabricInfoV healthSummary",
    "The driver's summary: 1 healthy, 2 unhealthy, 3 limited.",
);

pub static FABRIC_FAULT: Series = gauge(
    "plumbline_gpu_fabric_fault",
    Unit::None,
    &["UUID", "gpu", "simulated", "fault"],
    "plumbline.gpu.fabric.fault",
    "nvmlDeviceGetGpuFabricInfoV healthMask",
    "Whether the GPU's part of the fabric suffers from this (1) or not (0); what the driver cannot tell is absent.",
);

pub static FABRIC_INFO: Series = gauge(
    "plumbline_gpu_fabric_info",
    Unit::None,
    &["UUID", "gpu", "simulated", "cluster", "clique"],
    "plumbline.gpu.fabric.info",
    "nvmlDeviceGetGpuFabricInfoV clusterUuid, cliqueId",
    "Always 1: GPUs of the same cluster and clique reach each other by NVLink, whichever node they are in.",
);
