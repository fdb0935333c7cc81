//! The daemon about itself.

use super::{Kind, Series, Unit};

pub static BUILD_INFO: Series = Series {
    name: "plumbline_build_info",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Always 1; the version and build digest are labels.",
    source: "the running executable",
    otel: "plumbline.build.info",
    labels: &["version", "build"],
};

pub static START_TIME: Series = Series {
    name: "plumbline_start_time_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    help: "When the daemon started, seconds since 1970-01-01 UTC.",
    source: "the wall clock at start",
    otel: "plumbline.start.time",
    labels: &[],
};

pub static CPU_SECONDS: Series = Series {
    name: "plumbline_cpu_seconds_total",
    kind: Kind::Counter,
    unit: Unit::Seconds,
    help: "CPU time of the daemon in user and kernel mode; the kernel programs run on the account of others.",
    source: "/proc/self/stat",
    otel: "plumbline.cpu.time",
    labels: &[],
};

pub static RESIDENT_MEMORY: Series = Series {
    name: "plumbline_resident_memory_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    help: "Resident memory of the daemon.",
    source: "/proc/self/statm",
    otel: "plumbline.memory.resident",
    labels: &[],
};

pub static EVENTS: Series = Series {
    name: "plumbline_events_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Events that reached the core, by kind.",
    source: "the core's own count",
    otel: "plumbline.events",
    labels: &["kind"],
};

pub static POLICY_MATCHES: Series = Series {
    name: "plumbline_policy_matches_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Events that a policy's rule matched.",
    source: "the policies' verdicts",
    otel: "plumbline.policy.matches",
    labels: &["policy", "rule", "effect", "severity"],
};

pub static POLICY_LAST_MATCH: Series = Series {
    name: "plumbline_policy_last_match_timestamp_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    help: "When a policy's rule matched last, seconds since 1970.",
    source: "the policies' verdicts",
    otel: "plumbline.policy.last_match",
    labels: &["policy", "rule"],
};

pub static POLICY_ALERTS_WITHHELD: Series = Series {
    name: "plumbline_policy_alerts_withheld_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Matches of which nobody was told, because the same was told not long ago (a rule's throttle).",
    source: "the policies' verdicts",
    otel: "plumbline.policy.alerts_withheld",
    labels: &["policy", "rule"],
};

pub static POLICY_ENFORCED: Series = Series {
    name: "plumbline_policy_enforced_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "What policies in `enforce` did, and what came of it: a process was killed, had ended before (gone), is never \
           killed (spared), or could not be (failed); what it asked for was denied, or was not although a rule says so \
           (missed).",
    source: "pidfd_send_signal(2), the verdicts of the kernel programs",
    otel: "plumbline.policy.enforced",
    labels: &["policy", "rule", "effect", "outcome"],
};

pub static POLICY_GENERATION: Series = Series {
    name: "plumbline_policy_generation",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Policy sets that were in force since the start, the present one included.",
    source: "the policies",
    otel: "plumbline.policy.generation",
    labels: &["digest"],
};

pub static LOG_RECORDS: Series = Series {
    name: "plumbline_log_records",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Records in the audit log: the size of its tree.",
    source: "the log",
    otel: "plumbline.log.records",
    labels: &[],
};

pub static LOG_CHECKPOINT: Series = Series {
    name: "plumbline_log_checkpoint_records",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Records that the last signed checkpoint covers.",
    source: "the log",
    otel: "plumbline.log.checkpoint.records",
    labels: &[],
};

pub static LOG_DURABLE: Series = Series {
    name: "plumbline_log_durable_records",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Records that are flushed to the disk.",
    source: "the log",
    otel: "plumbline.log.durable.records",
    labels: &[],
};

pub static LOG_EPOCH: Series = Series {
    name: "plumbline_log_epoch",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Number of the epoch whose key signs now.",
    source: "the log",
    otel: "plumbline.log.epoch",
    labels: &[],
};

pub static LOG_FREE: Series = Series {
    name: "plumbline_log_free_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    help: "Room left on the log's file system.",
    source: "statvfs(3)",
    otel: "plumbline.log.free",
    labels: &[],
};

pub static LOG_CHECKPOINT_INFO: Series = Series {
    name: "plumbline_log_checkpoint_info",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Always 1; size and root of the last signed checkpoint are labels, so that whoever scrapes keeps an anchor.",
    source: "the log",
    otel: "plumbline.log.checkpoint.info",
    labels: &["size", "root"],
};

pub static LOG_ERRORS: Series = Series {
    name: "plumbline_log_errors_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Records and checkpoints that could not be written when first tried.",
    source: "the log",
    otel: "plumbline.log.errors",
    labels: &["what"],
};

pub static SOURCE_UP: Series = Series {
    name: "plumbline_source_up",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "1 when the source's last reading succeeded; without it the source's series are absent.",
    source: "the last reading of each source",
    otel: "plumbline.source.up",
    labels: &["source"],
};

pub static SOURCE_AGE: Series = Series {
    name: "plumbline_source_age_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    help: "Time since the source's last reading was taken.",
    source: "the last reading of each source",
    otel: "plumbline.source.age",
    labels: &["source"],
};

pub static SOURCE_ERRORS: Series = Series {
    name: "plumbline_source_errors_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Readings that failed.",
    source: "the readings of each source",
    otel: "plumbline.source.errors",
    labels: &["source"],
};

pub static LABEL_OVERFLOW: Series = Series {
    name: "plumbline_label_overflow_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Values that went to the label set `other`, because their series had its full number of label sets.",
    source: "the store",
    otel: "plumbline.label.overflow",
    labels: &["series"],
};

pub static PROCESSES: Series = Series {
    name: "plumbline_processes",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Processes in the daemon's table, living and lately dead.",
    source: "the table of processes",
    otel: "plumbline.processes",
    labels: &[],
};

pub static EXPORTED: Series = Series {
    name: "plumbline_exported_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Records or data points in requests that the receiver acknowledged.",
    source: "the answers of each exporter's receiver",
    otel: "plumbline.exported",
    labels: &["exporter"],
};

pub static EXPORT_ERRORS: Series = Series {
    name: "plumbline_export_errors_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Attempts to export that failed, and requests that the receiver took only in part.",
    source: "the attempts of each exporter",
    otel: "plumbline.export.errors",
    labels: &["exporter"],
};

pub static EXPORT_LAG: Series = Series {
    name: "plumbline_export_lag_records",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Signed records of the audit log that the exporter's receiver has not acknowledged.",
    source: "the log's checkpoint and the exporter's cursor",
    otel: "plumbline.export.lag",
    labels: &["exporter"],
};

pub static DNS_MESSAGES: Series = Series {
    name: "plumbline_dns_messages_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Messages of the domain name system, by what became of them: `question`, `answer`, or why no name was taken as certain.",
    source: "the core's own count",
    otel: "plumbline.dns.messages",
    labels: &["outcome"],
};

pub static DNS_NAMES: Series = Series {
    name: "plumbline_dns_names",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Names of addresses that are remembered, of all network namespaces.",
    source: "the core's own table",
    otel: "plumbline.dns.names",
    labels: &[],
};

pub static PODS: Series = Series {
    name: "plumbline_pods",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Pods of this node that the kubelet named when it was asked last; absent where it is not asked or does not answer.",
    source: "the kubelet, GET /pods",
    otel: "plumbline.pods",
    labels: &[],
};

pub const ROWS: &[&Series] = &[
    &PODS,
    &BUILD_INFO,
    &START_TIME,
    &CPU_SECONDS,
    &RESIDENT_MEMORY,
    &EVENTS,
    &POLICY_MATCHES,
    &POLICY_LAST_MATCH,
    &POLICY_ALERTS_WITHHELD,
    &POLICY_ENFORCED,
    &POLICY_GENERATION,
    &LOG_RECORDS,
    &LOG_CHECKPOINT,
    &LOG_DURABLE,
    &LOG_EPOCH,
    &LOG_FREE,
    &LOG_CHECKPOINT_INFO,
    &LOG_ERRORS,
    &SOURCE_UP,
    &SOURCE_AGE,
    &SOURCE_ERRORS,
    &LABEL_OVERFLOW,
    &PROCESSES,
    &DNS_MESSAGES,
    &DNS_NAMES,
    &EXPORTED,
    &EXPORT_ERRORS,
    &EXPORT_LAG,
];
