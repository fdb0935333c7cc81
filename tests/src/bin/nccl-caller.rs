//! One rank of a communicator that calls NCCL as it is told, by the prototypes of `nccl.h`.
//!
//! `nccl-caller LIBRARY`; lines of the standard input:
//!
//! ```text
//! init FUNCTION RANKS RANK SEED      an id whose bytes are SEED, SEED + 1, …; FUNCTION is ncclCommInitRank, …Config, …Scalable, …All
//! call FUNCTION TIMES COUNT DATATYPE
//! group FUNCTION TIMES COUNT DATATYPE    each within a group, which ends a millisecond later
//! run TIMES START_NS PERIOD_NS LATE_NS   ncclAllReduce at START_NS of CLOCK_MONOTONIC, and then each PERIOD_NS, LATE_NS late
//! capture LIBCUDA STREAM    another thread has the stream record a graph; what is called from now on goes into it
//! captured LIBCUDA STREAM   and does not record any more
//! destroy
//! ```
//!
//! Each is answered by a line: `ok`, or the times of the calls of `run`.
#![expect(unsafe_code, reason = "calls a library by its C interface")]

use std::{
    env,
    error::Error,
    ffi::{CString, c_int, c_void},
    io::{self, BufRead as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    process::ExitCode,
    ptr::null_mut,
    thread,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId {
    internal: [u8; 128],
}

type Buffer = *mut c_void;
type InitRank = unsafe extern "C" fn(*mut u64, c_int, UniqueId, c_int) -> c_int;
type InitRankConfig = unsafe extern "C" fn(*mut u64, c_int, UniqueId, c_int, *mut c_void) -> c_int;
type InitRankScalable = unsafe extern "C" fn(*mut u64, c_int, c_int, c_int, *mut UniqueId, *mut c_void) -> c_int;
type InitAll = unsafe extern "C" fn(*mut u64, c_int, *const c_int) -> c_int;
type AllReduce = unsafe extern "C" fn(Buffer, Buffer, usize, c_int, c_int, u64, Buffer) -> c_int;
type AllGather = unsafe extern "C" fn(Buffer, Buffer, usize, c_int, u64, Buffer) -> c_int;
type Reduce = unsafe extern "C" fn(Buffer, Buffer, usize, c_int, c_int, c_int, u64, Buffer) -> c_int;
type Send = unsafe extern "C" fn(Buffer, usize, c_int, c_int, u64, Buffer) -> c_int;
type OfComm = unsafe extern "C" fn(u64) -> c_int;
type OfNothing = unsafe extern "C" fn() -> c_int;
type OfStream = unsafe extern "C" fn(u64, u64) -> c_int;
type CalledNs = unsafe extern "C" fn() -> u64;

struct Library(*mut c_void);

impl Library {
    fn load(path: &std::ffi::OsStr) -> Result<Self, Box<dyn Error>> {
        let name = CString::new(path.as_bytes())?;
        // SAFETY: the name is a string that ends.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() { Err(format!("{} cannot be loaded", path.display()).into()) } else { Ok(Self(handle)) }
    }

    /// # Safety
    ///
    /// `F` is the type of the function of this name.
    unsafe fn find<F: Copy>(&self, name: &str) -> Result<F, Box<dyn Error>> {
        let symbol = CString::new(name)?;
        // SAFETY: a handle of `dlopen`, and a string that ends.
        let address = unsafe { libc::dlsym(self.0, symbol.as_ptr()) };
        if address.is_null() {
            return Err(format!("there is no {name}").into());
        }
        // SAFETY: by the caller's promise; functions and data have addresses of one size.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let library = Library::load(&env::args_os().nth(1).ok_or("usage: nccl-caller LIBRARY")?)?;
    let (mut comm, mut stream) = (0_u64, 0_u64);
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| -> Result<u64, Box<dyn Error>> {
            Ok(words.get(at).ok_or("a number is missing")?.parse::<u64>()?)
        };
        let answer = match words.first().copied().unwrap_or_default() {
            "init" => {
                comm = init(&library, words[1], number(2)?, number(3)?, number(4)?)?;
                "ok".to_owned()
            }
            order @ ("call" | "group") => {
                for _ in 0..number(2)? {
                    if order == "group" {
                        // SAFETY: its type in nccl.h.
                        unsafe { library.find::<OfNothing>("ncclGroupStart")?() };
                    }
                    let (count, datatype) = (usize::try_from(number(3)?)?, c_int::try_from(number(4)?)?);
                    call(&library, words[1], (comm, stream), count, datatype)?;
                    if order == "group" {
                        thread::sleep(Duration::from_millis(1));
                        // SAFETY: its type in nccl.h.
                        unsafe { library.find::<OfNothing>("ncclGroupEnd")?() };
                    }
                }
                "ok".to_owned()
            }
            "run" => {
                let mut times = Vec::new();
                for turn in 0..number(1)? {
                    sleep_until(number(2)? + turn * number(3)? + number(4)?);
                    call(&library, "ncclAllReduce", (comm, stream), 1024, 9)?;
                    // SAFETY: its type in the library.
                    times.push(unsafe { library.find::<CalledNs>("fake_nccl_called_ns")?() }.to_string());
                }
                times.join(" ")
            }
            order @ ("capture" | "captured") => {
                let cuda = Library::load(words[1].as_ref())?;
                stream = number(2)?;
                let name = if order == "capture" { "cuStreamBeginCapture_v2" } else { "cuStreamEndCapture" };
                // SAFETY: its type in cuda.h, where the other argument is a number or a pointer that may be null.
                let function = unsafe { cuda.find::<OfStream>(name)? };
                // SAFETY: as above.
                let result = thread::spawn(move || unsafe { function(stream, 0) }).join();
                result.map_or_else(|_| "the thread panicked".to_owned(), |result| result.to_string())
            }
            "destroy" => {
                // SAFETY: its type in nccl.h.
                unsafe { library.find::<OfComm>("ncclCommDestroy")?(comm) };
                "ok".to_owned()
            }
            other => return Err(format!("{other} is no order").into()),
        };
        say(&answer)?;
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn init(library: &Library, name: &str, ranks: u64, rank: u64, seed: u64) -> Result<u64, Box<dyn Error>> {
    let seed = u8::try_from(seed)?;
    let mut id = UniqueId { internal: std::array::from_fn(|at| seed.wrapping_add(u8::try_from(at).unwrap_or(0))) };
    let (ranks, rank) = (c_int::try_from(ranks)?, c_int::try_from(rank)?);
    let mut comms = [0_u64; 16];
    let out = comms.as_mut_ptr();
    // SAFETY: their types in nccl.h; there is room for sixteen handles.
    let result = unsafe {
        match name {
            "ncclCommInitRank" => library.find::<InitRank>(name)?(out, ranks, id, rank),
            "ncclCommInitRankConfig" => library.find::<InitRankConfig>(name)?(out, ranks, id, rank, null_mut()),
            "ncclCommInitRankScalable" => {
                library.find::<InitRankScalable>(name)?(out, ranks, rank, 1, &raw mut id, null_mut())
            }
            "ncclCommInitAll" if ranks <= 16 => library.find::<InitAll>(name)?(out, ranks, std::ptr::null()),
            _ => return Err(format!("{name} begins no communicator").into()),
        }
    };
    if result == 0 {
        Ok(comms[usize::try_from(rank)?]).map(|comm| if comm == 0 { comms[0] } else { comm })
    } else {
        Err(format!("{name} says {result}").into())
    }
}

fn call(
    library: &Library,
    name: &str,
    (comm, stream): (u64, u64),
    count: usize,
    datatype: c_int,
) -> Result<(), Box<dyn Error>> {
    let (none, stream) = (null_mut(), stream as Buffer);
    // SAFETY: their types in nccl.h; nothing follows the buffers, nor the stream.
    unsafe {
        match name {
            "ncclAllReduce" | "ncclReduceScatter" | "ncclBroadcast" => {
                library.find::<AllReduce>(name)?(none, none, count, datatype, 0, comm, stream)
            }
            "ncclAllGather" => library.find::<AllGather>(name)?(none, none, count, datatype, comm, stream),
            "ncclReduce" => library.find::<Reduce>(name)?(none, none, count, datatype, 0, 0, comm, stream),
            "ncclSend" | "ncclRecv" | "ncclBcast" => {
                library.find::<Send>(name)?(none, count, datatype, 0, comm, stream)
            }
            _ => return Err(format!("{name} is not known").into()),
        }
    };
    Ok(())
}

fn sleep_until(monotonic_ns: u64) {
    let now = clock_gettime(ClockId::Monotonic);
    let now_ns = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
    thread::sleep(Duration::from_nanos(monotonic_ns.saturating_sub(now_ns)));
}
