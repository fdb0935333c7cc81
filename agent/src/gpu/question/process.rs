//! Processes on the GPU. Their numbers are the host's only if the daemon is in the host's pid namespace.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use nvml_wrapper::{enums::device::UsedGpuMemory, error::NvmlError, struct_wrappers::device::ProcessInfo};

use super::{ALL, Answer, Measure, Question, Round, asker::Asker, getter, ratio};
use crate::series::gpu::process::{PROCESS_MEMORY_BYTES, PROCESS_UTILIZATION_RATIO, PROCESSES};

/// Processes of one GPU that are told; a GPU that says it has more is not believed.
const MOST: usize = 256;

pub(super) static QUESTIONS: &[Question] = &[
    getter(
        "nvmlDeviceGetComputeRunningProcesses_v3",
        Round::Full,
        ALL,
        &[(&PROCESSES, "compute"), (&PROCESS_MEMORY_BYTES, "")],
        |gpu| Ok(memory("compute", &gpu.device.running_compute_processes()?)),
    ),
    getter(
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        Round::Full,
        "GPUs shared by MPS",
        &[(&PROCESSES, "mps"), (&PROCESS_MEMORY_BYTES, "")],
        |gpu| Ok(memory("mps", &gpu.device.mps_running_compute_processes()?)),
    ),
    getter(
        "nvmlDeviceGetProcessUtilization",
        Round::Full,
        "all, without MIG",
        &[(&PROCESS_UTILIZATION_RATIO, "")],
        utilization,
    ),
];

/// What the process is called and its pod are for [`holders`](crate::holders) to say.
const NAMELESS: [Cow<'static, str>; 4] = [const { Cow::Borrowed("") }; 4];

fn memory(kind: &'static str, processes: &[ProcessInfo]) -> Vec<Measure> {
    // One process may be listed for several compute instances of one GPU instance.
    let mut used: HashMap<(Option<u32>, u32), u64> = HashMap::new();
    let listed: HashSet<_> = processes.iter().map(|process| (process.gpu_instance_id, process.pid)).collect();
    let labels = vec![Cow::Borrowed(kind)];
    let count = Measure { series: &PROCESSES, labels, number: super::exact(listed.len() as u64) };
    for process in processes.iter().take(MOST) {
        if let UsedGpuMemory::Used(bytes) = process.used_gpu_memory {
            *used.entry((process.gpu_instance_id, process.pid)).or_default() += bytes;
        }
    }
    let measure = |((instance, pid), bytes): ((Option<u32>, u32), u64)| {
        let instance = instance.map(|id| id.to_string()).unwrap_or_default();
        let own = [Cow::Owned(instance), Cow::Borrowed(kind), Cow::Owned(pid.to_string())];
        let labels = own.into_iter().chain(NAMELESS).collect();
        Measure { series: &PROCESS_MEMORY_BYTES, labels, number: super::exact(bytes) }
    };
    [count].into_iter().chain(used.into_iter().map(measure)).collect()
}

/// The newest sample of each process since the round before.
fn utilization(gpu: &mut Asker) -> Answer {
    let samples = match gpu.device.process_utilization_stats(gpu.processes_seen_us) {
        // So says a GPU on which nothing has run since.
        Err(NvmlError::NotFound) => Vec::new(),
        other => other?,
    };
    let mut newest: HashMap<u32, nvml_wrapper::struct_wrappers::device::ProcessUtilizationSample> = HashMap::new();
    for sample in samples {
        gpu.processes_seen_us = gpu.processes_seen_us.max(sample.timestamp);
        let is_newer = newest.get(&sample.pid).is_none_or(|other| other.timestamp < sample.timestamp);
        // Process 0 is what is left over in the driver's ring.
        if is_newer && sample.pid != 0 && (newest.len() < MOST || newest.contains_key(&sample.pid)) {
            newest.insert(sample.pid, sample);
        }
    }
    let mut measures = Vec::new();
    for (pid, sample) in newest {
        let units = [
            ("sm", sample.sm_util),
            ("memory", sample.mem_util),
            ("encoder", sample.enc_util),
            ("decoder", sample.dec_util),
        ];
        for (unit, percent) in units {
            // A unit that the GPU does not have is told as something beyond a hundred.
            let Ok(number) = ratio(percent) else { continue };
            let labels = [Cow::Borrowed(unit), Cow::Owned(pid.to_string())].into_iter().chain(NAMELESS).collect();
            measures.push(Measure { series: &PROCESS_UTILIZATION_RATIO, labels, number });
        }
    }
    Ok(measures)
}
