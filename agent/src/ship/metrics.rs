//! Every present series as OTLP metrics, under its OpenTelemetry name and its UCUM unit.
//!
//! What is absent in the store is absent here. Nothing is sent twice: values are cumulative or of the moment, so the
//! next interval says all that a failed one would have said. Shapes and their rules: opentelemetry-proto,
//! `metrics/v1/metrics.proto`; units: OpenTelemetry semantic conventions, "Instrument units".

use std::{convert::Infallible, time::Duration};

use hyper::body::Bytes;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram as OtlpHistogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;

use super::{
    account::Account,
    gen_ai::{self, Providers},
    http::{Client, SendError},
    otlp::{resource, scope, text},
};
use crate::{
    clock,
    config::OtlpConfig,
    core::SharedStore,
    http::snapshot,
    series::{Histogram, Kind, Point, Series, Unit, Value, agent, cost, kernel},
};

const PATH: &str = "/v1/metrics";

/// What one request may hold: about a megabyte, as receivers refuse very large ones.
const REQUEST_POINTS: usize = 4096;

#[derive(Debug)]
pub(super) struct Exporter {
    client: Client,
    resource: Resource,
    store: SharedStore,
    account: Account,
    interval: Duration,
    started_unix_ns: u64,
}

impl Exporter {
    pub(super) fn new(config: &OtlpConfig, store: &SharedStore, node: &str) -> Self {
        Self {
            client: Client::new(config.endpoint.clone()),
            resource: resource(node),
            store: store.clone(),
            account: Account::new("otlp-metrics", store),
            interval: Duration::from_secs(config.interval_seconds.max(1)),
            started_unix_ns: clock::unix_ns(),
        }
    }

    pub(super) async fn run(&mut self) -> Infallible {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.send().await;
        }
    }

    /// Sends what is present now.
    pub(super) async fn send(&mut self) {
        let times = Times { started_unix_ns: self.started_unix_ns, now_unix_ns: clock::unix_ns() };
        let all = snapshot(&self.store);
        let providers = Providers::of(&all);
        for points in all.chunks(REQUEST_POINTS) {
            match self.send_points(points, &providers, times).await {
                Ok(()) => self.account.succeeded(points.len()),
                Err(error) => return self.account.failed(&error),
            }
        }
    }

    async fn send_points(&mut self, points: &[Point], providers: &Providers, times: Times) -> Result<(), SendError> {
        let scope_metrics =
            ScopeMetrics { scope: Some(scope()), metrics: metrics(points, providers, times), ..Default::default() };
        let resource_metrics = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] };
        let answer = self.client.post(PATH, Bytes::from(request.encode_to_vec())).await?;
        // An answer that is no message says nothing more than its status did.
        let answer = ExportMetricsServiceResponse::decode(answer).unwrap_or_default();
        if let Some(partial) = answer.partial_success {
            self.account.rejected(partial.rejected_data_points, &partial.error_message);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Times {
    started_unix_ns: u64,
    now_unix_ns: u64,
}

/// One metric per series that is not another's alias, and one more for those that have a name in the conventions for generative AI.
/// `points` are sorted by series, as the store gives them.
fn metrics(points: &[Point], providers: &Providers, times: Times) -> Vec<Metric> {
    let families = points.chunk_by(|a, b| a.series.name == b.series.name);
    let named = families.filter_map(|family| Some((family.first()?.series, family)));
    let metrics = named.filter(|(series, _)| !series.otel.is_empty());
    metrics
        .flat_map(|(series, family)| {
            let conventional = gen_ai::name(series).map(|name| server_metric(series, name, family, providers, times));
            std::iter::once(metric(series, family, times)).chain(conventional.flatten())
        })
        .collect()
}

/// `None` where no engine's dialect is known.
fn server_metric(series: &Series, name: &str, family: &[Point], providers: &Providers, times: Times) -> Option<Metric> {
    let point = |point: &Point| histogram(point, providers.attributes(point)?, times);
    let data_points: Vec<HistogramDataPoint> = family.iter().filter_map(point).collect();
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    (!data_points.is_empty()).then(|| Metric {
        name: name.to_owned(),
        description: series.help.to_owned(),
        unit: ucum(series.unit).to_owned(),
        metadata: Vec::new(),
        data: Some(Data::Histogram(OtlpHistogram { data_points, aggregation_temporality })),
    })
}

fn metric(series: &Series, family: &[Point], times: Times) -> Metric {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let data = match series.kind {
        Kind::Counter => {
            Data::Sum(Sum { data_points: numbers(family, times), aggregation_temporality, is_monotonic: true })
        }
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers(family, times) }),
        Kind::Histogram => {
            let data_points = family.iter().filter_map(|point| histogram(point, attributes(point), times)).collect();
            Data::Histogram(OtlpHistogram { data_points, aggregation_temporality })
        }
    };
    Metric {
        name: series.otel.to_owned(),
        description: series.help.to_owned(),
        unit: ucum(series.unit).to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

fn numbers(family: &[Point], times: Times) -> Vec<NumberDataPoint> {
    let number = |point: &Point| {
        Some(NumberDataPoint {
            attributes: attributes(point),
            start_time_unix_nano: start(point.series, times),
            time_unix_nano: times.now_unix_ns,
            value: Some(number_data_point::Value::AsDouble(point.number()?)),
            ..NumberDataPoint::default()
        })
    };
    family.iter().filter_map(number).collect()
}

/// The source's own buckets: upper bounds without the infinite one, and in each bucket only its own count.
fn histogram(point: &Point, attributes: Vec<KeyValue>, times: Times) -> Option<HistogramDataPoint> {
    let Value::Histogram(Histogram { buckets, sum, count }) = &point.value else { return None };
    let explicit_bounds: Vec<f64> = buckets.iter().map(|&(bound, _)| bound).filter(|bound| bound.is_finite()).collect();
    let mut before = 0;
    let cumulative = buckets.iter().filter(|(bound, _)| bound.is_finite()).map(|&(_, cumulative)| cumulative);
    let bucket_counts = cumulative
        .chain([*count])
        .map(|cumulative| {
            let own = cumulative.saturating_sub(before);
            before = cumulative;
            own
        })
        .collect();
    Some(HistogramDataPoint {
        attributes,
        start_time_unix_nano: start(point.series, times),
        time_unix_nano: times.now_unix_ns,
        count: *count,
        sum: Some(*sum),
        bucket_counts,
        explicit_bounds,
        ..HistogramDataPoint::default()
    })
}

/// An empty label is an absent attribute, as in Prometheus.
fn attributes(point: &Point) -> Vec<KeyValue> {
    let pairs = point.series.labels.iter().zip(&*point.labels);
    pairs.filter(|(_, value)| !value.is_empty()).map(|(name, value)| text(name, value)).collect()
}

/// When a sum began: with the daemon where the daemon counts; 0, unknown, where a GPU or an engine does.
fn start(series: &Series, times: Times) -> u64 {
    let counted_here = [agent::ROWS, kernel::ROWS, cost::ROWS].iter().copied().flatten().any(|&row| row == series);
    if series.kind != Kind::Gauge && counted_here { times.started_unix_ns } else { 0 }
}

fn ucum(unit: Unit) -> &'static str {
    match unit {
        Unit::None => "",
        Unit::Seconds => "s",
        Unit::Bytes => "By",
        Unit::Ratio => "1",
        Unit::Celsius => "Cel",
        Unit::Watts => "W",
        Unit::Joules => "J",
        Unit::Hertz => "Hz",
        Unit::Tokens => "{token}",
        // Which one is the attribute `currency`.
        Unit::Currency => "{currency}",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write as _};

    use expect_test::{Expect, expect};
    use opentelemetry_proto::tonic::common::v1::any_value;

    use super::*;
    use crate::series::{TABLE, engine};

    const TIMES: Times = Times { started_unix_ns: 1000, now_unix_ns: 2000 };

    /// The metrics after a journey through their wire form, a line each and a line per point.
    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(points: &[Point], expect: Expect) {
        let mut page = String::new();
        for metric in metrics(points, &Providers::of(points), TIMES) {
            let metric = Metric::decode(metric.encode_to_vec().as_slice()).unwrap();
            let data = metric.data.unwrap();
            let (kind, temporality) = match &data {
                Data::Sum(sum) => (format!("sum monotonic={}", sum.is_monotonic), sum.aggregation_temporality),
                Data::Gauge(_) => ("gauge".to_owned(), 0),
                Data::Histogram(histogram) => ("histogram".to_owned(), histogram.aggregation_temporality),
                other => panic!("{other:?}"),
            };
            writeln!(page, "{} [{}] {kind} temporality={temporality}", metric.name, metric.unit).unwrap();
            match data {
                Data::Sum(Sum { data_points, .. }) | Data::Gauge(Gauge { data_points }) => {
                    for point in data_points {
                        let times = (point.start_time_unix_nano, point.time_unix_nano);
                        let value = point.value.unwrap();
                        writeln!(page, "  {{{}}} {times:?} {value:?}", said(&point.attributes)).unwrap();
                    }
                }
                Data::Histogram(OtlpHistogram { data_points, .. }) => {
                    for point in data_points {
                        let HistogramDataPoint { count, sum, bucket_counts, explicit_bounds, .. } = &point;
                        let times = (point.start_time_unix_nano, point.time_unix_nano);
                        let value = format!("count={count} sum={sum:?} {bucket_counts:?} at {explicit_bounds:?}");
                        writeln!(page, "  {{{}}} {times:?} {value}", said(&point.attributes)).unwrap();
                    }
                }
                _ => {}
            }
        }
        expect.assert_eq(&page);
    }

    fn said(attributes: &[KeyValue]) -> String {
        let pair = |pair: &KeyValue| match pair.value.clone().unwrap().value.unwrap() {
            any_value::Value::StringValue(value) => format!("{}={value:?}", pair.key),
            other => panic!("{other:?}"),
        };
        attributes.iter().map(pair).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn counters_are_monotonic_sums_and_gauges_have_no_start() {
        check(
            &[
                Point::new(&agent::CPU_SECONDS, &[], 1.5),
                Point::new(&agent::EVENTS, &["connect"], 1.0),
                Point::new(&agent::EVENTS, &["file_open"], 3.0),
                Point::new(&agent::RESIDENT_MEMORY, &[], 4096.0),
            ],
            expect![[r#"
                plumbline.cpu.time [s] sum monotonic=true temporality=2
                  {} (1000, 2000) AsDouble(1.5)
                plumbline.events [] sum monotonic=true temporality=2
                  {kind="connect"} (1000, 2000) AsDouble(1.0)
                  {kind="file_open"} (1000, 2000) AsDouble(3.0)
                plumbline.memory.resident [By] gauge temporality=0
                  {} (0, 2000) AsDouble(4096.0)
            "#]],
        );
    }

    #[test]
    fn an_engines_histogram_keeps_its_buckets_and_its_start_is_unknown() {
        let latency = Histogram { buckets: vec![(0.5, 3), (1.0, 3), (f64::INFINITY, 5)], sum: 7.5, count: 5 };
        let no_buckets = Histogram { buckets: Vec::new(), sum: 1.0, count: 2 };
        check(
            &[
                Point::histogram(&engine::TIME_TO_FIRST_TOKEN_SECONDS, &["a\"b\\c\nd", "m"], latency),
                Point::histogram(&engine::TIME_TO_FIRST_TOKEN_SECONDS, &["b", ""], no_buckets),
            ],
            expect![[r#"
                plumbline.engine.time_to_first_token [s] histogram temporality=2
                  {engine="a\"b\\c\nd", model="m"} (0, 2000) count=5 sum=Some(7.5) [3, 0, 2] at [0.5, 1.0]
                  {engine="b"} (0, 2000) count=2 sum=Some(1.0) [2] at []
            "#]],
        );
    }

    #[test]
    fn what_an_engine_measures_has_its_conventional_name_as_well_once_the_engine_is_known() {
        let latency = || Histogram { buckets: vec![(0.5, 3), (f64::INFINITY, 5)], sum: 7.5, count: 5 };
        check(
            &[
                Point::new(&engine::INFO, &["a", "vllm", "", "http://h"], 1.0),
                Point::histogram(&engine::QUEUE_TIME_SECONDS, &["a", "m"], latency()),
                Point::histogram(&engine::TIME_TO_FIRST_TOKEN_SECONDS, &["a", "m"], latency()),
                Point::histogram(&engine::TIME_TO_FIRST_TOKEN_SECONDS, &["stranger", "m"], latency()),
            ],
            expect![[r#"
                plumbline.engine.info [] gauge temporality=0
                  {engine="a", dialect="vllm", url="http://h"} (0, 2000) AsDouble(1.0)
                plumbline.engine.queue_time [s] histogram temporality=2
                  {engine="a", model="m"} (0, 2000) count=5 sum=Some(7.5) [3, 2] at [0.5]
                plumbline.engine.time_to_first_token [s] histogram temporality=2
                  {engine="a", model="m"} (0, 2000) count=5 sum=Some(7.5) [3, 2] at [0.5]
                  {engine="stranger", model="m"} (0, 2000) count=5 sum=Some(7.5) [3, 2] at [0.5]
                gen_ai.server.time_to_first_token [s] histogram temporality=2
                  {gen_ai.operation.name="inference", gen_ai.provider.name="vllm", plumbline.engine="a", gen_ai.request.model="m"} (0, 2000) count=5 sum=Some(7.5) [3, 2] at [0.5]
            "#]],
        );
    }

    #[test]
    fn no_two_series_share_an_opentelemetry_name() {
        let mut seen = BTreeSet::new();
        // An alias for Prometheus' sake has none.
        for row in TABLE.iter().copied().flatten().filter(|row| !row.otel.is_empty()) {
            assert!(seen.insert(row.otel), "{} stands twice", row.otel);
        }
    }
}
