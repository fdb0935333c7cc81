//! Who has a GPU, or an instance of one.

use super::{super::Series, Unit, gauge};

pub const ROWS: &[&Series] = &[&POD_INFO, &ALLOCATIONS, &UNKNOWN_ALLOCATIONS];

pub static POD_INFO: Series = gauge(
    "plumbline_gpu_pod_info",
    Unit::None,
    &["UUID", "gpu", "simulated", "GPU_I_ID", "pod", "namespace", "container", "source"],
    "plumbline.gpu.pod.info",
    "the kubelet, v1.PodResourcesLister/List; nvmlDeviceGetComputeRunningProcesses_v3 with /proc/PID/cgroup",
    "Always 1: the container has the GPU, or the GPU instance where `GPU_I_ID` names one; because the `kubelet` gave it, or \
     because one of its `processes` runs there. A shared GPU has several.",
);

pub static ALLOCATIONS: Series = gauge(
    "plumbline_gpu_allocations",
    Unit::None,
    &[],
    "plumbline.gpu.allocations",
    "the kubelet, v1.PodResourcesLister/List",
    "GPUs, instances and shares of them that the kubelet had given to containers when it was asked last; absent where there is \
     no kubelet or it does not answer.",
);

pub static UNKNOWN_ALLOCATIONS: Series = gauge(
    "plumbline_gpu_unknown_allocations",
    Unit::None,
    &[],
    "plumbline.gpu.unknown_allocations",
    "the kubelet, v1.PodResourcesLister/List",
    "Of what the kubelet had given, what is no GPU and no instance that the driver lists, by an id that means nothing here or \
     by where an instance lies.",
);
