//! The present values as OpenMetrics 1.0 and as Prometheus text 0.0.4.
//!
//! prometheus-client writes OpenMetrics; the older format is the same text re-framed (exposition_formats.md of
//! Prometheus): counters are described under their full name, there are no units and no end mark.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit as ClientUnit},
};

use super::{Kind, Point, Series, Unit, Value};

pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics 1.0. `points` are sorted by series, as the store gives them.
pub fn openmetrics(points: Vec<Point>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(points)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// Prometheus text 0.0.4.
pub fn text_0_0_4(points: Vec<Point>) -> Result<String, fmt::Error> {
    let counters: Vec<&str> = points
        .iter()
        .filter(|point| point.series.kind == Kind::Counter)
        .map(|point| point.series.name.trim_end_matches("_total"))
        .collect();
    let page = openmetrics(points)?;
    let mut out = String::with_capacity(page.len());
    for line in page.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let described = line.strip_prefix("# HELP ").map(|rest| ("# HELP ", rest));
        let described = described.or_else(|| line.strip_prefix("# TYPE ").map(|rest| ("# TYPE ", rest)));
        match described.and_then(|(mark, rest)| Some((mark, rest.split_once(' ')?))) {
            Some((mark, (name, rest))) if counters.contains(&name) => {
                out.push_str(mark);
                out.push_str(name);
                out.push_str("_total ");
                out.push_str(rest);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    Ok(out)
}

#[derive(Debug)]
struct Snapshot(Vec<Point>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.0.chunk_by(|a, b| a.series.name == b.series.name) {
            let Some(series) = family.first().map(|point| point.series) else { continue };
            encode_family(&mut encoder, series, family)?;
        }
        Ok(())
    }
}

fn encode_family(
    encoder: &mut DescriptorEncoder<'_>,
    series: &'static Series,
    points: &[Point],
) -> Result<(), fmt::Error> {
    let base = series.name.trim_end_matches("_total");
    // The encoder puts the unit behind the name; it stands there already.
    let unit = unit_word(series.unit).filter(|unit| base.ends_with(&format!("_{unit}")));
    let name = unit.map_or(base, |unit| &base[..base.len() - unit.len() - 1]);
    let unit = unit.map(|unit| ClientUnit::Other(unit.to_owned()));
    let kind = match series.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut family = encoder.encode_descriptor(name, series.help, unit.as_ref(), kind)?;
    for point in points {
        if series.labels.is_empty() {
            encode_value(&mut family, series.kind, &point.value)?;
        } else {
            let labels = Labels { names: series.labels, values: &point.labels };
            encode_value(&mut family.encode_family(&labels)?, series.kind, &point.value)?;
        }
    }
    Ok(())
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> Result<(), fmt::Error> {
    match (value, kind) {
        (Value::Number(number), Kind::Counter) => metric.encode_counter::<NoLabelSet, f64, f64>(number, None),
        (Value::Number(number), _) => metric.encode_gauge(number),
        (Value::Histogram(histogram), _) => {
            // The encoder takes each bucket by itself and adds them up.
            let mut before = 0;
            let own = |&(bound, cumulative): &(f64, u64)| {
                let own = cumulative.saturating_sub(before);
                before = cumulative;
                (bound, own)
            };
            let buckets: Vec<(f64, u64)> = histogram.buckets.iter().map(own).collect();
            metric.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count, &buckets, None)
        }
    }
}

struct Labels<'a> {
    names: &'static [&'static str],
    values: &'a [String],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let pairs: Vec<(&str, &str)> = self.names.iter().copied().zip(self.values.iter().map(String::as_str)).collect();
        pairs.as_slice().encode(encoder)
    }
}

/// The word that OpenMetrics puts at the end of a name, or `None` for a plain number.
fn unit_word(unit: Unit) -> Option<&'static str> {
    Some(match unit {
        Unit::None | Unit::Currency | Unit::Tokens => return None,
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::Ratio => "ratio",
        Unit::Celsius => "celsius",
        Unit::Watts => "watts",
        Unit::Joules => "joules",
        Unit::Hertz => "hertz",
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::series::{Histogram, agent, engine};

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tests")]
    fn check(page: Result<String, fmt::Error>, expect: Expect) {
        expect.assert_eq(&page.unwrap());
    }

    fn points() -> Vec<Point> {
        let latency = Histogram { buckets: vec![(0.5, 3), (1.0, 3), (f64::INFINITY, 5)], sum: 7.5, count: 5 };
        vec![
            Point::new(&agent::CPU_SECONDS, &[], 1.5),
            Point::histogram(&engine::TIME_TO_FIRST_TOKEN_SECONDS, &["a\"b\\c\nd", "m"], latency),
            Point::new(&agent::EVENTS, &["file_open"], 3.0),
            Point::new(&agent::RESIDENT_MEMORY, &[], 4096.0),
        ]
    }

    #[test]
    fn openmetrics_names_counters_without_their_ending_and_states_units() {
        check(
            openmetrics(points()),
            expect![[r##"
                # HELP plumbline_cpu_seconds CPU time of the daemon in user and kernel mode; the kernel programs run on the account of others.
                # TYPE plumbline_cpu_seconds counter
                # UNIT plumbline_cpu_seconds seconds
                plumbline_cpu_seconds_total 1.5
                # HELP plumbline_engine_time_to_first_token_seconds Time from a request's arrival at the engine to its first token, in the engine's own buckets.
                # TYPE plumbline_engine_time_to_first_token_seconds histogram
                # UNIT plumbline_engine_time_to_first_token_seconds seconds
                plumbline_engine_time_to_first_token_seconds_sum{engine="a\"b\\c\nd",model="m"} 7.5
                plumbline_engine_time_to_first_token_seconds_count{engine="a\"b\\c\nd",model="m"} 5
                plumbline_engine_time_to_first_token_seconds_bucket{le="0.5",engine="a\"b\\c\nd",model="m"} 3
                plumbline_engine_time_to_first_token_seconds_bucket{le="1.0",engine="a\"b\\c\nd",model="m"} 3
                plumbline_engine_time_to_first_token_seconds_bucket{le="+Inf",engine="a\"b\\c\nd",model="m"} 5
                # HELP plumbline_events Events that reached the core, by kind.
                # TYPE plumbline_events counter
                plumbline_events_total{kind="file_open"} 3.0
                # HELP plumbline_resident_memory_bytes Resident memory of the daemon.
                # TYPE plumbline_resident_memory_bytes gauge
                # UNIT plumbline_resident_memory_bytes bytes
                plumbline_resident_memory_bytes 4096.0
                # EOF
            "##]],
        );
    }

    #[test]
    fn the_older_format_names_counters_in_full() {
        check(
            text_0_0_4(points()),
            expect![[r##"
                # HELP plumbline_cpu_seconds_total CPU time of the daemon in user and kernel mode; the kernel programs run on the account of others.
                # TYPE plumbline_cpu_seconds_total counter
                plumbline_cpu_seconds_total 1.5
                # HELP plumbline_engine_time_to_first_token_seconds Time from a request's arrival at the engine to its first token, in the engine's own buckets.
                # TYPE plumbline_engine_time_to_first_token_seconds histogram
                plumbline_engine_time_to_first_token_seconds_sum{engine="a\"b\\c\nd",model="m"} 7.5
                plumbline_engine_time_to_first_token_seconds_count{engine="a\"b\\c\nd",model="m"} 5
                plumbline_engine_time_to_first_token_seconds_bucket{le="0.5",engine="a\"b\\c\nd",model="m"} 3
                plumbline_engine_time_to_first_token_seconds_bucket{le="1.0",engine="a\"b\\c\nd",model="m"} 3
                plumbline_engine_time_to_first_token_seconds_bucket{le="+Inf",engine="a\"b\\c\nd",model="m"} 5
                # HELP plumbline_events_total Events that reached the core, by kind.
                # TYPE plumbline_events_total counter
                plumbline_events_total{kind="file_open"} 3.0
                # HELP plumbline_resident_memory_bytes Resident memory of the daemon.
                # TYPE plumbline_resident_memory_bytes gauge
                plumbline_resident_memory_bytes 4096.0
            "##]],
        );
    }
}
