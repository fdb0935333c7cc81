//! Errors of the GPU's memory, and what the GPU did about them.

use super::{super::Series, GPU, Unit, counter, gauge};

pub const ROWS: &[&Series] = &[
    &SRAM_ERRORS_TOTAL,
    &SRAM_THRESHOLD_EXCEEDED,
    &MEMORY_ERRORS_TOTAL,
    &MEMORY_ERRORS_BY_LOCATION_TOTAL,
    &MEMORY_ERRORS_EVER_TOTAL,
    &REMAPPED_ROWS_TOTAL,
    &ROW_REMAP_PENDING,
    &ROW_REMAP_FAILED,
    &RETIRED_PAGES_TOTAL,
    &PAGE_RETIREMENT_PENDING,
    &RECOVERY_ACTION,
];

const KIND: &[&str] = &["UUID", "gpu", "simulated", "kind"];

pub static MEMORY_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_memory_errors_total",
    Unit::None,
    KIND,
    "hw.errors",
    "NVML_FI_DEV_ECC_SBE_VOL_TOTAL, NVML_FI_DEV_ECC_DBE_VOL_TOTAL",
    "Errors of the GPU's memory since the driver was loaded; `uncorrected` ones have cost what was in it.",
);

pub static MEMORY_ERRORS_BY_LOCATION_TOTAL: Series = counter(
    "plumbline_gpu_memory_errors_by_location_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "kind", "location"],
    "plumbline.gpu.memory.errors.by_location",
    "NVML_FI_DEV_ECC_SBE_VOL_L2 and its kin",
    "The same by where they were: `dram`, `l1`, `l2`, `registers`, `texture`, `cbu` (convergence barrier unit).",
);

pub static MEMORY_ERRORS_EVER_TOTAL: Series = counter(
    "plumbline_gpu_memory_errors_ever_total",
    Unit::None,
    KIND,
    "plumbline.gpu.memory.errors.ever",
    "NVML_FI_DEV_ECC_SBE_AGG_TOTAL, NVML_FI_DEV_ECC_DBE_AGG_TOTAL",
    "Errors of the GPU's memory that its InfoROM remembers, whichever driver was loaded.",
);

pub static REMAPPED_ROWS_TOTAL: Series = counter(
    "plumbline_gpu_remapped_rows_total",
    Unit::None,
    KIND,
    "plumbline.gpu.remapped_rows",
    "NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_UNC",
    "Rows of the GPU's memory that a spare one replaces, after errors of this kind; Ampere and newer.",
);

pub static ROW_REMAP_PENDING: Series = gauge(
    "plumbline_gpu_row_remap_pending",
    Unit::None,
    GPU,
    "plumbline.gpu.row_remap.pending",
    "NVML_FI_DEV_REMAPPED_PENDING",
    "Whether a row waits for a reset of the GPU to be replaced (1) or none does (0).",
);

pub static ROW_REMAP_FAILED: Series = gauge(
    "plumbline_gpu_row_remap_failed",
    Unit::None,
    GPU,
    "plumbline.gpu.row_remap.failed",
    "NVML_FI_DEV_REMAPPED_FAILURE",
    "Whether a row could not be replaced (1), so that the GPU ought to be, or not (0).",
);

pub static RETIRED_PAGES_TOTAL: Series = counter(
    "plumbline_gpu_retired_pages_total",
    Unit::None,
    KIND,
    "plumbline.gpu.retired_pages",
    "NVML_FI_DEV_RETIRED_SBE, NVML_FI_DEV_RETIRED_DBE",
    "Pages of the GPU's memory that are not used any more, after errors of this kind; before Ampere.",
);

pub static PAGE_RETIREMENT_PENDING: Series = gauge(
    "plumbline_gpu_page_retirement_pending",
    Unit::None,
    GPU,
    "plumbline.gpu.page_retirement.pending",
    "NVML_FI_DEV_RETIRED_PENDING",
    "Whether a page waits for a reboot to be retired (1) or none does (0).",
);

pub static RECOVERY_ACTION: Series = gauge(
    "plumbline_gpu_recovery_action",
    Unit::None,
    GPU,
    "plumbline.gpu.recovery_action",
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    "What the driver wants done: 0 nothing, 1 reset of the GPU, 2 reboot of the node, 3 draining of its peers, 4 draining \
     and reset; another number is one that this version does not know.",
);

pub static SRAM_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_sram_errors_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "kind"],
    "plumbline.gpu.sram.errors",
    "nvmlDeviceGetSramEccErrorStatus volatileCor, volatileUncParity, volatileUncSecDed",
    "Errors of the GPU's caches and registers since the driver was loaded: `corrected`, or not, as parity \
     (`uncorrected_parity`) or as more bits than can be mended (`uncorrected_secded`).",
);

pub static SRAM_THRESHOLD_EXCEEDED: Series = gauge(
    "plumbline_gpu_sram_threshold_exceeded",
    Unit::None,
    GPU,
    "plumbline.gpu.sram.threshold_exceeded",
    "nvmlDeviceGetSramEccErrorStatus bThresholdExceeded",
    "Whether the GPU's caches had more errors than NVIDIA takes for sound (1): the GPU is to be replaced.",
);
