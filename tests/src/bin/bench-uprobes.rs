//! Calls a function of a library, and says what that took: `bench-uprobes LIBRARY FUNCTION`, and one of
//!
//! ```text
//! batches N         N batches of 2000 calls: the middle one's nanoseconds per call
//! flood N SECONDS   N threads as fast as they can: the calls of all; it ends with its standard input, as what has ended is forgotten
//! pace N SECONDS    N calls a second: the thread's own CPU time, in nanoseconds
//! pace N SECONDS RANKS RANK START    as one of so many ranks of a communicator, of the `libnccl.so.2` that lies beside the library; all
//!                                    begin at so many milliseconds after 1970, and end with their standard input
//! ```
#![expect(unsafe_code, reason = "calls a library by its C interface")]

use std::{
    env,
    error::Error,
    ffi::{CString, c_int},
    io::{self, Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

const BATCH: u32 = 2000;

/// Those of the driver that are called here have at most so many arguments.
type Function = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64) -> c_int;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [library, function, what, numbers @ ..] = &*words else { return Err("see the head of its source".into()) };
    let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<u64>, _>>()?;
    let call = find(library, function)?;
    let number = match (*what, &*numbers) {
        ("batches", [batches]) => batch_ns(call, *batches),
        ("flood", [threads, seconds]) => flood(call, *threads, Duration::from_secs(*seconds)),
        ("pace", [a_second, seconds]) => pace(call, *a_second, *seconds),
        ("pace", [a_second, seconds, ranks, rank, start_ms]) => {
            let start = SystemTime::UNIX_EPOCH + Duration::from_millis(*start_ms);
            join(&Path::new(library).with_file_name("libnccl.so.2"), *ranks, *rank, start)?;
            pace(call, *a_second, *seconds)
        }
        _ => return Err("see the head of its source".into()),
    };
    println!("{number}");
    io::stdout().flush()?;
    if *what == "flood" || numbers.len() > 2 {
        io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// `ncclUniqueId`.
#[repr(C)]
struct UniqueId([u8; 128]);

fn address(library: &Path, function: &str) -> Result<*mut libc::c_void, Box<dyn Error>> {
    let (path, symbol) = (CString::new(library.as_os_str().as_bytes())?, CString::new(function)?);
    // SAFETY: strings that end.
    let address = unsafe { libc::dlsym(libc::dlopen(path.as_ptr(), libc::RTLD_NOW), symbol.as_ptr()) };
    if address.is_null() {
        return Err(format!("there is no {function} in {}", library.display()).into());
    }
    Ok(address)
}

/// Becomes a member, and calls a collective when all others are, too.
fn join(library: &Path, ranks: u64, rank: u64, start: SystemTime) -> Result<(), Box<dyn Error>> {
    type Init = unsafe extern "C" fn(*mut u64, c_int, UniqueId, c_int) -> c_int;
    type AllReduce = unsafe extern "C" fn(u64, u64, usize, c_int, c_int, u64, u64) -> c_int;
    let init = address(library, "ncclCommInitRank")?;
    let all_reduce = address(library, "ncclAllReduce")?;
    // SAFETY: their types in nccl.h.
    let (init, all_reduce) = unsafe {
        (
            std::mem::transmute::<*mut libc::c_void, Init>(init),
            std::mem::transmute::<*mut libc::c_void, AllReduce>(all_reduce),
        )
    };
    let mut comm = 0;
    // SAFETY: as the library wants it, which does nothing with buffers.
    let result = unsafe { init(&raw mut comm, c_int::try_from(ranks)?, UniqueId([7; 128]), c_int::try_from(rank)?) };
    thread::sleep(start.duration_since(SystemTime::now()).map_err(|_| "the start is over")?);
    // SAFETY: as above.
    let results = [result, unsafe { all_reduce(0, 0, 1, 7, 0, comm, 0) }];
    if results == [0, 0] { Ok(()) } else { Err(format!("NCCL says {results:?}").into()) }
}

fn find(library: &str, function: &str) -> Result<impl Fn() + Copy + Send + use<>, Box<dyn Error>> {
    let address = address(Path::new(library), function)?;
    // SAFETY: the library's functions take integers and pointers only.
    let function = unsafe { std::mem::transmute::<*mut libc::c_void, Function>(address) };
    Ok(move || {
        // SAFETY: it does nothing with what it is given.
        std::hint::black_box(unsafe { function(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) });
    })
}

fn batch_ns(call: impl Fn(), batches: u64) -> u64 {
    let one = |_| {
        let began = Instant::now();
        (0..BATCH).for_each(|_| call());
        began.elapsed().as_nanos() / u128::from(BATCH)
    };
    let mut took: Vec<u128> = (0..batches).map(one).collect();
    took.sort_unstable();
    took.get(took.len() / 2).and_then(|ns| u64::try_from(*ns).ok()).unwrap_or(0)
}

fn flood(call: impl Fn() + Copy + Send + 'static, threads: u64, time: Duration) -> u64 {
    let until = Instant::now() + time;
    let one = move || {
        let mut calls = 0;
        while Instant::now() < until {
            (0..100).for_each(|_| call());
            calls += 100;
        }
        calls
    };
    let threads: Vec<_> = (0..threads).map(|_| thread::spawn(one)).collect();
    threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
}

fn pace(call: impl Fn(), a_second: u64, seconds: u64) -> u64 {
    let cpu_ns = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
    };
    let began_ns = cpu_ns();
    let (began, period) = (Instant::now(), Duration::from_secs(1) / u32::try_from(a_second).unwrap_or(1));
    for number in 1..=u32::try_from(a_second * seconds).unwrap_or(0) {
        call();
        thread::sleep((period * number).saturating_sub(began.elapsed()));
    }
    cpu_ns() - began_ns
}
