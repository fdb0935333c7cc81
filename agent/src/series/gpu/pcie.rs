//! The PCIe link.

use super::{super::Series, GPU, Unit, counter, gauge};

pub const ROWS: &[&Series] = &[
    &PCIE_BYTES_TOTAL,
    &PCIE_REPLAYS_TOTAL,
    &PCIE_ERRORS_TOTAL,
    &PCIE_LINK_GENERATION,
    &PCIE_LINK_GENERATION_MAX,
    &PCIE_LINK_WIDTH,
    &PCIE_LINK_WIDTH_MAX,
];

pub static PCIE_BYTES_TOTAL: Series = counter(
    "plumbline_gpu_pcie_bytes_total",
    Unit::Bytes,
    &["UUID", "gpu", "simulated", "direction"],
    "hw.gpu.io",
    "NVML_FI_DEV_PCIE_COUNT_TX_BYTES, NVML_FI_DEV_PCIE_COUNT_RX_BYTES",
    "Bytes that the GPU has sent (`transmit`) and received on its PCIe link; one that wraps in the GPU goes on here.",
);

pub static PCIE_REPLAYS_TOTAL: Series = counter(
    "plumbline_gpu_pcie_replays_total",
    Unit::None,
    GPU,
    "plumbline.gpu.pcie.replays",
    "nvmlDeviceGetPcieReplayCounter",
    "Packets that had to be sent again on the GPU's PCIe link; a growing number tells of a bad link.",
);

pub static PCIE_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_pcie_errors_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "error"],
    "plumbline.gpu.pcie.errors",
    "NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS and its kin",
    "Errors of the GPU's PCIe link, by kind.",
);

pub static PCIE_LINK_GENERATION: Series = gauge(
    "plumbline_gpu_pcie_link_generation",
    Unit::None,
    GPU,
    "plumbline.gpu.pcie.link.generation",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "Generation that the PCIe link runs at; an idle GPU lowers it.",
);

pub static PCIE_LINK_GENERATION_MAX: Series = gauge(
    "plumbline_gpu_pcie_link_generation_max",
    Unit::None,
    GPU,
    "plumbline.gpu.pcie.link.generation.max",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "Highest generation that GPU and slot can both run at.",
);

pub static PCIE_LINK_WIDTH: Series = gauge(
    "plumbline_gpu_pcie_link_width",
    Unit::None,
    GPU,
    "plumbline.gpu.pcie.link.width",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "Lanes that the PCIe link runs with; fewer than there could be tell of a bad slot.",
);

pub static PCIE_LINK_WIDTH_MAX: Series = gauge(
    "plumbline_gpu_pcie_link_width_max",
    Unit::None,
    GPU,
    "plumbline.gpu.pcie.link.width.max",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "Most lanes that GPU and slot can both run with.",
);
