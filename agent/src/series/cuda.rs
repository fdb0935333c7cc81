//! What processes ask of CUDA's driver: counted at its functions, by process, device and call.
//!
//! `device` is the process's own number of it (`CUDA_VISIBLE_DEVICES`), or `unknown` where the thread set no context in our sight. `pid` is
//! the host's; the process's name and pod are empty where nobody knows them.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] = &[
    &CALLS_TOTAL,
    &CALL_SECONDS_TOTAL,
    &WAIT_SECONDS,
    &FAILURES_TOTAL,
    &ALLOCATED_BYTES,
    &COPIED_BYTES_TOTAL,
    &DEVICE_INFO,
    &PROBED_FUNCTIONS,
    &WATCHED_SECONDS_TOTAL,
    &THINNED,
    &PROBE_RATIO,
    &PROBE_SECONDS_TOTAL,
    &TRAP_SECONDS,
    &PROGRAM_SECONDS,
    &LOST_TOTAL,
];

const SOURCE: &str = "probes at the functions of libcuda";

pub static CALLS_TOTAL: Series = Series::row(
    "plumbline_cuda_calls_total",
    Kind::Counter,
    Unit::None,
    "plumbline.cuda.calls",
    &["pid", "process", "pod", "namespace", "container", "device", "call"],
    SOURCE,
    "Calls of CUDA's driver, failed ones included: what the process asked of the GPU, not what the GPU did. A graph launch is one, whatever \
     it launches; `launch` is there at `cuda.detail: full` only.",
);

pub static CALL_SECONDS_TOTAL: Series = Series::row(
    "plumbline_cuda_call_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "plumbline.cuda.call.time",
    &["pid", "process", "pod", "namespace", "container", "device", "call"],
    SOURCE,
    "Time in calls of CUDA's driver that are neither launches, waits nor memory's: copies, modules, contexts, graphs.",
);

pub static WAIT_SECONDS: Series = Series::row(
    "plumbline_cuda_wait_seconds",
    Kind::Histogram,
    Unit::Seconds,
    "plumbline.cuda.wait.duration",
    &["pid", "process", "pod", "namespace", "container", "device", "call"],
    SOURCE,
    "How long the process waited for the GPU in one synchronisation. Who asks again and again whether it is done waits too, and is not here.",
);

pub static FAILURES_TOTAL: Series = Series::row(
    "plumbline_cuda_failures_total",
    Kind::Counter,
    Unit::None,
    "plumbline.cuda.failures",
    &["pid", "process", "pod", "namespace", "container", "device", "call", "result"],
    SOURCE,
    "Calls of CUDA's driver that failed, by result (`CUresult`); of launches it is not looked at.",
);

pub static ALLOCATED_BYTES: Series = Series::row(
    "plumbline_cuda_allocated_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "plumbline.cuda.memory.usage",
    &["pid", "process", "pod", "namespace", "container", "device"],
    SOURCE,
    "Memory that the process has allocated and not freed since it is looked at: of the device, managed, and physical memory to be mapped.",
);

pub static COPIED_BYTES_TOTAL: Series = Series::row(
    "plumbline_cuda_copied_bytes_total",
    Kind::Counter,
    Unit::Bytes,
    "plumbline.cuda.copy.io",
    &["pid", "process", "pod", "namespace", "container", "device", "direction"],
    SOURCE,
    "Bytes that the process asked to be copied; `any` where the addresses alone say from where to where.",
);

pub static DEVICE_INFO: Series = Series::row(
    "plumbline_cuda_device_info",
    Kind::Gauge,
    Unit::None,
    "plumbline.cuda.device.info",
    &["pid", "process", "pod", "namespace", "container", "device", "UUID", "GPU_I_ID", "source"],
    "cuDeviceGetUuid; nvmlDeviceGetComputeRunningProcesses_v3",
    "Always 1: the process's `device` is this GPU, or this instance of it where `GPU_I_ID` names one; because the `driver` told the process so \
     in our sight, or because NVML's list of `processes` has it on this GPU and no other. A UUID without `GPU-` in front is of nothing that \
     NVML lists.",
);

pub static PROBED_FUNCTIONS: Series = Series::row(
    "plumbline_cuda_probed_functions",
    Kind::Gauge,
    Unit::None,
    "plumbline.cuda.probed_functions",
    &["library"],
    "attachments to libcuda",
    "Functions of the library that are looked at, as a process sees its path; of several files of one path together.",
);

pub static WATCHED_SECONDS_TOTAL: Series = Series::row(
    "plumbline_cuda_watched_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "plumbline.cuda.watched.time",
    &["part"],
    "attachments to libcuda and libnccl",
    "For how long each part of the calls was looked at: `launches` of single kernels; `steps`, which are launches of graphs, copies and \
     waits; the `rest`. What is thinned is counted for a second of each minute: divide by the increase of this to have a rate.",
);

pub static THINNED: Series = Series::row(
    "plumbline_cuda_thinned",
    Kind::Gauge,
    Unit::None,
    "plumbline.cuda.thinned",
    &["part"],
    "attachments to libcuda and libnccl",
    "1 while a part that is wanted is looked at for a second of each minute only, as the probes would cost some process more than \
     `cuda.budget_percent`.",
);

pub static PROBE_RATIO: Series = Series::row(
    "plumbline_cuda_probe_ratio",
    Kind::Gauge,
    Unit::Ratio,
    "plumbline.cuda.probe.utilization",
    &["pid", "process", "pod", "namespace", "container"],
    "calls that were counted, times what one costs",
    "What the probes cost the process, of its CPU time or a tenth of a core, whichever is more: reckoned from how often it was stopped and \
     what that costs, not measured.",
);

pub static PROBE_SECONDS_TOTAL: Series = Series::row(
    "plumbline_cuda_probe_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "plumbline.cuda.probe.time",
    &["pid", "process", "pod", "namespace", "container"],
    "calls that were counted, times what one costs",
    "CPU time that the probes cost the process, reckoned as `plumbline_cuda_probe_ratio` is.",
);

pub static TRAP_SECONDS: Series = Series::row(
    "plumbline_cuda_trap_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "plumbline.cuda.trap.duration",
    &["prologue", "at"],
    "functions of the daemon's own, timed with a probe and without when the first library was found",
    "What a probe that does nothing costs one call: of functions whose first instruction the kernel does itself (`emulated`, as NCCL's) or \
     not (`stepped`, as the driver's); at the entry, or at the return as well.",
);

pub static PROGRAM_SECONDS: Series = Series::row(
    "plumbline_cuda_program_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "plumbline.cuda.program.duration",
    &["program"],
    "BPF_ENABLE_STATS, for a second of each minute",
    "What a program of a probe took for one run in the last such second in which it ran. Of `nothing`, which does nothing, it is nearly all the \
     timing itself, once when the first library is found: what a call costs is told without it.",
);

pub static LOST_TOTAL: Series = Series::row(
    "plumbline_cuda_lost_total",
    Kind::Counter,
    Unit::None,
    "plumbline.cuda.lost",
    &["what"],
    SOURCE,
    "What is not in the counts: calls for which a table had no room, handles that are freed and were not seen to be allocated, or for which (or for a device) a table had no room, returns whose \
     entry was not seen, communicators of NCCL for which a table had no room, records of what is told at once that found their ring full, and findings that were \
     too many.",
);
