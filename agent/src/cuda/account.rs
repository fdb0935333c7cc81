//! The counts in the kernel, as points.

use std::{collections::BTreeMap, sync::Arc};

use aya::{
    Ebpf,
    maps::{HashMap as KernelMap, MapError, PerCpuArray, PerCpuHashMap},
};
use plumbline_ebpf::cuda::{
    Action, BUCKETS, CallKey, CallStats, HandleKey, LOST, UNKNOWN_DEVICE, UUID_BYTES, Waits, bound_ns,
};
use zerocopy::{FromBytes, IntoBytes as _};

use super::{
    calls::{CALLS, Call, result},
    hooks::Counted,
    libraries::Libraries,
    probes::Reading,
    threads::{self, Ended},
};
use crate::series::{Histogram, Point, Series, Value, cuda};

/// Why the counts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("map {0} is missing from the object")]
    NoMap(&'static str),
    #[error("map {0} cannot be read")]
    Map(&'static str, #[source] Box<MapError>),
}

type KeyWords = [u64; size_of::<CallKey>() / 8];
type StatsWords = [u64; size_of::<CallStats>() / 8];
type WaitsWords = [u64; size_of::<Waits>() / 8];
type HandleKeyWords = [u64; size_of::<HandleKey>() / 8];
type HandleWords = [u64; 2];

/// Bounds from one that is told to the next.
const TOLD_EVERY: usize = 4;

/// What was counted, without the keys' processes that are not wanted any more.
#[derive(Debug, Default)]
struct Counts {
    calls: BTreeMap<Part, CallStats>,
    failures: BTreeMap<Part, u64>,
    waits: BTreeMap<Part, [u64; BUCKETS]>,
    /// By process and its own number of the device.
    devices: BTreeMap<(u32, u64), Uuid>,
    lost: [u64; LOST],
}

/// As the driver tells it.
type Uuid = [u8; UUID_BYTES];

/// `(pid, device, call, result)`. A process that is gone and one of its number are one for a moment at most.
type Part = (u32, u32, u32, u32);

/// How often each process was stopped at what is counted together, since it is looked at. A process is named by its number and its start.
pub type Hits = BTreeMap<(u32, u64), BTreeMap<Counted, u64>>;

pub fn read(
    ebpf: &mut Ebpf,
    libraries: &Libraries,
    ended: &mut Ended,
    reading: &mut Reading,
) -> Result<(), AccountError> {
    let is_alive = |pid, start_boot_ns| libraries.is_alive(pid, start_boot_ns);
    let mut counts = Counts::default();
    let part = |key: &CallKey| (key.pid, key.device, key.call, key.result);

    for ((pid, start_boot_ns, device, row), count) in threads::read(ebpf, libraries, ended)? {
        counts.calls.entry((pid, device, row.into(), 0)).or_default().calls += count;
        hit(&mut reading.hits, (pid, start_boot_ns), row.into(), count, Counted::Cuda);
    }
    let mut map: PerCpuHashMap<_, KeyWords, StatsWords> = open(ebpf, "CALLS")?;
    let entries: Vec<_> = map.iter().filter_map(Result::ok).collect();
    for (words, cpus) in entries {
        let key = parse::<CallKey>(&words);
        let sum = counts.calls.entry(part(&key)).or_default();
        for cpu in cpus.iter().map(|cpu| parse::<CallStats>(cpu)) {
            sum.calls += cpu.calls;
            sum.bytes = sum.bytes.wrapping_add(cpu.bytes);
            sum.ns = sum.ns.wrapping_add(cpu.ns);
            hit(&mut reading.hits, (key.pid, key.start_boot_ns), key.call, cpu.calls, Counted::Cuda);
        }
        if !is_alive(key.pid, key.start_boot_ns) {
            let _ = map.remove(&words);
        }
    }
    take(ebpf, "FAILURES", is_alive, |key, [count]: [u64; 1]| {
        *counts.failures.entry(part(key)).or_default() += count;
    })?;
    take(ebpf, "WAITS", is_alive, |key, waits: WaitsWords| {
        let sum = counts.waits.entry(part(key)).or_insert([0; BUCKETS]);
        sum.iter_mut().zip(waits).for_each(|(sum, count)| *sum += count);
    })?;
    let mut handles: KernelMap<_, HandleKeyWords, HandleWords> = open(ebpf, "HANDLES")?;
    let dead: Vec<HandleKeyWords> = handles
        .keys()
        .filter_map(Result::ok)
        .filter(|words| {
            let key = parse::<HandleKey>(words);
            !is_alive(key.pid, key.start_boot_ns)
        })
        .collect();
    for words in dead {
        let _ = handles.remove(&words);
    }
    let mut devices: KernelMap<_, HandleKeyWords, Uuid> = open(ebpf, "DEVICES")?;
    let entries: Vec<_> = devices.iter().filter_map(Result::ok).collect();
    for (words, uuid) in entries {
        let key = parse::<HandleKey>(&words);
        if is_alive(key.pid, key.start_boot_ns) {
            counts.devices.insert((key.pid, key.handle), uuid);
        } else {
            let _ = devices.remove(&words);
        }
    }
    let lost: PerCpuArray<_, u64> = open(ebpf, "CUDA_LOST")?;
    for (index, sum) in (0..).zip(&mut counts.lost) {
        let cpus = lost.get(&index, 0).map_err(|error| AccountError::Map("CUDA_LOST", Box::new(error)))?;
        *sum = cpus.iter().sum();
    }
    reading.points.extend(points(&counts));
    Ok(())
}

pub fn hit(hits: &mut Hits, process: (u32, u64), row: u32, count: u64, counted: fn(u8) -> Counted) {
    if let Ok(row) = u8::try_from(row) {
        *hits.entry(process).or_default().entry(counted(row)).or_default() += count;
    }
}

/// Hands each entry on, and takes those of processes that have ended out.
fn take<V: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    is_alive: impl Fn(u32, u64) -> bool,
    mut each: impl FnMut(&CallKey, V),
) -> Result<(), AccountError> {
    let mut map: KernelMap<_, KeyWords, V> = open(ebpf, name)?;
    let entries: Vec<_> = map.iter().filter_map(Result::ok).collect();
    for (words, value) in entries {
        let key = parse::<CallKey>(&words);
        each(&key, value);
        if !is_alive(key.pid, key.start_boot_ns) {
            let _ = map.remove(&words);
        }
    }
    Ok(())
}

pub fn open<'e, M>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<M, AccountError>
where
    M: TryFrom<&'e mut aya::maps::Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).ok_or(AccountError::NoMap(name))?;
    M::try_from(map).map_err(|error| AccountError::Map(name, Box::new(error)))
}

pub fn parse<T: FromBytes + Default>(words: &[u64]) -> T {
    T::read_from_bytes(words.as_bytes()).unwrap_or_default()
}

fn points(counts: &Counts) -> Vec<Point> {
    let mut points = Vec::new();
    let mut allocated: BTreeMap<(u32, u32), i128> = BTreeMap::new();
    for (&(pid, device, number, _), stats) in &counts.calls {
        let Some(call) = call(number) else { continue };
        points.push(point(&cuda::CALLS_TOTAL, pid, device, &[call.name], float(stats.calls)));
        if let Some(direction) = call.direction() {
            points.push(point(&cuda::COPIED_BYTES_TOTAL, pid, device, &[direction], float(stats.bytes)));
        }
        match call.action {
            Action::Allocate => *allocated.entry((pid, device)).or_default() += i128::from(stats.bytes),
            Action::Free => *allocated.entry((pid, device)).or_default() -= i128::from(stats.bytes),
            Action::Launch | Action::LaunchGraph | Action::Wait => {}
            _ => {
                let seconds = float(stats.ns) / 1e9;
                points.push(point(&cuda::CALL_SECONDS_TOTAL, pid, device, &[call.name], seconds));
            }
        }
    }
    for ((pid, device), bytes) in allocated {
        // Between a free and our reading of the allocation before it the sum can be below nothing.
        let bytes = u64::try_from(bytes.max(0)).unwrap_or(u64::MAX);
        points.push(point(&cuda::ALLOCATED_BYTES, pid, device, &[], float(bytes)));
    }
    for (&(pid, device, number, code), count) in &counts.failures {
        let Some(call) = call(number) else { continue };
        points.push(point(&cuda::FAILURES_TOTAL, pid, device, &[call.name, &result(code)], float(*count)));
    }
    for (&(pid, device, number, _), buckets) in &counts.waits {
        let (Some(call), part) = (call(number), (pid, device, number, 0)) else { continue };
        let sum_ns = counts.calls.get(&part).map_or(0, |stats| stats.ns);
        let labels = point(&cuda::WAIT_SECONDS, pid, device, &[call.name], 0.0).labels;
        points.push(Point { series: &cuda::WAIT_SECONDS, labels, value: Value::Histogram(histogram(buckets, sum_ns)) });
    }
    for (&(pid, device), uuid) in &counts.devices {
        let labels = [&*device.to_string(), &hyphened(uuid), "", "driver"];
        points.push(of_process(&cuda::DEVICE_INFO, pid, &labels, 1.0));
    }
    let lost = ["calls", "handles", "in_flight", "communicators", "records"].into_iter().zip(counts.lost);
    points.extend(lost.map(|(what, count)| Point::new(&cuda::LOST_TOTAL, &[what], float(count))));
    points
}

fn call(number: u32) -> Option<&'static Call> {
    CALLS.get(usize::try_from(number).ok()?)
}

fn point(series: &'static Series, pid: u32, device: u32, more: &[&str], value: f64) -> Point {
    let device = if device == UNKNOWN_DEVICE { "unknown".to_owned() } else { device.to_string() };
    let labels: Vec<&str> = [&*device].into_iter().chain(more.iter().copied()).collect();
    of_process(series, pid, &labels, value)
}

/// As NVML writes it, without `GPU-` or `MIG-`, of which the octets say nothing.
fn hyphened(uuid: &Uuid) -> String {
    let hex: String = uuid.iter().map(|octet| format!("{octet:02x}")).collect();
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or("")).join("-")
}

/// A point of a process, of which the name and the pod are the core's to fill in.
pub fn of_process(series: &'static Series, pid: u32, more: &[&str], value: f64) -> Point {
    let empty = [const { String::new() }; 4];
    let labels = [pid.to_string()].into_iter().chain(empty).chain(more.iter().map(|&one| one.to_owned()));
    Point { series, labels: labels.collect::<Arc<[String]>>(), value: Value::Number(value) }
}

/// In seconds, with the bounds that are told.
pub fn histogram(buckets: &[u64; BUCKETS], sum_ns: u64) -> Histogram {
    let mut count = 0;
    let cumulative = buckets.iter().enumerate().map(|(bucket, more)| {
        count += more;
        (bucket, bound_ns(bucket).map_or(f64::INFINITY, |ns| float(ns) / 1e9), count)
    });
    // Every fourth bound, which is four times the one before: fifty lines for each thing that is waited for are a page of their own.
    let told = cumulative.filter(|(bucket, bound, _)| bucket % TOLD_EVERY == 0 || bound.is_infinite());
    let buckets = told.map(|(_, bound, count)| (bound, count)).collect();
    Histogram { buckets, sum: float(sum_ns) / 1e9, count }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub const fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str) -> u32 {
        CALLS
            .iter()
            .position(|call| call.name == name)
            .and_then(|at| u32::try_from(at).ok())
            .expect("a call of the table")
    }

    fn check(counts: &Counts, expect: &[&str]) {
        let points = points(counts).into_iter().filter(|point| point.series != &cuda::LOST_TOTAL);
        let words = points.map(|point| {
            let labels: Vec<&str> = point.labels.iter().map(String::as_str).filter(|label| !label.is_empty()).collect();
            let name = point.series.name.trim_start_matches("plumbline_cuda_");
            match point.value {
                Value::Number(number) => format!("{name} {} {number}", labels.join(" ")),
                Value::Histogram(Histogram { buckets, sum, count }) => {
                    let first = buckets.iter().find(|(_, count)| *count > 0).map_or(0.0, |(bound, _)| *bound);
                    format!("{name} {} from {first} sum {sum} count {count}", labels.join(" "))
                }
            }
        });
        assert_eq!(words.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn what_is_allocated_is_what_was_and_was_not_freed_on_each_device() {
        let stats = |calls, bytes| CallStats { calls, bytes, ns: 0 };
        let calls = [
            ((7, 0, number("allocate"), 0), stats(2, 300)),
            ((7, 0, number("free"), 0), stats(1, 100)),
            ((7, 1, number("create"), 0), stats(1, 50)),
        ];
        check(
            &Counts { calls: calls.into(), ..Counts::default() },
            &[
                "calls_total 7 0 allocate 2",
                "calls_total 7 0 free 1",
                "calls_total 7 1 create 1",
                "allocated_bytes 7 0 200",
                "allocated_bytes 7 1 50",
            ],
        );
    }

    #[test]
    fn a_device_that_nobody_told_of_is_unknown_and_a_result_has_its_name() {
        let part = |result| (7, UNKNOWN_DEVICE, number("allocate"), result);
        let failures = [(part(2), 3), (part(12345), 1)].into();
        check(
            &Counts { failures, ..Counts::default() },
            &["failures_total 7 unknown allocate out_of_memory 3", "failures_total 7 unknown allocate 12345 1"],
        );
    }

    #[test]
    fn a_device_is_who_the_driver_says_that_it_is() {
        let uuid = std::array::from_fn(|at| u8::try_from(0x5e + at).unwrap_or(0));
        check(
            &Counts { devices: [((7, 0), uuid)].into(), ..Counts::default() },
            &["device_info 7 0 5e5f6061-6263-6465-6667-68696a6b6c6d driver 1"],
        );
    }

    #[test]
    fn waits_are_a_histogram_in_seconds() {
        let part = (7, 0, number("stream_synchronize"), 0);
        let mut buckets = [0; BUCKETS];
        buckets[1] = 2;
        buckets[BUCKETS - 1] = 1;
        let calls = [(part, CallStats { calls: 3, bytes: 0, ns: 2_000_000_000 })].into();
        check(
            &Counts { calls, waits: [(part, buckets)].into(), ..Counts::default() },
            &[
                "calls_total 7 0 stream_synchronize 3",
                "wait_seconds 7 0 stream_synchronize from 0.000004096 sum 2 count 3",
            ],
        );
    }
}
