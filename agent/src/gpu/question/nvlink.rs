//! NVLink between GPUs and switches, and NVLink-C2C to the CPU.
//!
//! A throughput field without a scope is that of link 0 alone; all links together are asked for as scope 0xFFFFFFFF.

use std::borrow::Cow;

use nvml_wrapper::{error::NvmlError, sys_exports::field_id as id};

use super::{
    Answer, BEFORE_BLACKWELL, BLACKWELL, GRACE, Measure, NVLINK, Question, Round,
    asker::Asker,
    field,
    field::{Field, FieldUnit, Scope},
    getter,
};
use crate::{
    gpu::raw,
    series::{
        Series,
        gpu::nvlink::{
            C2C_ERRORS_TOTAL, C2C_LINK_UP, C2C_SPEED_BYTES_PER_SECOND, NVLINK_BYTES_TOTAL, NVLINK_ERRORS_TOTAL,
            NVLINK_LINK_ERRORS_TOTAL, NVLINK_RAW_BYTES_TOTAL, NVLINK_RECOVERIES_TOTAL, NVLINK_SPEED_BYTES_PER_SECOND,
            NVLINK_SWITCH_LINKS, NVLINK_UP,
        },
    },
};

/// NVML_NVLINK_MAX_LINKS of `nvml.h`.
const MAX_NVLINKS: u32 = 18;

pub(super) static QUESTIONS: &[Question] = &[
    // First: it says which links there are.
    getter("nvmlDeviceGetNvLinkState", Round::Full, NVLINK, &[(&NVLINK_UP, "")], links),
    traffic(
        "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX (138), scope 0xFFFFFFFF",
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
        &NVLINK_BYTES_TOTAL,
        &["transmit"],
    ),
    traffic(
        "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX (139), scope 0xFFFFFFFF",
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        &NVLINK_BYTES_TOTAL,
        &["receive"],
    ),
    traffic(
        "NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX (140), scope 0xFFFFFFFF",
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX,
        &NVLINK_RAW_BYTES_TOTAL,
        &["transmit"],
    ),
    traffic(
        "NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX (141), scope 0xFFFFFFFF",
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX,
        &NVLINK_RAW_BYTES_TOTAL,
        &["receive"],
    ),
    field(
        "NVML_FI_DEV_NVLINK_GET_SPEED (164)",
        Round::Full,
        NVLINK,
        each_link(id::NVML_FI_DEV_NVLINK_GET_SPEED, &NVLINK_SPEED_BYTES_PER_SECOND, &[], FieldUnit::MegabytesPerSecond),
    ),
    field(
        "NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT (147)",
        Round::Full,
        NVLINK,
        Field::of_gpu(id::NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT, &NVLINK_SWITCH_LINKS, &[], FieldUnit::Count),
    ),
    getter("NVML_FI_DEV_C2C_LINK_COUNT (170)", Round::Full, GRACE, &[], c2c_links),
    field(
        "NVML_FI_DEV_C2C_LINK_GET_STATUS (171)",
        Round::Full,
        GRACE,
        Field::of_gpu(id::NVML_FI_DEV_C2C_LINK_GET_STATUS, &C2C_LINK_UP, &[], FieldUnit::Flag)
            .with_scope(Scope::EachC2c),
    ),
    field(
        "NVML_FI_DEV_C2C_LINK_GET_MAX_BW (172)",
        Round::Full,
        GRACE,
        Field::of_gpu(
            id::NVML_FI_DEV_C2C_LINK_GET_MAX_BW,
            &C2C_SPEED_BYTES_PER_SECOND,
            &[],
            FieldUnit::MegabytesPerSecond,
        )
        .with_scope(Scope::EachC2c),
    ),
    total(
        "NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL (38)",
        id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
        BEFORE_BLACKWELL,
        &["crc_flit"],
    ),
    total(
        "NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL (45)",
        id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
        BEFORE_BLACKWELL,
        &["crc_data"],
    ),
    total(
        "NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL (52)",
        id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
        BEFORE_BLACKWELL,
        &["replay"],
    ),
    total(
        "NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL (59)",
        id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
        BEFORE_BLACKWELL,
        &["recovery"],
    ),
    total(
        "NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL (160)",
        id::NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL,
        BEFORE_BLACKWELL,
        &["ecc_data"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY (161)",
        id::NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY,
        BEFORE_BLACKWELL,
        &["replay"],
    ),
    of_link("NVML_FI_DEV_NVLINK_ERROR_DL_CRC (163)", id::NVML_FI_DEV_NVLINK_ERROR_DL_CRC, BEFORE_BLACKWELL, &["crc"]),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS (206)",
        id::NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS,
        BLACKWELL,
        &["malformed_packet"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS (207)",
        id::NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS,
        BLACKWELL,
        &["buffer_overrun"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS (208)",
        id::NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS,
        BLACKWELL,
        &["receive"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS (209)",
        id::NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS,
        BLACKWELL,
        &["receive_remote"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_RCV_GENERAL_ERRORS (210)",
        id::NVML_FI_DEV_NVLINK_COUNT_RCV_GENERAL_ERRORS,
        BLACKWELL,
        &["receive_general"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS (211)",
        id::NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS,
        BLACKWELL,
        &["local_link_integrity"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS (212)",
        id::NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS,
        BLACKWELL,
        &["transmit_discard"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_VL15_DROPPED (205)",
        id::NVML_FI_DEV_NVLINK_COUNT_VL15_DROPPED,
        BLACKWELL,
        &["vl15_dropped"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS (219)",
        id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS,
        BLACKWELL,
        &["effective"],
    ),
    of_link(
        "NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS (221)",
        id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS,
        BLACKWELL,
        &["symbol"],
    ),
    recovery(
        "NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY (162)",
        id::NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY,
        BEFORE_BLACKWELL,
        &["unknown"],
    ),
    recovery(
        "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS (213)",
        id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS,
        BLACKWELL,
        &["succeeded"],
    ),
    recovery(
        "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS (214)",
        id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS,
        BLACKWELL,
        &["failed"],
    ),
    of_c2c("NVML_FI_DEV_C2C_LINK_ERROR_INTR (231)", id::NVML_FI_DEV_C2C_LINK_ERROR_INTR, GRACE, &["interrupt"]),
    of_c2c("NVML_FI_DEV_C2C_LINK_ERROR_REPLAY (232)", id::NVML_FI_DEV_C2C_LINK_ERROR_REPLAY, GRACE, &["replay"]),
    of_c2c(
        "NVML_FI_DEV_C2C_LINK_ERROR_REPLAY_B2B (233)",
        id::NVML_FI_DEV_C2C_LINK_ERROR_REPLAY_B2B,
        GRACE,
        &["replay_back_to_back"],
    ),
];

type Labels = &'static [&'static str];

const fn each_link(id: u32, series: &'static Series, labels: Labels, unit: FieldUnit) -> Field {
    Field::of_gpu(id, series, labels, unit).with_scope(Scope::EachNvlink)
}

const fn traffic(call: &'static str, id: u32, series: &'static Series, direction: Labels) -> Question {
    let of = Field::of_gpu(id, series, direction, FieldUnit::Kibibytes).with_scope(Scope::AllNvlinks);
    field(call, Round::Light, NVLINK, of)
}

const fn total(call: &'static str, id: u32, hardware: &'static str, error: Labels) -> Question {
    field(call, Round::Full, hardware, Field::of_gpu(id, &NVLINK_ERRORS_TOTAL, error, FieldUnit::Count))
}

const fn of_link(call: &'static str, id: u32, hardware: &'static str, error: Labels) -> Question {
    field(call, Round::Full, hardware, each_link(id, &NVLINK_LINK_ERRORS_TOTAL, error, FieldUnit::Count))
}

const fn recovery(call: &'static str, id: u32, hardware: &'static str, outcome: Labels) -> Question {
    field(call, Round::Full, hardware, each_link(id, &NVLINK_RECOVERIES_TOTAL, outcome, FieldUnit::Count))
}

const fn of_c2c(call: &'static str, id: u32, hardware: &'static str, error: Labels) -> Question {
    let of = Field::of_gpu(id, &C2C_ERRORS_TOTAL, error, FieldUnit::Count).with_scope(Scope::EachC2c);
    field(call, Round::Full, hardware, of)
}

/// The GPU has no link beyond the first that it refuses to speak of.
fn links(gpu: &mut Asker) -> Answer {
    let mut links = Vec::new();
    for link in 0..MAX_NVLINKS {
        match gpu.device.link_wrapper_for(link).is_active() {
            Ok(is_active) => links.push(Measure {
                series: &NVLINK_UP,
                labels: vec![Cow::Owned(link.to_string())],
                number: if is_active { 1.0 } else { 0.0 },
            }),
            Err(NvmlError::GpuLost) => return Err(NvmlError::GpuLost),
            Err(error) if links.is_empty() => return Err(error),
            Err(_) => break,
        }
        gpu.nvlinks = link + 1;
    }
    Ok(links)
}

/// How many there are is no series: those that there are have theirs.
fn c2c_links(gpu: &mut Asker) -> Answer {
    /// More than any GPU has: what a broken answer may cost.
    const MOST: u64 = 32;
    let request = raw::FieldRequest { id: gpu.numbers.number(id::NVML_FI_DEV_C2C_LINK_COUNT), scope: 0 };
    let answer = raw::field_values(&gpu.device, &[request])?.pop().ok_or(NvmlError::NoData)??;
    let count = answer.unsigned().filter(|_| !answer.is_all_ones()).ok_or(NvmlError::NoData)?;
    gpu.c2c_links = u32::try_from(count.min(MOST)).unwrap_or(0);
    Ok(Vec::new())
}
