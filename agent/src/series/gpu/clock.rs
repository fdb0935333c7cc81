//! Clocks and performance state.

use super::{super::Series, GPU, Unit, gauge};

pub const ROWS: &[&Series] = &[&CLOCK_HERTZ, &CLOCK_MAX_HERTZ, &CLOCK_APPLICATION_HERTZ, &PERFORMANCE_STATE];

const CLOCK: &[&str] = &["UUID", "gpu", "simulated", "clock"];

pub static CLOCK_HERTZ: Series = gauge(
    "plumbline_gpu_clock_hertz",
    Unit::Hertz,
    CLOCK,
    "plumbline.gpu.clock",
    "nvmlDeviceGetClockInfo",
    "Clock of the streaming multiprocessors (`sm`), the memory or the video units at the time of asking.",
);

pub static CLOCK_MAX_HERTZ: Series = gauge(
    "plumbline_gpu_clock_max_hertz",
    Unit::Hertz,
    CLOCK,
    "plumbline.gpu.clock.max",
    "nvmlDeviceGetMaxClockInfo",
    "Highest clock that the domain can be given.",
);

pub static CLOCK_APPLICATION_HERTZ: Series = gauge(
    "plumbline_gpu_clock_application_hertz",
    Unit::Hertz,
    CLOCK,
    "plumbline.gpu.clock.application",
    "nvmlDeviceGetApplicationsClock",
    "Clock that was asked for while work runs, by `nvidia-smi -ac` or by default.",
);

pub static PERFORMANCE_STATE: Series = gauge(
    "plumbline_gpu_performance_state",
    Unit::None,
    GPU,
    "plumbline.gpu.performance_state",
    "nvmlDeviceGetPerformanceState",
    "The P-state: 0 is full performance, 15 the least.",
);
