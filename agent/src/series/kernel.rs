//! The kernel programs: which run, how much they told, what was lost.

use super::{Kind, Series, Unit};

pub static HOOK_ATTACHED: Series = Series {
    name: "plumbline_hook_attached",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "1 when the hook is attached, on the rung of the label; 0 with the rung `none` when the kernel took no rung.",
    source: "the loader's verdict",
    otel: "plumbline.hook.attached",
    labels: &["hook", "rung"],
};

pub static GENERATED: Series = Series {
    name: "plumbline_kernel_records_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Records that were due in the kernel: delivered and lost ones.",
    source: "the per-CPU counters of the kernel programs",
    otel: "plumbline.kernel.records",
    labels: &["program"],
};

pub static LOST: Series = Series {
    name: "plumbline_lost_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Records that never reached the log, by the place where they were lost.",
    source: "the per-CPU counters of the kernel programs, recursion_misses of the kernel, the decoder",
    otel: "plumbline.lost",
    labels: &["place", "what"],
};

pub static WATCHED_DIRECTORIES: Series = Series {
    name: "plumbline_watched_directories",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Directories that the kernel programs compare with the ancestors of every opened file.",
    source: "the enrolment",
    otel: "plumbline.watched.directories",
    labels: &[],
};

pub static MAP_MEMORY: Series = Series {
    name: "plumbline_kernel_map_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    help: "Memory of all kernel maps of the daemon, which its policies share.",
    source: "memlock of /proc/self/fdinfo",
    otel: "plumbline.kernel.map.size",
    labels: &[],
};

pub static FAILED_OPEN: Series = Series {
    name: "plumbline_opens_failed_open_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Opens that were allowed because nobody had decided in 50 ms, where fanotify asks; absent where the kernel decides.",
    source: "the answers to fanotify's questions",
    otel: "plumbline.opens.failed_open",
    labels: &[],
};

pub const ROWS: &[&Series] = &[&HOOK_ATTACHED, &GENERATED, &LOST, &WATCHED_DIRECTORIES, &MAP_MEMORY, &FAILED_OPEN];
