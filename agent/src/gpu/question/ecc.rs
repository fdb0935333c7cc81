//! Errors of the GPU's memory, and what the GPU did about them.

use nvml_wrapper::sys_exports::field_id as id;

use super::{
    AMPERE, ECC, Question, Round, exact, field,
    field::{Field, FieldUnit},
    getter, known_wide, labelled, measure,
};
use crate::gpu::raw;
use crate::series::{
    Series,
    gpu::ecc::{
        MEMORY_ERRORS_BY_LOCATION_TOTAL, MEMORY_ERRORS_EVER_TOTAL, MEMORY_ERRORS_TOTAL, PAGE_RETIREMENT_PENDING,
        RECOVERY_ACTION, REMAPPED_ROWS_TOTAL, RETIRED_PAGES_TOTAL, ROW_REMAP_FAILED, ROW_REMAP_PENDING,
        SRAM_ERRORS_TOTAL, SRAM_THRESHOLD_EXCEEDED,
    },
};

const BEFORE_AMPERE: &str = "GPUs with ECC before Ampere";

pub(super) static QUESTIONS: &[Question] = &[
    getter(
        "nvmlDeviceGetSramEccErrorStatus",
        Round::Full,
        "Ampere and newer with ECC; root only",
        &[(&SRAM_ERRORS_TOTAL, ""), (&SRAM_THRESHOLD_EXCEEDED, "")],
        |gpu| {
            let errors = raw::sram_errors(&gpu.device)?;
            let exceeded = if errors.is_threshold_exceeded { 1.0 } else { 0.0 };
            Ok(vec![
                labelled(&SRAM_ERRORS_TOTAL, "corrected", exact(known_wide(errors.corrected)?)),
                labelled(&SRAM_ERRORS_TOTAL, "uncorrected_parity", exact(known_wide(errors.uncorrected_parity)?)),
                labelled(&SRAM_ERRORS_TOTAL, "uncorrected_secded", exact(known_wide(errors.uncorrected_secded)?)),
                measure(&SRAM_THRESHOLD_EXCEEDED, exceeded),
            ])
        },
    ),
    count(
        "NVML_FI_DEV_ECC_SBE_VOL_TOTAL (3)",
        id::NVML_FI_DEV_ECC_SBE_VOL_TOTAL,
        ECC,
        &MEMORY_ERRORS_TOTAL,
        &["corrected"],
    ),
    count(
        "NVML_FI_DEV_ECC_DBE_VOL_TOTAL (4)",
        id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
        ECC,
        &MEMORY_ERRORS_TOTAL,
        &["uncorrected"],
    ),
    count(
        "NVML_FI_DEV_ECC_SBE_VOL_L1 (7)",
        id::NVML_FI_DEV_ECC_SBE_VOL_L1,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["corrected", "l1"],
    ),
    count(
        "NVML_FI_DEV_ECC_DBE_VOL_L1 (8)",
        id::NVML_FI_DEV_ECC_DBE_VOL_L1,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["uncorrected", "l1"],
    ),
    count(
        "NVML_FI_DEV_ECC_SBE_VOL_L2 (9)",
        id::NVML_FI_DEV_ECC_SBE_VOL_L2,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["corrected", "l2"],
    ),
    count(
        "NVML_FI_DEV_ECC_DBE_VOL_L2 (10)",
        id::NVML_FI_DEV_ECC_DBE_VOL_L2,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["uncorrected", "l2"],
    ),
    count(
        "NVML_FI_DEV_ECC_SBE_VOL_DEV (11)",
        id::NVML_FI_DEV_ECC_SBE_VOL_DEV,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["corrected", "dram"],
    ),
    count(
        "NVML_FI_DEV_ECC_DBE_VOL_DEV (12)",
        id::NVML_FI_DEV_ECC_DBE_VOL_DEV,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["uncorrected", "dram"],
    ),
    count(
        "NVML_FI_DEV_ECC_SBE_VOL_REG (13)",
        id::NVML_FI_DEV_ECC_SBE_VOL_REG,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["corrected", "registers"],
    ),
    count(
        "NVML_FI_DEV_ECC_DBE_VOL_REG (14)",
        id::NVML_FI_DEV_ECC_DBE_VOL_REG,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["uncorrected", "registers"],
    ),
    count(
        "NVML_FI_DEV_ECC_SBE_VOL_TEX (15)",
        id::NVML_FI_DEV_ECC_SBE_VOL_TEX,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["corrected", "texture"],
    ),
    count(
        "NVML_FI_DEV_ECC_DBE_VOL_TEX (16)",
        id::NVML_FI_DEV_ECC_DBE_VOL_TEX,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["uncorrected", "texture"],
    ),
    count(
        "NVML_FI_DEV_ECC_DBE_VOL_CBU (17)",
        id::NVML_FI_DEV_ECC_DBE_VOL_CBU,
        ECC,
        &MEMORY_ERRORS_BY_LOCATION_TOTAL,
        &["uncorrected", "cbu"],
    ),
    count(
        "NVML_FI_DEV_ECC_SBE_AGG_TOTAL (5)",
        id::NVML_FI_DEV_ECC_SBE_AGG_TOTAL,
        ECC,
        &MEMORY_ERRORS_EVER_TOTAL,
        &["corrected"],
    ),
    count(
        "NVML_FI_DEV_ECC_DBE_AGG_TOTAL (6)",
        id::NVML_FI_DEV_ECC_DBE_AGG_TOTAL,
        ECC,
        &MEMORY_ERRORS_EVER_TOTAL,
        &["uncorrected"],
    ),
    count("NVML_FI_DEV_REMAPPED_COR (142)", id::NVML_FI_DEV_REMAPPED_COR, AMPERE, &REMAPPED_ROWS_TOTAL, &["corrected"]),
    count(
        "NVML_FI_DEV_REMAPPED_UNC (143)",
        id::NVML_FI_DEV_REMAPPED_UNC,
        AMPERE,
        &REMAPPED_ROWS_TOTAL,
        &["uncorrected"],
    ),
    flag("NVML_FI_DEV_REMAPPED_PENDING (144)", id::NVML_FI_DEV_REMAPPED_PENDING, AMPERE, &ROW_REMAP_PENDING),
    flag("NVML_FI_DEV_REMAPPED_FAILURE (145)", id::NVML_FI_DEV_REMAPPED_FAILURE, AMPERE, &ROW_REMAP_FAILED),
    count(
        "NVML_FI_DEV_RETIRED_SBE (29)",
        id::NVML_FI_DEV_RETIRED_SBE,
        BEFORE_AMPERE,
        &RETIRED_PAGES_TOTAL,
        &["corrected"],
    ),
    count(
        "NVML_FI_DEV_RETIRED_DBE (30)",
        id::NVML_FI_DEV_RETIRED_DBE,
        BEFORE_AMPERE,
        &RETIRED_PAGES_TOTAL,
        &["uncorrected"],
    ),
    flag("NVML_FI_DEV_RETIRED_PENDING (31)", id::NVML_FI_DEV_RETIRED_PENDING, BEFORE_AMPERE, &PAGE_RETIREMENT_PENDING),
    count(
        "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION (230)",
        id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        AMPERE,
        &RECOVERY_ACTION,
        &[],
    ),
];

const fn count(
    call: &'static str,
    id: u32,
    hardware: &'static str,
    series: &'static Series,
    labels: &'static [&'static str],
) -> Question {
    field(call, Round::Full, hardware, Field::of_gpu(id, series, labels, FieldUnit::Count))
}

const fn flag(call: &'static str, id: u32, hardware: &'static str, series: &'static Series) -> Question {
    field(call, Round::Full, hardware, Field::of_gpu(id, series, &[], FieldUnit::Flag))
}
