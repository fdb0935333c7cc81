//! What processes ask of NCCL, and who of a communicator comes last: counted at NCCL's functions.
//!
//! `comm` is NCCL's own hash of the communicator (`commHash`, which its log, RAS and Inspector print), the same for all its ranks; `unknown`
//! where it began before our time. `pid` is the host's.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] = &[
    &RANK_INFO,
    &ASYNC_ERROR,
    &VISIBLE_RATIO,
    &CALLS_TOTAL,
    &BYTES_TOTAL,
    &ARRIVAL_SKEW_SECONDS,
    &LAST_ARRIVALS_TOTAL,
    &LATENESS_SECONDS_TOTAL,
    &AWAITED_SECONDS,
    &MISMATCHED_TOTAL,
    &GRAPH_LAUNCH_SKEW_SECONDS,
    &GRAPH_LAUNCH_LAST_TOTAL,
    &GRAPH_LAUNCH_LATENESS_SECONDS_TOTAL,
    &GRAPH_LAUNCH_MISMATCHED_TOTAL,
    &RAS_RANKS,
    &RAS_BEHIND,
    &RAS_ANSWERS_TOTAL,
    &INSPECTOR_BUS_BANDWIDTH,
    &INSPECTOR_DURATION,
    &WARNINGS_TOTAL,
    &LOG_FILES,
    &LOG_JOURNAL,
    &LOG_SKIPPED_BYTES_TOTAL,
];

const SOURCE: &str = "probes at the functions of libnccl";

pub static RANK_INFO: Series = Series::row(
    "plumbline_nccl_rank_info",
    Kind::Gauge,
    Unit::None,
    "plumbline.nccl.rank.info",
    &["pid", "process", "pod", "namespace", "container", "comm", "rank", "ranks"],
    SOURCE,
    "One for each communicator of each process: which rank it is, of how many.",
);

pub static ASYNC_ERROR: Series = Series::row(
    "plumbline_nccl_async_error",
    Kind::Gauge,
    Unit::None,
    "plumbline.nccl.async_error",
    &["pid", "process", "pod", "namespace", "container", "comm", "rank", "result"],
    SOURCE,
    "1 while NCCL says so of the communicator when the process asks it (`ncclCommGetAsyncError`), as PyTorch does all the time.",
);

pub static VISIBLE_RATIO: Series = Series::row(
    "plumbline_nccl_visible_ratio",
    Kind::Gauge,
    Unit::Ratio,
    "plumbline.nccl.visible.utilization",
    &["pid", "process", "pod", "namespace", "container"],
    SOURCE,
    "How much of the process's NCCL is seen when it is done, by number of calls since it is looked at: what graphs replay is not, and is \
     reckoned from what a recording held on average, times launches of graphs. All-reduces of an engine's own are not NCCL's, and in neither.",
);

pub static CALLS_TOTAL: Series = Series::row(
    "plumbline_nccl_calls_total",
    Kind::Counter,
    Unit::None,
    "plumbline.nccl.calls",
    &["pid", "process", "pod", "namespace", "container", "comm", "rank", "function", "captured"],
    SOURCE,
    "Collectives and transfers that the process called. Those that are `captured` were recorded into a graph, and done whenever that is \
     launched, which is not seen here; nor are all-reduces of an engine's own.",
);

pub static BYTES_TOTAL: Series = Series::row(
    "plumbline_nccl_bytes_total",
    Kind::Counter,
    Unit::Bytes,
    "plumbline.nccl.io",
    &["pid", "process", "pod", "namespace", "container", "comm", "rank", "function", "captured"],
    SOURCE,
    "Elements that the process handed over, times their size, as NCCL counts them: of a gather or a scatter those of one rank.",
);

pub static ARRIVAL_SKEW_SECONDS: Series = Series::row(
    "plumbline_nccl_arrival_skew_seconds",
    Kind::Histogram,
    Unit::Seconds,
    "plumbline.nccl.arrival.skew",
    &["comm"],
    SOURCE,
    "From the first member of this node to call a collective to the last, over those that all members of this node called. It is when \
     processes asked, not when GPUs did.",
);

pub static LAST_ARRIVALS_TOTAL: Series = Series::row(
    "plumbline_nccl_last_arrivals_total",
    Kind::Counter,
    Unit::None,
    "plumbline.nccl.last_arrivals",
    &["comm", "rank"],
    SOURCE,
    "Collectives to which the rank came last of this node.",
);

pub static LATENESS_SECONDS_TOTAL: Series = Series::row(
    "plumbline_nccl_lateness_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "plumbline.nccl.lateness",
    &["comm", "rank"],
    SOURCE,
    "How long after the first of this node the rank came to its collectives, summed.",
);

pub static AWAITED_SECONDS: Series = Series::row(
    "plumbline_nccl_awaited_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "plumbline.nccl.awaited",
    &["comm", "rank"],
    SOURCE,
    "For how long another member of this node has been waiting for this rank at a collective that it has not called; 0 when nobody does.",
);

pub static MISMATCHED_TOTAL: Series = Series::row(
    "plumbline_nccl_mismatched_total",
    Kind::Counter,
    Unit::None,
    "plumbline.nccl.mismatched",
    &["comm"],
    SOURCE,
    "Collectives in which a rank called another function, type or count than the first: an error of the program, or members counted from \
     different beginnings. Their arrivals are not compared.",
);

/// What members of a communicator are compared by.
#[derive(Debug)]
pub struct Compared {
    pub skew_seconds: &'static Series,
    pub mismatched: &'static Series,
    pub last: &'static Series,
    pub lateness_seconds: &'static Series,
}

pub static COLLECTIVES: Compared = Compared {
    skew_seconds: &ARRIVAL_SKEW_SECONDS,
    mismatched: &MISMATCHED_TOTAL,
    last: &LAST_ARRIVALS_TOTAL,
    lateness_seconds: &LATENESS_SECONDS_TOTAL,
};

pub static GRAPH_LAUNCHES: Compared = Compared {
    skew_seconds: &GRAPH_LAUNCH_SKEW_SECONDS,
    mismatched: &GRAPH_LAUNCH_MISMATCHED_TOTAL,
    last: &GRAPH_LAUNCH_LAST_TOTAL,
    lateness_seconds: &GRAPH_LAUNCH_LATENESS_SECONDS_TOTAL,
};

const LAUNCHES: &str = "probes at the functions of libnccl and at cuGraphLaunch";

pub static GRAPH_LAUNCH_SKEW_SECONDS: Series = Series::row(
    "plumbline_nccl_graph_launch_skew_seconds",
    Kind::Histogram,
    Unit::Seconds,
    "plumbline.nccl.graph_launch.skew",
    &["comm"],
    LAUNCHES,
    "From the first member of this node to launch a graph to the last. Launches are numbered by each thread from the last collective that it \
     called or recorded, and those of one number are taken for one.",
);

pub static GRAPH_LAUNCH_LAST_TOTAL: Series = Series::row(
    "plumbline_nccl_graph_launch_last_total",
    Kind::Counter,
    Unit::None,
    "plumbline.nccl.graph_launch.last",
    &["comm", "rank"],
    LAUNCHES,
    "Launches of graphs to which the rank came last of this node.",
);

pub static GRAPH_LAUNCH_LATENESS_SECONDS_TOTAL: Series = Series::row(
    "plumbline_nccl_graph_launch_lateness_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "plumbline.nccl.graph_launch.lateness",
    &["comm", "rank"],
    LAUNCHES,
    "How long after the first of this node the rank launched its graphs, summed.",
);

pub static GRAPH_LAUNCH_MISMATCHED_TOTAL: Series = Series::row(
    "plumbline_nccl_graph_launch_mismatched_total",
    Kind::Counter,
    Unit::None,
    "plumbline.nccl.graph_launch.mismatched",
    &["comm"],
    LAUNCHES,
    "Launches of which it cannot be told whether they are the same, and were not compared: ranks came further apart than half of the time \
     since the launch before, of the one for which that is least, or than three quarters where most had come within a quarter. And how often a rank had launched more or fewer graphs than others when it came to a collective.",
);

const INSPECTOR: &str = "files that NCCL Inspector writes (`cuda.nccl_inspector`)";
const INSPECTOR_LABELS: &[&str] = &["file", "gpu", "comm", "ranks", "operation", "message_size", "algorithm"];

pub static INSPECTOR_BUS_BANDWIDTH: Series = Series::row(
    "plumbline_nccl_inspector_bus_bandwidth_bytes_per_second",
    Kind::Gauge,
    Unit::None,
    "plumbline.nccl.inspector.bus_bandwidth",
    INSPECTOR_LABELS,
    INSPECTOR,
    "What the GPU moved, as NCCL reckons bandwidth of the bus, the geometric mean of what Inspector wrote last. `file` is what the file is called, in which \
     the GPU's UUID is; `gpu`, `comm` and the rest are what Inspector calls them: `comm` is a name, or the hash, `gpu` the process's own number.",
);

pub static INSPECTOR_DURATION: Series = Series::row(
    "plumbline_nccl_inspector_duration_seconds",
    Kind::Gauge,
    Unit::Seconds,
    "plumbline.nccl.inspector.duration",
    INSPECTOR_LABELS,
    INSPECTOR,
    "How long a collective or transfer took on the GPU, on average of what Inspector wrote last.",
);

const RAS: &str = "NCCL's RAS, asked once a minute (`cuda.nccl_ras`)";

pub static RAS_RANKS: Series = Series::row(
    "plumbline_nccl_ras_ranks",
    Kind::Gauge,
    Unit::None,
    "plumbline.nccl.ras.ranks",
    &["pid", "process", "pod", "namespace", "container", "comm", "state"],
    RAS,
    "Ranks of a communicator, those of other nodes among them: `running`, `ending`, `failed`, `unresponsive` or `dead`. The process is the one \
     by whose network namespace RAS was asked.",
);

pub static RAS_BEHIND: Series = Series::row(
    "plumbline_nccl_ras_behind",
    Kind::Gauge,
    Unit::None,
    "plumbline.nccl.ras.behind",
    &["pid", "process", "pod", "namespace", "container", "comm", "rank"],
    RAS,
    "How many collectives fewer than another the rank has called, of the function of which that is most; for ranks that are behind, the 64 \
     furthest of each communicator. What graphs replay does not count.",
);

pub static RAS_ANSWERS_TOTAL: Series = Series::row(
    "plumbline_nccl_ras_answers_total",
    Kind::Counter,
    Unit::None,
    "plumbline.nccl.ras.answers",
    &["outcome"],
    RAS,
    "What became of asking: `report`, `nobody` listens (NCCL before 2.24, or `NCCL_RAS_ENABLE=0`, or another `NCCL_RAS_ADDR`), or `error` \
     (NCCL before 2.28 speaks no JSON).",
);

const LOGS: &str = "files of `cuda.nccl_logs`, and journald (`cuda.nccl_journal`)";

pub static WARNINGS_TOTAL: Series = Series::row(
    "plumbline_nccl_warnings_total",
    Kind::Counter,
    Unit::None,
    "plumbline.nccl.warnings",
    &["place"],
    LOGS,
    "Lines `NCCL WARN` of NCCL's log, by where in NCCL's source; `other` beyond 64 places.",
);

pub static LOG_FILES: Series = Series::row(
    "plumbline_nccl_log_files",
    Kind::Gauge,
    Unit::None,
    "plumbline.nccl.log.files",
    &[],
    LOGS,
    "Files that are followed for lines of NCCL's log.",
);

pub static LOG_JOURNAL: Series = Series::row(
    "plumbline_nccl_log_journal",
    Kind::Gauge,
    Unit::None,
    "plumbline.nccl.log.journal",
    &[],
    "`journalctl`, of the files in `cuda.nccl_journal`",
    "1 while journald is followed for lines of NCCL's log.",
);

pub static LOG_SKIPPED_BYTES_TOTAL: Series = Series::row(
    "plumbline_nccl_log_skipped_bytes_total",
    Kind::Counter,
    Unit::Bytes,
    "plumbline.nccl.log.skipped",
    &[],
    LOGS,
    "What was not read of them: lines longer than a mebibyte, and what a file was ahead by more than 16.",
);
