//! Which GPUs there are, whether they answer, and what answers cost.

use super::{super::Series, GPU, Unit, counter, gauge};

pub const ROWS: &[&Series] = &[
    &INFO,
    &UP,
    &SAMPLE_AGE_SECONDS,
    &ROUND_SECONDS,
    &REFUSED_QUESTIONS,
    &CONFIDENTIAL_COMPUTE,
    &UNNAMED,
    &KERNEL_LOG_OVERRUNS_TOTAL,
    &WORKER_UP,
    &WORKER_RESTARTS_TOTAL,
    &WORKER_CPU_SECONDS_TOTAL,
    &WORKER_LIBRARY_CPU_SECONDS_TOTAL,
    &WORKER_RESIDENT_BYTES,
    &SAMPLE_INTERVAL_SECONDS,
];

pub static INFO: Series = gauge(
    "plumbline_gpu_info",
    Unit::None,
    &["UUID", "gpu", "simulated", "name", "pci_bus_id", "device", "serial", "vbios", "numa_node", "driver"],
    "plumbline.gpu.info",
    "nvmlDeviceGetUUID, nvmlDeviceGetName, nvmlDeviceGetPciInfo_v3, nvmlDeviceGetMinorNumber, nvmlDeviceGetSerial, \
     nvmlDeviceGetVbiosVersion, nvmlDeviceGetNumaNodeId, nvmlSystemGetDriverVersion",
    "Always 1: a GPU that the driver has listed since the daemon started, and what it is. What it does not tell is empty.",
);

pub static UP: Series = gauge(
    "plumbline_gpu_up",
    Unit::None,
    GPU,
    "plumbline.gpu.up",
    "all NVML calls",
    "Whether the GPU answers (1), or is lost, or has not answered for so long that its numbers are absent (0).",
);

pub static SAMPLE_AGE_SECONDS: Series = gauge(
    "plumbline_gpu_sample_age_seconds",
    Unit::Seconds,
    GPU,
    "plumbline.gpu.sample.age",
    "the GPU worker",
    "Time since the questions began that the GPU answered last, of those that are asked in each round; grows while one \
     getter hangs in the driver.",
);

pub static ROUND_SECONDS: Series = gauge(
    "plumbline_gpu_round_seconds",
    Unit::Seconds,
    &["UUID", "gpu", "simulated", "round"],
    "plumbline.gpu.round.duration",
    "the GPU worker",
    "How long the GPU took to answer the newest `light` or `full` round of questions.",
);

pub static REFUSED_QUESTIONS: Series = gauge(
    "plumbline_gpu_refused_questions",
    Unit::None,
    GPU,
    "plumbline.gpu.refused_questions",
    "the GPU worker",
    "Questions that the GPU, its driver or our permissions do not answer; `plumbline gpu` names each with the reason.",
);

pub static CONFIDENTIAL_COMPUTE: Series = gauge(
    "plumbline_gpu_confidential_compute",
    Unit::None,
    GPU,
    "plumbline.gpu.confidential_compute",
    "nvmlSystemGetConfComputeState ccFeature",
    "Whether confidential computing is on (1) or off (0), which the driver says for all its GPUs.",
);

pub static UNNAMED: Series = gauge(
    "plumbline_gpu_unnamed",
    Unit::None,
    &[],
    "plumbline.gpu.unnamed",
    "nvmlDeviceGetCount_v2, nvmlDeviceGetUUID",
    "GPUs that the driver lists and that do not say who they are, or have not yet.",
);

pub static KERNEL_LOG_OVERRUNS_TOTAL: Series = counter(
    "plumbline_gpu_kernel_log_overruns_total",
    Unit::None,
    &[],
    "plumbline.gpu.kernel_log.overruns",
    "/dev/kmsg EPIPE",
    "How often the kernel's log had gone over what was not read yet: XIDs may be missing.",
);

pub static WORKER_UP: Series = gauge(
    "plumbline_gpu_worker_up",
    Unit::None,
    &["state"],
    "plumbline.gpu.worker.up",
    "the daemon",
    "Whether the process that alone opens NVML runs (1) or not (0): `running`, `absent` without a driver to ask, \
     `released` by `plumbline gpu release`, or `stuck` when it was killed and the driver does not let it end.",
);

pub static WORKER_RESTARTS_TOTAL: Series = counter(
    "plumbline_gpu_worker_restarts_total",
    Unit::None,
    &["reason"],
    "plumbline.gpu.worker.restarts",
    "the daemon",
    "How often the process that opens NVML ended: it `died`, it was killed because all GPUs were `silent`, its driver \
     was `gone` or changed, or it was `released`.",
);

pub static WORKER_CPU_SECONDS_TOTAL: Series = counter(
    "plumbline_gpu_worker_cpu_seconds_total",
    Unit::Seconds,
    &[],
    "plumbline.gpu.worker.cpu.time",
    "/proc/self/stat utime, stime of the GPU worker",
    "CPU time of the process that opens NVML, the library's own included.",
);

pub static WORKER_LIBRARY_CPU_SECONDS_TOTAL: Series = counter(
    "plumbline_gpu_worker_library_cpu_seconds_total",
    Unit::Seconds,
    &[],
    "plumbline.gpu.worker.library.cpu.time",
    "CLOCK_THREAD_CPUTIME_ID around each round of questions",
    "Of the GPU worker's CPU time, what passed while it asked: nearly all of it the library's and the driver's.",
);

pub static WORKER_RESIDENT_BYTES: Series = gauge(
    "plumbline_gpu_worker_resident_bytes",
    Unit::Bytes,
    &[],
    "plumbline.gpu.worker.memory.usage",
    "/proc/self/statm of the GPU worker",
    "Resident memory of the process that opens NVML, the library's own included.",
);

pub static SAMPLE_INTERVAL_SECONDS: Series = gauge(
    "plumbline_gpu_sample_interval_seconds",
    Unit::Seconds,
    &["round", "profile"],
    "plumbline.gpu.sample.interval",
    "the configuration",
    "How often a `light` and a `full` round of questions is asked now, under the `steady` or the `incident` profile.",
);
