//! Processes on the GPU. NVML tells their numbers; their names and pods are `/proc`'s and the kubelet's, and empty where nobody
//! knows them.

use super::{super::Series, Unit, gauge};

pub const ROWS: &[&Series] = &[&PROCESSES, &PROCESS_MEMORY_BYTES, &PROCESS_UTILIZATION_RATIO];

pub static PROCESSES: Series = gauge(
    "plumbline_gpu_processes",
    Unit::None,
    &["UUID", "gpu", "simulated", "type"],
    "plumbline.gpu.processes",
    "nvmlDeviceGetComputeRunningProcesses_v3, nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "Processes that the driver lists on the GPU: `compute` processes, and clients of `mps`; one for each GPU instance that it has.",
);

pub static PROCESS_MEMORY_BYTES: Series = gauge(
    "plumbline_gpu_process_memory_bytes",
    Unit::Bytes,
    &["UUID", "gpu", "simulated", "GPU_I_ID", "type", "pid", "process", "pod", "namespace", "container"],
    "plumbline.gpu.process.memory.usage",
    "nvmlDeviceGetComputeRunningProcesses_v3, nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "Memory of the GPU that the process has allocated; of a `compute` process or a client of `mps`.",
);

pub static PROCESS_UTILIZATION_RATIO: Series = gauge(
    "plumbline_gpu_process_utilization_ratio",
    Unit::Ratio,
    &["UUID", "gpu", "simulated", "unit", "pid", "process", "pod", "namespace", "container"],
    "plumbline.gpu.process.utilization",
    "nvmlDeviceGetProcessUtilization",
    "Share of the driver's sampling period in which a kernel of the process was on the GPU (`sm`), or its memory, encoder \
     or decoder was used, 0 to 1; not under MIG.",
);
