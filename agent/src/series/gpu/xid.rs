//! The driver's error numbers.

use super::{super::Series, Unit, counter};

pub const ROWS: &[&Series] = &[&XID_ERRORS_TOTAL, &NVSWITCH_ERRORS_TOTAL];

pub static XID_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_xid_errors_total",
    Unit::None,
    &["UUID", "gpu", "simulated", "xid", "source"],
    "plumbline.gpu.xid.errors",
    "nvmlEventSetWait_v2 (`nvml`), /dev/kmsg (`kernel`)",
    "XID errors that the driver told since the daemon started, by number and by who told: NVML's event set or the kernel's \
     log, which do not always agree. `UUID` is `PCI:…` where the driver lists no GPU at that place.",
);

pub static NVSWITCH_ERRORS_TOTAL: Series = counter(
    "plumbline_gpu_nvswitch_errors_total",
    Unit::None,
    &["switch", "pci_bus_id", "sxid", "severity"],
    "plumbline.gpu.nvswitch.errors",
    "/dev/kmsg",
    "SXID errors of an NVSwitch that the driver told since the daemon started, `fatal` or `non_fatal`; switches newer than \
     Hopper's tell none.",
);
