//! One table of every series the daemon exports: name, kind, unit, meaning, source, OpenTelemetry name.
//!
//! The Prometheus and OTLP encoders and `docs/series.md` derive from [`TABLE`]; nothing is exported that has no
//! row here. A new series is one `static` in the file of its subject and one entry in that file's `ROWS`; a test
//! fails when a `static` is missing from its `ROWS`.

use std::sync::Arc;

pub mod agent;
pub mod container;
pub mod cost;
pub mod cuda;
#[cfg(test)]
mod docs;
pub mod engine;
pub mod gpu;
pub mod infiniband;
pub mod kernel;
pub mod nccl;
pub mod pod;
pub mod prometheus;
pub mod store;
pub mod timeline;

/// All rows, subject by subject.
pub const TABLE: &[&[&Series]] = &[
    agent::ROWS,
    kernel::ROWS,
    gpu::identity::ROWS,
    gpu::activity::ROWS,
    gpu::clock::ROWS,
    gpu::memory::ROWS,
    gpu::temperature::ROWS,
    gpu::power::ROWS,
    gpu::throttle::ROWS,
    gpu::ecc::ROWS,
    gpu::pcie::ROWS,
    gpu::nvlink::ROWS,
    gpu::fabric::ROWS,
    gpu::mig::ROWS,
    gpu::process::ROWS,
    gpu::holder::ROWS,
    gpu::xid::ROWS,
    gpu::dcgm::ROWS,
    cuda::ROWS,
    nccl::ROWS,
    infiniband::ROWS,
    engine::ROWS,
    container::ROWS,
    pod::ROWS,
    cost::ROWS,
    timeline::ROWS,
];

/// One exported time series family.
#[derive(Debug, PartialEq, Eq)]
pub struct Series {
    /// The Prometheus name, base unit last, `_total` at the end of a counter.
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    /// One sentence: what the number means, and what it does not.
    pub help: &'static str,
    /// Where the number comes from: the NVML call, the field of the engine's page, the kernel program.
    pub source: &'static str,
    /// The OpenTelemetry instrument name; empty for another name of a series that has one.
    pub otel: &'static str,
    /// Label names, in the order in which a [`Point`] gives the values.
    pub labels: &'static [&'static str],
}

impl Series {
    /// All of a row in a few lines, for files with many.
    const fn row(
        name: &'static str,
        kind: Kind,
        unit: Unit,
        otel: &'static str,
        labels: &'static [&'static str],
        source: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind, unit, help, source, otel, labels }
    }
}

/// What may be done with the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows, except at a restart of its source.
    Counter,
    Gauge,
    /// Cumulative buckets, kept as the source reports them.
    Histogram,
}

/// The base unit, spelled as OpenMetrics spells it in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    None,
    Seconds,
    Bytes,
    Ratio,
    Celsius,
    Watts,
    Joules,
    Hertz,
    Tokens,
    /// A money amount; the currency is a label (ISO 4217).
    Currency,
}

/// One value of one series at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub series: &'static Series,
    /// One value per name in [`Series::labels`]; shared by all points of the same part of the node.
    pub labels: Arc<[String]>,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(f64),
    Histogram(Histogram),
}

/// A cumulative histogram with the source's own bucket bounds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// `(upper bound, cumulative count)`, ascending, the last bound `+Inf`.
    pub buckets: Vec<(f64, u64)>,
    pub sum: f64,
    pub count: u64,
}

impl Point {
    /// A plain number. `labels` follow the order of [`Series::labels`].
    pub fn new(series: &'static Series, labels: &[&str], value: f64) -> Self {
        debug_assert_eq!(series.labels.len(), labels.len(), "{}", series.name);
        Self { series, labels: labels.iter().map(|&label| label.to_owned()).collect(), value: Value::Number(value) }
    }

    pub fn histogram(series: &'static Series, labels: &[&str], value: Histogram) -> Self {
        debug_assert_eq!(series.labels.len(), labels.len(), "{}", series.name);
        Self { series, labels: labels.iter().map(|&label| label.to_owned()).collect(), value: Value::Histogram(value) }
    }

    /// The number, when this is not a histogram.
    pub fn number(&self) -> Option<f64> {
        match self.value {
            Value::Number(number) => Some(number),
            Value::Histogram(_) => None,
        }
    }
}

/// Everything one source said at one time. It replaces all that the same source said before: a series that the
/// source no longer reports is absent, never zero and never stale.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Who speaks: `gpu`, or `engine:<name>`.
    pub source: String,
    /// When the reading began, nanoseconds of CLOCK_BOOTTIME.
    pub taken_boot_ns: u64,
    /// The reading, or why there is none.
    pub points: Result<Vec<Point>, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_end_as_their_kind_demands() {
        let mut seen = std::collections::BTreeSet::new();
        for row in TABLE.iter().copied().flatten() {
            assert!(seen.insert(row.name), "{} stands twice", row.name);
            assert_eq!(row.kind == Kind::Counter, row.name.ends_with("_total"), "{}", row.name);
            let is_alias = row.name.starts_with("DCGM_FI_");
            assert!(is_alias || row.name.starts_with("plumbline_"), "{}", row.name);
            assert!(
                row.help.ends_with('.')
                    && !row.help.is_empty()
                    && !row.source.is_empty()
                    && row.otel.is_empty() == is_alias,
                "{}",
                row.name
            );
        }
    }
}
