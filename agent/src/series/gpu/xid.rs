//! The driver's error numbers.

use super::{super::Series, Unit, counter};

pub const ROWS: &[&Series] = &[&XID_ERRORS_TOTAL];

pub static XID_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_xid_errors_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "xid", "source"],
    "plumbline.gpu.xid.errors",
    "nvmlEventSetWait_v2 (`nvml`), /dev/kmsg (`kernel`)",
    "XID errors that the driver told since the daemon started, by number and by who told: NVML's event set or the kernel's \
     log, which do not always agree. `UUID` is `PCI:…` where the driver lists no GPU at that place.",
);
