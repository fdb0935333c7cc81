//! What keeps the clocks down, now and for how long since the driver was loaded.

use super::{super::Series, Unit, counter, gauge};

pub const ROWS: &[&Series] = &[&THROTTLE_ACTIVE, &THROTTLE_SECONDS_TOTAL];

const REASON: &[&str] = &["UUID", "gpu", "simulated", "reason"];

pub static THROTTLE_ACTIVE: Series = gauge(
    "plumbline_gpu_throttle_active",
    Unit::None,
    REASON,
    "plumbline.gpu.throttle.active",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "Whether the reason kept the clocks from being higher at the time of asking (1) or not (0); several may at once, and \
     `other` is a reason that this version does not know.",
);

pub static THROTTLE_SECONDS_TOTAL: Series = counter(
    "plumbline_gpu_throttle_seconds_total",
    Unit::Seconds,
    REASON,
    "plumbline.gpu.throttle.time",
    "fields 74 to 81 and 251 to 253 (269 to 271 from driver 580.82 on), nanoseconds",
    "Time for which the reason has kept the clocks down, counted by the driver in nanoseconds, so that no burst between \
     two readings is missed.",
);
