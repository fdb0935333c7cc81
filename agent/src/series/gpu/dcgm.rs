//! Names of dcgm-exporter, for dashboards, queries and alerts that were written for them: the same numbers in its units and
//! with its labels.
//!
//! What dcgm-exporter has by default and what is commonly added (`default-counters.csv`), in Prometheus' formats only. What it
//! calls a counter is a gauge in name here, since OpenMetrics would put `_total` behind it; `rate()` is the same. Its
//! `DCGM_FI_DEV_XID_ERRORS`, the last XID for ever, is not among them: `plumbline_gpu_xid_errors_total` counts.
//! Nor is `DCGM_FI_DEV_PCIE_REPLAY_COUNTER`, a name that Prometheus' own linter refuses.

use super::{
    super::{Kind, Series, Unit},
    activity, clock, ecc, memory, mig, power, temperature,
};

/// As dcgm-exporter has them, in both spellings of the host's name; the pod's are empty where nobody told, or several share. Its `modelName` is not
/// among them, since Prometheus' own linter refuses the spelling: `plumbline_gpu_info` has the name by `UUID`.
pub const LABELS: &[&str] = &[
    "gpu",
    "UUID",
    "pci_bus_id",
    "device",
    "GPU_I_ID",
    "GPU_I_PROFILE",
    "Hostname",
    "hostname",
    "DCGM_FI_DRIVER_VERSION",
    "pod",
    "namespace",
    "container",
    "simulated",
];

/// One of our numbers under another name.
#[derive(Debug)]
pub struct Alias {
    pub series: &'static Series,
    pub of: &'static Series,
    /// Whether the first of its own labels name a GPU instance.
    pub is_of_instance: bool,
    /// The values of its (other) own labels.
    pub own: &'static [&'static str],
    /// What makes dcgm-exporter's unit of ours.
    pub factor: f64,
}

const SAME: f64 = 1.0;
const MEBI: f64 = 1.0 / 1_048_576.0;
const PERCENT: f64 = 100.0;
const MEGA: f64 = 1e-6;
const MILLI: f64 = 1e3;

pub const ROWS: &[&Series] = &[
    &GPU_UTIL,
    &MEM_COPY_UTIL,
    &ENC_UTIL,
    &DEC_UTIL,
    &SM_CLOCK,
    &MEM_CLOCK,
    &GPU_TEMP,
    &MEMORY_TEMP,
    &POWER_USAGE,
    &TOTAL_ENERGY,
    &FB_FREE,
    &FB_USED,
    &FB_RESERVED,
    &FB_TOTAL,
    &UNCORRECTABLE_REMAPPED_ROWS,
    &CORRECTABLE_REMAPPED_ROWS,
    &ROW_REMAP_FAILURE,
    &ECC_SBE_VOL,
    &ECC_DBE_VOL,
    &GR_ENGINE_ACTIVE,
    &SM_ACTIVE,
    &SM_OCCUPANCY,
    &PIPE_TENSOR_ACTIVE,
    &PIPE_FP64_ACTIVE,
    &PIPE_FP32_ACTIVE,
    &PIPE_FP16_ACTIVE,
    &DRAM_ACTIVE,
    &PCIE_TX_BYTES,
    &PCIE_RX_BYTES,
    &NVLINK_TX_BYTES,
    &NVLINK_RX_BYTES,
];

/// All names.
pub static ALIASES: &[Alias] = &[
    alias(&GPU_UTIL, &activity::UTILIZATION_RATIO, &[], PERCENT),
    alias(&MEM_COPY_UTIL, &activity::MEMORY_UTILIZATION_RATIO, &[], PERCENT),
    alias(&ENC_UTIL, &activity::VIDEO_UTILIZATION_RATIO, &["encoder"], PERCENT),
    alias(&DEC_UTIL, &activity::VIDEO_UTILIZATION_RATIO, &["decoder"], PERCENT),
    alias(&SM_CLOCK, &clock::CLOCK_HERTZ, &["sm"], MEGA),
    alias(&MEM_CLOCK, &clock::CLOCK_HERTZ, &["memory"], MEGA),
    alias(&GPU_TEMP, &temperature::TEMPERATURE_CELSIUS, &["gpu"], SAME),
    alias(&MEMORY_TEMP, &temperature::TEMPERATURE_CELSIUS, &["memory"], SAME),
    alias(&POWER_USAGE, &power::POWER_WATTS, &[], SAME),
    alias(&TOTAL_ENERGY, &power::ENERGY_JOULES_TOTAL, &[], MILLI),
    alias(&FB_FREE, &memory::MEMORY_FREE_BYTES, &[], MEBI),
    alias(&FB_USED, &memory::MEMORY_USED_BYTES, &[], MEBI),
    alias(&FB_RESERVED, &memory::MEMORY_RESERVED_BYTES, &[], MEBI),
    alias(&FB_TOTAL, &memory::MEMORY_TOTAL_BYTES, &[], MEBI),
    alias(&UNCORRECTABLE_REMAPPED_ROWS, &ecc::REMAPPED_ROWS_TOTAL, &["uncorrected"], SAME),
    alias(&CORRECTABLE_REMAPPED_ROWS, &ecc::REMAPPED_ROWS_TOTAL, &["corrected"], SAME),
    alias(&ROW_REMAP_FAILURE, &ecc::ROW_REMAP_FAILED, &[], SAME),
    alias(&ECC_SBE_VOL, &ecc::MEMORY_ERRORS_TOTAL, &["corrected"], SAME),
    alias(&ECC_DBE_VOL, &ecc::MEMORY_ERRORS_TOTAL, &["uncorrected"], SAME),
    alias(&GR_ENGINE_ACTIVE, &activity::GRAPHICS_ACTIVE_RATIO, &[], SAME),
    alias(&SM_ACTIVE, &activity::SM_ACTIVE_RATIO, &[], SAME),
    alias(&SM_OCCUPANCY, &activity::SM_OCCUPANCY_RATIO, &[], SAME),
    alias(&PIPE_TENSOR_ACTIVE, &activity::PIPE_ACTIVE_RATIO, &["tensor"], SAME),
    alias(&PIPE_FP64_ACTIVE, &activity::PIPE_ACTIVE_RATIO, &["fp64"], SAME),
    alias(&PIPE_FP32_ACTIVE, &activity::PIPE_ACTIVE_RATIO, &["fp32"], SAME),
    alias(&PIPE_FP16_ACTIVE, &activity::PIPE_ACTIVE_RATIO, &["fp16"], SAME),
    alias(&DRAM_ACTIVE, &activity::DRAM_ACTIVE_RATIO, &[], SAME),
    alias(&PCIE_TX_BYTES, &activity::PCIE_THROUGHPUT_BYTES_PER_SECOND, &["transmit"], SAME),
    alias(&PCIE_RX_BYTES, &activity::PCIE_THROUGHPUT_BYTES_PER_SECOND, &["receive"], SAME),
    alias(&NVLINK_TX_BYTES, &activity::NVLINK_THROUGHPUT_BYTES_PER_SECOND, &["transmit"], SAME),
    alias(&NVLINK_RX_BYTES, &activity::NVLINK_THROUGHPUT_BYTES_PER_SECOND, &["receive"], SAME),
    of_instance(&FB_FREE, &mig::MIG_MEMORY_FREE_BYTES, &[], MEBI),
    of_instance(&FB_USED, &mig::MIG_MEMORY_USED_BYTES, &[], MEBI),
    of_instance(&FB_TOTAL, &mig::MIG_MEMORY_TOTAL_BYTES, &[], MEBI),
    of_instance(&GR_ENGINE_ACTIVE, &mig::MIG_GRAPHICS_ACTIVE_RATIO, &[], SAME),
    of_instance(&SM_ACTIVE, &mig::MIG_SM_ACTIVE_RATIO, &[], SAME),
    of_instance(&SM_OCCUPANCY, &mig::MIG_SM_OCCUPANCY_RATIO, &[], SAME),
    of_instance(&PIPE_TENSOR_ACTIVE, &mig::MIG_PIPE_ACTIVE_RATIO, &["tensor"], SAME),
    of_instance(&PIPE_FP64_ACTIVE, &mig::MIG_PIPE_ACTIVE_RATIO, &["fp64"], SAME),
    of_instance(&PIPE_FP32_ACTIVE, &mig::MIG_PIPE_ACTIVE_RATIO, &["fp32"], SAME),
    of_instance(&PIPE_FP16_ACTIVE, &mig::MIG_PIPE_ACTIVE_RATIO, &["fp16"], SAME),
    of_instance(&DRAM_ACTIVE, &mig::MIG_DRAM_ACTIVE_RATIO, &[], SAME),
];

const fn alias(series: &'static Series, of: &'static Series, own: &'static [&'static str], factor: f64) -> Alias {
    Alias { series, of, is_of_instance: false, own, factor }
}

const fn of_instance(series: &'static Series, of: &'static Series, own: &'static [&'static str], factor: f64) -> Alias {
    Alias { series, of, is_of_instance: true, own, factor }
}

const fn named(name: &'static str, help: &'static str) -> Series {
    let source = "a series of ours, by the name that dcgm-exporter has for it";
    Series { name, kind: Kind::Gauge, unit: Unit::None, help, source, otel: "", labels: LABELS }
}

static GPU_UTIL: Series = named("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).");
static MEM_COPY_UTIL: Series = named("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).");
static ENC_UTIL: Series = named("DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %).");
static DEC_UTIL: Series = named("DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %).");
static SM_CLOCK: Series = named("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).");
static MEM_CLOCK: Series = named("DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).");
static GPU_TEMP: Series = named("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).");
static MEMORY_TEMP: Series = named("DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).");
static POWER_USAGE: Series = named("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).");
static TOTAL_ENERGY: Series =
    named("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).");
static FB_FREE: Series = named("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).");
static FB_USED: Series = named("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).");
static FB_RESERVED: Series = named("DCGM_FI_DEV_FB_RESERVED", "Framebuffer memory reserved (in MiB).");
static FB_TOTAL: Series = named("DCGM_FI_DEV_FB_TOTAL", "Framebuffer memory total (in MiB).");
static UNCORRECTABLE_REMAPPED_ROWS: Series =
    named("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for uncorrectable errors.");
static CORRECTABLE_REMAPPED_ROWS: Series =
    named("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for correctable errors.");
static ROW_REMAP_FAILURE: Series = named("DCGM_FI_DEV_ROW_REMAP_FAILURE", "Whether remapping of rows has failed.");
static ECC_SBE_VOL: Series = named("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors.");
static ECC_DBE_VOL: Series = named("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors.");
static GR_ENGINE_ACTIVE: Series =
    named("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "Ratio of time the graphics engine is active.");
static SM_ACTIVE: Series = named("DCGM_FI_PROF_SM_ACTIVE", "Ratio of cycles an SM has at least one warp assigned.");
static SM_OCCUPANCY: Series = named("DCGM_FI_PROF_SM_OCCUPANCY", "Ratio of warps resident on an SM.");
static PIPE_TENSOR_ACTIVE: Series =
    named("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "Ratio of cycles the tensor pipe is active.");
static PIPE_FP64_ACTIVE: Series = named("DCGM_FI_PROF_PIPE_FP64_ACTIVE", "Ratio of cycles the fp64 pipes are active.");
static PIPE_FP32_ACTIVE: Series = named("DCGM_FI_PROF_PIPE_FP32_ACTIVE", "Ratio of cycles the fp32 pipes are active.");
static PIPE_FP16_ACTIVE: Series = named("DCGM_FI_PROF_PIPE_FP16_ACTIVE", "Ratio of cycles the fp16 pipes are active.");
static DRAM_ACTIVE: Series =
    named("DCGM_FI_PROF_DRAM_ACTIVE", "Ratio of cycles the device memory interface is active.");
static PCIE_TX_BYTES: Series =
    named("DCGM_FI_PROF_PCIE_TX_BYTES", "Rate of data sent over the PCIe bus (in bytes per second).");
static PCIE_RX_BYTES: Series =
    named("DCGM_FI_PROF_PCIE_RX_BYTES", "Rate of data received over the PCIe bus (in bytes per second).");
static NVLINK_TX_BYTES: Series =
    named("DCGM_FI_PROF_NVLINK_TX_BYTES", "Rate of data sent over NVLink (in bytes per second).");
static NVLINK_RX_BYTES: Series =
    named("DCGM_FI_PROF_NVLINK_RX_BYTES", "Rate of data received over NVLink (in bytes per second).");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_is_of_a_series_with_as_many_labels_of_its_own() {
        assert_eq!(ALIASES.iter().filter(|alias| !alias.is_of_instance).count(), ROWS.len());
        for alias in ALIASES {
            let of_part = if alias.is_of_instance { mig::INSTANCE } else { super::super::GPU };
            assert!(alias.of.labels.starts_with(of_part), "{}", alias.of.name);
            let own = alias.of.labels.len() - of_part.len();
            assert_eq!(alias.own.len(), own, "{}", alias.series.name);
            assert!(ROWS.contains(&alias.series), "{}", alias.series.name);
        }
    }
}
