//! NVLink between GPUs and switches, and NVLink-C2C to the CPU.

use super::{super::Series, GPU, Unit, counter, gauge};

pub const ROWS: &[&Series] = &[
    &NVLINK_BYTES_TOTAL,
    &NVLINK_RAW_BYTES_TOTAL,
    &NVLINK_UP,
    &NVLINK_SPEED_BYTES_PER_SECOND,
    &NVLINK_ERRORS_TOTAL,
    &NVLINK_LINK_ERRORS_TOTAL,
    &NVLINK_RECOVERIES_TOTAL,
    &NVLINK_SWITCH_LINKS,
    &C2C_LINK_UP,
    &C2C_SPEED_BYTES_PER_SECOND,
    &C2C_ERRORS_TOTAL,
];

const DIRECTION: &[&str] = &["UUID", "gpu", "simulated", "direction"];
const LINK: &[&str] = &["UUID", "gpu", "simulated", "link"];

pub static NVLINK_BYTES_TOTAL: Series = counter(
    "plumbline_gpu_nvlink_bytes_total",
    Unit::Bytes,
    DIRECTION,
    "plumbline.gpu.nvlink.io",
    "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX and _RX, scope 0xFFFFFFFF (all links), KiB",
    "Payload that the GPU has sent (`transmit`) and received on all its NVLinks together.",
);

pub static NVLINK_RAW_BYTES_TOTAL: Series = counter(
    "plumbline_gpu_nvlink_raw_bytes_total",
    Unit::Bytes,
    DIRECTION,
    "plumbline.gpu.nvlink.raw_io",
    "NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX and _RX, scope 0xFFFFFFFF (all links), KiB",
    "Payload with the protocol's own bytes, on all NVLinks together.",
);

pub static NVLINK_UP: Series = gauge(
    "plumbline_gpu_nvlink_up",
    Unit::None,
    LINK,
    "plumbline.gpu.nvlink.up",
    "nvmlDeviceGetNvLinkState",
    "Whether the NVLink of the GPU is active (1) or not (0).",
);

pub static NVLINK_SPEED_BYTES_PER_SECOND: Series = gauge(
    "plumbline_gpu_nvlink_speed_bytes_per_second",
    Unit::None,
    LINK,
    "plumbline.gpu.nvlink.speed",
    "NVML_FI_DEV_NVLINK_GET_SPEED, MB/s",
    "What the link can carry in one direction; 0 while it is down.",
);

pub static NVLINK_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_nvlink_errors_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "error"],
    "plumbline.gpu.nvlink.errors",
    "NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL and its kin",
    "Errors on all NVLinks of the GPU together: `crc_flit`, `crc_data`, `replay`, `recovery`; before Blackwell.",
);

pub static NVLINK_LINK_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_nvlink_link_errors_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "error", "link"],
    "plumbline.gpu.nvlink.link.errors",
    "NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY and its kin; NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS and its kin from Blackwell on",
    "Errors of one NVLink, by kind.",
);

pub static NVLINK_RECOVERIES_TOTAL: Series = counter(
    "plumbline_gpu_nvlink_recoveries_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "outcome", "link"],
    "plumbline.gpu.nvlink.recoveries",
    "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS, _FAILED_EVENTS; NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY",
    "How often the link was trained anew while work went on, and whether it `succeeded` or `failed`; `unknown` before \
     Blackwell.",
);

pub static NVLINK_SWITCH_LINKS: Series = gauge(
    "plumbline_gpu_nvlink_switch_links",
    Unit::None,
    GPU,
    "plumbline.gpu.nvlink.switch_links",
    "NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT",
    "NVLinks of the GPU that lead to an NVSwitch.",
);

pub static C2C_LINK_UP: Series = gauge(
    "plumbline_gpu_c2c_link_up",
    Unit::None,
    LINK,
    "plumbline.gpu.c2c.link.up",
    "NVML_FI_DEV_C2C_LINK_GET_STATUS",
    "Whether the NVLink-C2C link to the CPU is active (1) or not (0); Grace Hopper, Grace Blackwell.",
);

pub static C2C_SPEED_BYTES_PER_SECOND: Series = gauge(
    "plumbline_gpu_c2c_speed_bytes_per_second",
    Unit::None,
    LINK,
    "plumbline.gpu.c2c.speed",
    "NVML_FI_DEV_C2C_LINK_GET_MAX_BW, MB/s",
    "What the NVLink-C2C link can carry at most.",
);

pub static C2C_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_c2c_errors_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "error", "link"],
    "plumbline.gpu.c2c.errors",
    "NVML_FI_DEV_C2C_LINK_ERROR_INTR, _REPLAY, _REPLAY_B2B",
    "Errors of the NVLink-C2C link: `interrupt`, `replay`, `replay_back_to_back`.",
);
