//! What the kubelet says of the pods of this node, where it may be asked.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] = &[
    &PHASE,
    &CONTAINER_READY,
    &CONTAINER_RESTARTS_TOTAL,
    &CONTAINER_LAST_ENDED,
    &CPU_LIMIT_CORES,
    &MEMORY_LIMIT_BYTES,
    &GPU_LIMIT,
];

const POD: &[&str] = &["namespace", "pod", "phase"];
const CONTAINER: &[&str] = &["namespace", "pod", "container"];
const ENDED: &[&str] = &["namespace", "pod", "container", "reason", "exit_code"];

pub static PHASE: Series = Series::row(
    "plumbline_pod_phase",
    Kind::Gauge,
    Unit::None,
    "k8s.pod.phase",
    POD,
    "the kubelet, GET /pods, status.phase",
    "Always 1; the phase that the pod is in: `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.",
);

pub static CONTAINER_READY: Series = Series::row(
    "plumbline_pod_container_ready",
    Kind::Gauge,
    Unit::None,
    "k8s.container.ready",
    CONTAINER,
    "status.containerStatuses[].ready",
    "Whether the container's own probe says that it can serve (1) or not (0).",
);

pub static CONTAINER_RESTARTS_TOTAL: Series = Series::row(
    "plumbline_pod_container_restarts_total",
    Kind::Counter,
    Unit::None,
    "k8s.container.restart.count",
    CONTAINER,
    "status.containerStatuses[].restartCount",
    "How often the kubelet has started the container anew; it may forget some, as it counts dead containers that are still there.",
);

pub static CONTAINER_LAST_ENDED: Series = Series::row(
    "plumbline_pod_container_last_ended",
    Kind::Gauge,
    Unit::None,
    "plumbline.k8s.container.last_ended",
    ENDED,
    "status.containerStatuses[].lastState.terminated",
    "Always 1; why the container ended the last time, such as `OOMKilled`, `Error` or `Completed`, and with what code.",
);

pub static CPU_LIMIT_CORES: Series = Series::row(
    "plumbline_pod_container_cpu_limit_cores",
    Kind::Gauge,
    Unit::None,
    "k8s.container.cpu.limit",
    CONTAINER,
    "spec.containers[].resources.limits.cpu",
    "CPU that the container may use, as its pod asks for it; absent without a limit.",
);

pub static MEMORY_LIMIT_BYTES: Series = Series::row(
    "plumbline_pod_container_memory_limit_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "k8s.container.memory.limit",
    CONTAINER,
    "spec.containers[].resources.limits.memory",
    "Memory that the container may use, as its pod asks for it; absent without a limit.",
);

pub static GPU_LIMIT: Series = Series::row(
    "plumbline_pod_container_gpu_limit",
    Kind::Gauge,
    Unit::None,
    "plumbline.k8s.container.gpu.limit",
    CONTAINER,
    "spec.containers[].resources.limits, nvidia.com/gpu and nvidia.com/mig-*",
    "GPUs or MIG instances that the container asks for; absent where it asks for none.",
);
