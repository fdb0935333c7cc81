//! What the control group of a serving engine has used, waited for and been refused. Every series has the label `engine` first, so that
//! it joins with what the engine says of itself.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] = &[
    &INFO,
    &CPU_SECONDS_TOTAL,
    &CPU_PERIODS_TOTAL,
    &CPU_THROTTLED_PERIODS_TOTAL,
    &CPU_THROTTLED_SECONDS_TOTAL,
    &CPU_LIMIT_CORES,
    &MEMORY_USAGE_BYTES,
    &MEMORY_WORKING_SET_BYTES,
    &MEMORY_LIMIT_BYTES,
    &OOM_KILLS_TOTAL,
    &PRESSURE_SECONDS_TOTAL,
    &IO_BYTES_TOTAL,
    &PROCESSES,
    &RESTARTS_TOTAL,
];

const ENGINE: &[&str] = &["engine"];

pub static INFO: Series = Series::row(
    "plumbline_container_info",
    Kind::Gauge,
    Unit::None,
    "plumbline.container.info",
    &["engine", "container", "runtime", "pod_uid", "pid"],
    "/proc/PID/cgroup",
    "Always 1; which container and pod the engine's process is in (empty where none), and its process id.",
);

pub static CPU_SECONDS_TOTAL: Series = Series::row(
    "plumbline_container_cpu_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "container.cpu.time",
    &["engine", "mode"],
    "cpu.stat user_usec, system_usec; before v2 cpuacct.usage_user, cpuacct.usage_sys",
    "CPU time of all processes of the engine's control group, in `user` and `system` mode.",
);

pub static CPU_PERIODS_TOTAL: Series = Series::row(
    "plumbline_container_cpu_periods_total",
    Kind::Counter,
    Unit::None,
    "plumbline.container.cpu.periods",
    ENGINE,
    "cpu.stat nr_periods",
    "Periods of the CPU limit in which the group had something to run; absent without a limit.",
);

pub static CPU_THROTTLED_PERIODS_TOTAL: Series = Series::row(
    "plumbline_container_cpu_throttled_periods_total",
    Kind::Counter,
    Unit::None,
    "plumbline.container.cpu.throttled_periods",
    ENGINE,
    "cpu.stat nr_throttled",
    "Periods in which the group had used up its CPU limit and was stopped.",
);

pub static CPU_THROTTLED_SECONDS_TOTAL: Series = Series::row(
    "plumbline_container_cpu_throttled_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "plumbline.container.cpu.throttled_time",
    ENGINE,
    "cpu.stat throttled_usec; before v2 throttled_time",
    "How long the group was stopped for its CPU limit, added up over CPUs.",
);

pub static CPU_LIMIT_CORES: Series = Series::row(
    "plumbline_container_cpu_limit_cores",
    Kind::Gauge,
    Unit::None,
    "plumbline.container.cpu.limit",
    ENGINE,
    "cpu.max; before v2 cpu.cfs_quota_us, cpu.cfs_period_us",
    "CPU time per time that the group may use, in cores; absent without a limit.",
);

pub static MEMORY_USAGE_BYTES: Series = Series::row(
    "plumbline_container_memory_usage_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "container.memory.usage",
    ENGINE,
    "memory.current; before v2 memory.usage_in_bytes",
    "Memory charged to the group, page cache included: weights that are mapped count here.",
);

pub static MEMORY_WORKING_SET_BYTES: Series = Series::row(
    "plumbline_container_memory_working_set_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "container.memory.working_set",
    ENGINE,
    "memory.current less memory.stat inactive_file, as the kubelet reckons it for evictions",
    "Memory that the kernel cannot simply drop.",
);

pub static MEMORY_LIMIT_BYTES: Series = Series::row(
    "plumbline_container_memory_limit_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "plumbline.container.memory.limit",
    ENGINE,
    "memory.max; before v2 memory.limit_in_bytes",
    "Memory that the group may use before the kernel ends processes of it; absent without a limit.",
);

pub static OOM_KILLS_TOTAL: Series = Series::row(
    "plumbline_container_oom_kills_total",
    Kind::Counter,
    Unit::None,
    "plumbline.container.oom_kills",
    ENGINE,
    "memory.events oom_kill; before v2 memory.oom_control",
    "Processes of the group that the kernel has ended for want of memory.",
);

pub static PRESSURE_SECONDS_TOTAL: Series = Series::row(
    "plumbline_container_pressure_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "plumbline.container.pressure",
    &["engine", "resource", "kind"],
    "cpu.pressure, memory.pressure, io.pressure, total (Documentation/accounting/psi.rst); v2 only",
    "Time in which `some` process of the group, or all of them (`full`), waited for `cpu`, `memory` or `io`.",
);

pub static IO_BYTES_TOTAL: Series = Series::row(
    "plumbline_container_io_bytes_total",
    Kind::Counter,
    Unit::Bytes,
    "container.disk.io",
    &["engine", "direction"],
    "io.stat rbytes, wbytes; before v2 blkio.throttle.io_service_bytes",
    "Bytes that the group has read from and written to block devices (`read`, `write`).",
);

pub static PROCESSES: Series = Series::row(
    "plumbline_container_processes",
    Kind::Gauge,
    Unit::None,
    "plumbline.container.processes",
    ENGINE,
    "pids.current",
    "Processes and threads of the group.",
);

pub static RESTARTS_TOTAL: Series = Series::row(
    "plumbline_container_restarts_total",
    Kind::Counter,
    Unit::None,
    "plumbline.container.restarts",
    ENGINE,
    "/proc/PID/stat starttime",
    "How often the engine was seen to be another process than before, since the daemon started.",
);
