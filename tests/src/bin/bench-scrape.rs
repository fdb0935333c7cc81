//! What reading an engine's page costs: parsing alone, parsing and mapping, and mapping one whose values alone are others than those of
//! the page before; and what is allocated on the way.
//!
//! `bench-scrape PAGE`; to be built optimised. Turns are interleaved; each is the median of what its repetitions took.
#![expect(unsafe_code, reason = "an allocator that counts is `unsafe` by its interface")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env, fs,
    hint::black_box,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use plumbline::engines::translate::{Reader, translate};
use plumbline_exposition::{Format, Line, Lines};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const NAMES: [&str; 3] = ["parsed", "parsed and mapped", "mapped again"];
const TURNS: usize = 5;
const REPETITIONS: usize = 400;

fn main() -> ExitCode {
    let Some(page) = env::args_os().nth(1).and_then(|path| fs::read(path).ok()) else {
        eprintln!("usage: bench-scrape PAGE");
        return ExitCode::from(2);
    };
    let samples = parse(&page);
    println!("a page of {} bytes, {samples} samples; {TURNS} turns of {REPETITIONS}, interleaved", page.len());
    println!("{:<22} {:>12} {:>16} {:>12}", "", "µs a page", "M samples/s", "allocations");
    let mut all = NAMES.map(|_| Vec::new());
    let others = [page.clone(), revalued(&page)];
    let mut reader = Reader::new(None, "e", "");
    let mut next = 0;
    for _ in 0..TURNS {
        let parsed = turn(|| parse(&page));
        let mapped = turn(|| translate(&page, Format::Text, None, "e", "").map_or(0, |reading| reading.points.len()));
        let again = turn(|| {
            next += 1;
            reader.read(&others[next % 2], Format::Text).map_or(0, |reading| reading.points.len())
        });
        for (of, (name, (seconds, allocations))) in all.iter_mut().zip(NAMES.into_iter().zip([parsed, mapped, again])) {
            println!("{name:<22} {:>12.1} {:>16.2} {allocations:>12}", seconds * 1e6, samples as f64 / seconds / 1e6);
            of.push(seconds * 1e6);
        }
    }
    for (name, mut of) in NAMES.into_iter().zip(all) {
        of.sort_by(f64::total_cmp);
        println!("{name}: {:.1} µs a page ({:.1} to {:.1})", of[TURNS / 2], of[0], of[TURNS - 1]);
    }
    ExitCode::SUCCESS
}

/// Every number above one doubled: what counts stays whole, what is a share stays one, and buckets stay in order.
fn revalued(page: &[u8]) -> Vec<u8> {
    let page = String::from_utf8_lossy(page);
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((before, value)) if !line.starts_with('#') => match value.parse::<f64>() {
            Ok(value) if value > 1.0 => format!("{before} {:?}\n", value * 2.0),
            _ => format!("{line}\n"),
        },
        _ => format!("{line}\n"),
    };
    page.lines().map(line).collect::<String>().into_bytes()
}

fn parse(page: &[u8]) -> usize {
    let lines = Lines::new(page, Format::Text);
    lines
        .filter(|line| match line {
            Ok(Line::Sample(sample)) => {
                black_box(sample);
                true
            }
            _ => false,
        })
        .count()
}

/// The median of the repetitions in seconds, and the allocations of one.
fn turn(mut work: impl FnMut() -> usize) -> (f64, u64) {
    let mut took: Vec<f64> = Vec::with_capacity(REPETITIONS);
    let mut allocations = 0;
    for _ in 0..REPETITIONS {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let began = Instant::now();
        black_box(work());
        took.push(began.elapsed().as_secs_f64());
        allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    }
    took.sort_by(f64::total_cmp);
    (took[REPETITIONS / 2], allocations)
}
