//! What remembering the recent past takes.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] = &[&TRACKS, &MEMORY_BYTES, &REFUSED_TOTAL, &FORGOTTEN_TOTAL];

const fn of(name: &'static str, kind: Kind, unit: Unit, otel: &'static str, help: &'static str) -> Series {
    Series { name, kind, unit, help, source: "the timeline", otel, labels: &[] }
}

pub static TRACKS: Series = of(
    "plumbline_timeline_series",
    Kind::Gauge,
    Unit::None,
    "plumbline.timeline.series",
    "Series, each with its labels, of which the last hour is remembered.",
);

pub static MEMORY_BYTES: Series = of(
    "plumbline_timeline_memory_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "plumbline.timeline.memory",
    "What remembering them takes; never more than 24 MiB.",
);

pub static REFUSED_TOTAL: Series = of(
    "plumbline_timeline_refused_total",
    Kind::Counter,
    Unit::None,
    "plumbline.timeline.refused",
    "Readings of series that were not remembered for want of room.",
);

pub static FORGOTTEN_TOTAL: Series = of(
    "plumbline_timeline_forgotten_total",
    Kind::Counter,
    Unit::None,
    "plumbline.timeline.forgotten",
    "Blocks of sixty slots that were forgotten before their time for want of room.",
);
