//! What remembering a node's last hour takes: 64 engines, each with a page of vLLM's series that serves, and 16 GPUs in 7 parts.
//!
//! `bench-timeline PAGE`; to be built optimised. Time is made up, two hours of it with two incidents; readings are what moves: the
//! engines' numbers grow by what a hash says, of a GPU's every third number changes each second.
#![expect(unsafe_code, reason = "an allocator that counts is `unsafe` by its interface")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env, fs,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use plumbline::{
    engines::translate::translate,
    series::{Kind, Point, Sample, Series, Value, gpu},
    timeline::{Timeline, Window},
};
use plumbline_exposition::Format;

struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// With the eight bytes before each piece, in steps of sixteen, as glibc's allocator does.
fn taken(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

const ENGINES: usize = 64;
const GPUS: usize = 16;
const PARTS: usize = 7;
/// As many as an H100 with 18 links has, and one MIG instance.
const SERIES_OF_GPU: usize = 150;
const SERIES_OF_PART: usize = 25;

const SECOND: u64 = 1_000_000_000;

fn main() -> ExitCode {
    let Some(page) = env::args_os().nth(1).and_then(|path| fs::read(path).ok()) else {
        eprintln!("usage: bench-timeline PAGE");
        return ExitCode::from(2);
    };
    let mut sources: Vec<(u64, Sample)> = Vec::new();
    for engine in 0..ENGINES {
        let Some(reading) = translate(&page, Format::Text, None, &format!("engine-{engine}"), "") else {
            eprintln!("no engine's page");
            return ExitCode::from(2);
        };
        sources.push((5, sample(format!("engine:{engine}"), reading.points)));
    }
    let series: Vec<&'static Series> = [gpu::activity::ROWS, gpu::memory::ROWS, gpu::nvlink::ROWS].concat();
    let series: Vec<&'static Series> = series.into_iter().filter(|series| series.kind != Kind::Histogram).collect();
    let mut points = Vec::new();
    for gpu in 0..GPUS {
        points.extend((0..SERIES_OF_GPU).map(|at| point(series[at % series.len()], &format!("GPU-{gpu}"), at)));
        for part in 0..PARTS {
            points.extend(
                (0..SERIES_OF_PART).map(|at| point(series[at % series.len()], &format!("GPU-{gpu}/{part}"), at)),
            );
        }
    }
    sources.push((1, sample("gpu".to_owned(), points)));
    let series: usize = sources.iter().map(|(_, sample)| sample.points.iter().flatten().count()).sum();
    println!("{ENGINES} engines, {GPUS} GPUs in {PARTS} parts: {series} series (a histogram is one)");

    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let mut timeline = Timeline::default();
    let (mut spent, mut readings) = (Duration::ZERO, 0_u64);
    for quarter in 0..2 * 3600 * 4_u64 {
        let boot_ns = 1000 * SECOND + quarter * SECOND / 4;
        let second = quarter / 4;
        let is_incident = (1800..1920).contains(&second) || (7080..7200).contains(&second);
        for (at, (interval, sample)) in sources.iter_mut().enumerate() {
            let interval = if is_incident { 1 } else { *interval };
            let is_close = is_incident && sample.source == "gpu";
            if !is_close && (!quarter.is_multiple_of(4) || !(second + at as u64).is_multiple_of(interval)) {
                continue;
            }
            sample.taken_boot_ns = boot_ns;
            let salt = quarter.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            sample.points.iter_mut().flatten().enumerate().for_each(|(at, point)| advance(point, at as u64, salt));
            let began = Instant::now();
            timeline.observe(sample, is_incident);
            spent += began.elapsed();
            readings += 1;
        }
        if quarter % 240 == 0 {
            timeline.expire(boot_ns);
        }
    }
    let account = timeline.account();
    let live = LIVE_BYTES.load(Ordering::Relaxed) - before;
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!("{account:?}");
    println!("by its own account {:.1} MiB, of the allocator {:.1} MiB", mib(account.used_bytes), mib(live));
    println!(
        "{readings} readings of all sources in {spent:.2?}, {:.4} % of a core in made-up time",
        spent.as_secs_f64() / 72.0
    );
    let now = 1000 * SECOND + 7200 * SECOND;
    let began = Instant::now();
    let mut found = 0;
    for track in timeline.tracks_with("engine", "engine-0") {
        found += usize::from(
            track.gauge(Window::last(300 * SECOND, now)).is_some()
                || track.increase(Window::last(300 * SECOND, now)).is_some(),
        );
    }
    println!("{found} windows of 5 minutes of one engine asked in {:.2?}", began.elapsed());
    ExitCode::SUCCESS
}

fn sample(source: String, points: Vec<Point>) -> Sample {
    Sample { source, taken_boot_ns: 0, points: Ok(points) }
}

fn point(series: &'static Series, uuid: &str, at: usize) -> Point {
    let labels: Arc<[String]> = series
        .labels
        .iter()
        .enumerate()
        .map(|(place, _)| if place == 0 { uuid.to_owned() } else { at.to_string() })
        .collect();
    Point { series, labels, value: Value::Number(1e9) }
}

fn advance(point: &mut Point, at: u64, salt: u64) {
    let hash = (salt ^ at).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 33;
    match &mut point.value {
        Value::Histogram(histogram) => {
            let buckets = histogram.buckets.len();
            // A few observations about the middle.
            for observation in 0..hash % 4 {
                let bucket = (buckets / 2 + (hash as usize >> observation) % 4).min(buckets - 1);
                histogram.buckets[bucket..].iter_mut().for_each(|(_, count)| *count += 1);
                histogram.count += 1;
                histogram.sum += 0.1;
            }
        }
        Value::Number(_) if point.series.name.starts_with("plumbline_gpu") && !at.is_multiple_of(3) => {}
        Value::Number(number) if point.series.kind == Kind::Counter => *number += (hash % 100_000) as f64 / 7.0,
        Value::Number(number) => *number = (hash % 10_000) as f64 / 10_007.0,
    }
}
