//! The NVLink fabric, as the fabric manager has set it up (`nvmlGpuFabricInfo_v3_t` of `nvml.h`).

use std::{borrow::Cow, fmt::Write as _};

use super::{Answer, HOPPER, Measure, Question, Round, asker::Asker, getter, labelled, measure};
use crate::{
    gpu::raw::{self, FabricInfo},
    series::gpu::fabric::{FABRIC_FAULT, FABRIC_HEALTH, FABRIC_INFO, FABRIC_STATE, FABRIC_STATUS},
};

pub(super) static QUESTIONS: &[Question] = &[getter(
    "nvmlDeviceGetGpuFabricInfoV",
    Round::Full,
    HOPPER,
    &[(&FABRIC_STATE, ""), (&FABRIC_STATUS, ""), (&FABRIC_HEALTH, ""), (&FABRIC_FAULT, ""), (&FABRIC_INFO, "")],
    ask,
)];

/// NVML_GPU_FABRIC_STATE_NOT_SUPPORTED and NVML_GPU_FABRIC_STATE_COMPLETED.
const NOT_SUPPORTED: u8 = 0;
const COMPLETED: u8 = 3;

/// Two bits each of the health mask, by how far they are shifted: 1 is bad, 2 is well, else nobody knows.
const FAULTS: &[(u32, &str)] =
    &[(0, "degraded_bandwidth"), (2, "route_recovery"), (4, "route_unhealthy"), (6, "access_timeout")];

/// Four bits of the health mask from the eighth on: 1 is well, 2 and more are each a fault of the configuration.
const CONFIGURATION_SHIFT: u32 = 8;

fn ask(gpu: &mut Asker) -> Answer {
    Ok(tell(&raw::fabric_info(&gpu.device)?))
}

pub(super) fn tell(info: &FabricInfo) -> Vec<Measure> {
    if info.state == NOT_SUPPORTED {
        return Vec::new();
    }
    let mut measures = vec![measure(&FABRIC_STATE, info.state.into())];
    if info.state != COMPLETED {
        return measures;
    }
    measures.push(measure(&FABRIC_STATUS, info.status.into()));
    if info.health_summary != 0 {
        measures.push(measure(&FABRIC_HEALTH, info.health_summary.into()));
    }
    for (shift, fault) in FAULTS {
        match info.health_mask >> shift & 0b11 {
            1 => measures.push(labelled(&FABRIC_FAULT, fault, 1.0)),
            2 => measures.push(labelled(&FABRIC_FAULT, fault, 0.0)),
            _ => {}
        }
    }
    match info.health_mask >> CONFIGURATION_SHIFT & 0b1111 {
        0 => {}
        configuration => {
            measures.push(labelled(&FABRIC_FAULT, "configuration", if configuration == 1 { 0.0 } else { 1.0 }));
        }
    }
    let mut cluster = String::with_capacity(36);
    for (index, byte) in info.cluster_uuid.iter().enumerate() {
        let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(cluster, "{dash}{byte:02x}");
    }
    let labels = vec![Cow::Owned(cluster), Cow::Owned(info.clique_id.to_string())];
    measures.push(Measure { series: &FABRIC_INFO, labels, number: 1.0 });
    measures
}
