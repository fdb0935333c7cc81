//! The PCIe link. Its throughput is told by counters and by GPM since Hopper; before, by `nvmlDeviceGetPcieThroughput`, which holds
//! the driver for 20 ms at each call and says what passed in them.

use nvml_wrapper::{enum_wrappers::device::PcieUtilCounter, sys_exports::field_id as id};

use super::{
    ALL, HOPPER, Question, Round, field,
    field::{Field, FieldUnit},
    getter, one, one_labelled,
};
use crate::series::gpu::activity::PCIE_THROUGHPUT_BYTES_PER_SECOND;
use crate::series::gpu::pcie::{
    PCIE_BYTES_TOTAL, PCIE_ERRORS_TOTAL, PCIE_LINK_GENERATION, PCIE_LINK_GENERATION_MAX, PCIE_LINK_WIDTH,
    PCIE_LINK_WIDTH_MAX, PCIE_REPLAYS_TOTAL,
};

pub(super) static QUESTIONS: &[Question] = &[
    getter(
        "nvmlDeviceGetPcieThroughput",
        Round::Full,
        "GPUs before Hopper, not divided by MIG",
        &[(&PCIE_THROUGHPUT_BYTES_PER_SECOND, "transmit"), (&PCIE_THROUGHPUT_BYTES_PER_SECOND, "receive")],
        |gpu| {
            // GPM tells the same of the whole time between two readings.
            if gpu.gpm.is_some() {
                return Ok(Vec::new());
            }
            let throughput = |label, counter| {
                let kilobytes = gpu.device.pcie_throughput(counter);
                one_labelled(&PCIE_THROUGHPUT_BYTES_PER_SECOND, label, kilobytes, |kilobytes| {
                    f64::from(kilobytes) * 1e3
                })
            };
            let sent = throughput("transmit", PcieUtilCounter::Send)?;
            Ok([sent, throughput("receive", PcieUtilCounter::Receive)?].concat())
        },
    ),
    bytes("NVML_FI_DEV_PCIE_COUNT_TX_BYTES (197)", id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES, &["transmit"]),
    bytes("NVML_FI_DEV_PCIE_COUNT_RX_BYTES (198)", id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES, &["receive"]),
    getter("nvmlDeviceGetPcieReplayCounter", Round::Full, ALL, &[(&PCIE_REPLAYS_TOTAL, "")], |gpu| {
        one(&PCIE_REPLAYS_TOTAL, gpu.device.pcie_replay_counter(), f64::from)
    }),
    getter("nvmlDeviceGetCurrPcieLinkGeneration", Round::Full, ALL, &[(&PCIE_LINK_GENERATION, "")], |gpu| {
        one(&PCIE_LINK_GENERATION, gpu.device.current_pcie_link_gen(), f64::from)
    }),
    getter("nvmlDeviceGetMaxPcieLinkGeneration", Round::Full, ALL, &[(&PCIE_LINK_GENERATION_MAX, "")], |gpu| {
        one(&PCIE_LINK_GENERATION_MAX, gpu.device.max_pcie_link_gen(), f64::from)
    }),
    getter("nvmlDeviceGetCurrPcieLinkWidth", Round::Full, ALL, &[(&PCIE_LINK_WIDTH, "")], |gpu| {
        one(&PCIE_LINK_WIDTH, gpu.device.current_pcie_link_width(), f64::from)
    }),
    getter("nvmlDeviceGetMaxPcieLinkWidth", Round::Full, ALL, &[(&PCIE_LINK_WIDTH_MAX, "")], |gpu| {
        one(&PCIE_LINK_WIDTH_MAX, gpu.device.max_pcie_link_width(), f64::from)
    }),
    error(
        "NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER (169)",
        id::NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER,
        &["l0_to_recovery"],
    ),
    error(
        "NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS (173)",
        id::NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS,
        &["correctable"],
    ),
    error("NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED (174)", id::NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED, &["naks_received"]),
    error("NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR (175)", id::NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR, &["receiver"]),
    error("NVML_FI_DEV_PCIE_COUNT_BAD_TLP (176)", id::NVML_FI_DEV_PCIE_COUNT_BAD_TLP, &["bad_tlp"]),
    error("NVML_FI_DEV_PCIE_COUNT_NAKS_SENT (177)", id::NVML_FI_DEV_PCIE_COUNT_NAKS_SENT, &["naks_sent"]),
    error("NVML_FI_DEV_PCIE_COUNT_BAD_DLLP (178)", id::NVML_FI_DEV_PCIE_COUNT_BAD_DLLP, &["bad_dllp"]),
    error("NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR (179)", id::NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR, &["non_fatal"]),
    error("NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR (180)", id::NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR, &["fatal"]),
    error(
        "NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ (181)",
        id::NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ,
        &["unsupported_request"],
    ),
    error("NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR (182)", id::NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR, &["lcrc"]),
    error("NVML_FI_DEV_PCIE_COUNT_LANE_ERROR (183)", id::NVML_FI_DEV_PCIE_COUNT_LANE_ERROR, &["lane"]),
    error(
        "NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER (95)",
        id::NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER,
        &["replay_rollover"],
    ),
];

const fn bytes(call: &'static str, id: u32, direction: &'static [&'static str]) -> Question {
    field(call, Round::Light, HOPPER, Field::of_gpu(id, &PCIE_BYTES_TOTAL, direction, FieldUnit::WrappingBytes))
}

const fn error(call: &'static str, id: u32, error: &'static [&'static str]) -> Question {
    field(call, Round::Full, HOPPER, Field::of_gpu(id, &PCIE_ERRORS_TOTAL, error, FieldUnit::Count))
}
