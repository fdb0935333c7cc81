//! The GPU's memory: what of it is taken. Its errors are in `ecc`.

use super::{super::Series, GPU, Unit, gauge};

pub const ROWS: &[&Series] = &[&MEMORY_USED_BYTES, &MEMORY_FREE_BYTES, &MEMORY_RESERVED_BYTES, &MEMORY_TOTAL_BYTES];

pub static MEMORY_USED_BYTES: Series = gauge(
    "plumbline_gpu_memory_used_bytes",
    Unit::Bytes,
    GPU,
    "hw.gpu.memory.usage",
    "nvmlDeviceGetMemoryInfo_v2 used",
    "Memory of the GPU that is allocated, without what the driver reserves for itself.",
);

pub static MEMORY_FREE_BYTES: Series = gauge(
    "plumbline_gpu_memory_free_bytes",
    Unit::Bytes,
    GPU,
    "plumbline.gpu.memory.free",
    "nvmlDeviceGetMemoryInfo_v2 free",
    "Memory of the GPU that nobody has allocated.",
);

pub static MEMORY_RESERVED_BYTES: Series = gauge(
    "plumbline_gpu_memory_reserved_bytes",
    Unit::Bytes,
    GPU,
    "plumbline.gpu.memory.reserved",
    "nvmlDeviceGetMemoryInfo_v2 reserved",
    "Memory that the driver and the GPU's firmware keep for themselves.",
);

pub static MEMORY_TOTAL_BYTES: Series = gauge(
    "plumbline_gpu_memory_total_bytes",
    Unit::Bytes,
    GPU,
    "hw.gpu.memory.limit",
    "nvmlDeviceGetMemoryInfo_v2 total",
    "Memory that the GPU has, with what the driver reserves for itself.",
);
