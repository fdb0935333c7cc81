//! One rank of a communicator that calls NCCL as it is told, by the prototypes of `nccl.h`.
//!
//! `nccl-caller LIBRARY`; lines of the standard input:
//!
//! ```text
//! init FUNCTION RANKS RANK SEED      an id whose bytes are SEED, SEED + 1, …; FUNCTION is ncclCommInitRank, …Config, …Scalable, …All
//! call FUNCTION TIMES COUNT DATATYPE
//! group FUNCTION TIMES COUNT DATATYPE    each within a group, which ends a millisecond later
//! run TIMES START_NS PERIOD_NS LATE_NS   ncclAllReduce at START_NS of CLOCK_MONOTONIC, and then each PERIOD_NS, LATE_NS late
//! launch LIBCUDA TIMES START_NS PERIOD_NS LATE_NS   cuGraphLaunch likewise, by this thread
//! capture LIBCUDA STREAM    another thread has the stream record a graph; what is called from now on goes into it
//! captured LIBCUDA STREAM   and does not record any more
//! among FUNCTION             once for each of the last communicators that began together, in one group
//! split COLOR KEY            as are the next two, of the communicator; what comes of it is the communicator from now on
//! group-split COLOR KEY      its handle is filled in when the group ends
//! shrink EXCLUDED…
//! back                       to the communicator before
//! ask                        of which rank it is, and of how many
//! ras FILE                   answers as NCCL's RAS does from now on, with the report in FILE
//! fail RESULT                the library has this to say of every communicator from now on, and is asked
//! destroy
//! ```
//!
//! Each is answered by a line: `ok`, or the times of the calls of `run`.
#![expect(unsafe_code, reason = "calls a library by its C interface")]

use std::{
    env,
    error::Error,
    ffi::{CString, c_int, c_void},
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
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
type CommSplit = unsafe extern "C" fn(u64, c_int, c_int, *mut u64, *mut c_void) -> c_int;
type CommShrink = unsafe extern "C" fn(u64, *mut c_int, c_int, *mut u64, *mut c_void, c_int) -> c_int;
type CommTell = unsafe extern "C" fn(u64, *mut c_int) -> c_int;
type Fails = unsafe extern "C" fn(c_int);
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
    let (mut comms, mut stream) = (vec![0_u64], 0_u64);
    let mut together = Vec::new();
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| -> Result<u64, Box<dyn Error>> {
            Ok(words.get(at).ok_or("a number is missing")?.parse::<u64>()?)
        };
        let signed = |word: &str| -> Result<c_int, Box<dyn Error>> { Ok(word.parse::<c_int>()?) };
        let comm = comms.last().copied().unwrap_or_default();
        let answer = match words.first().copied().unwrap_or_default() {
            "init" => {
                together = init(&library, words[1], number(2)?, number(3)?, number(4)?)?;
                let rank = usize::try_from(number(3)?)?;
                comms.push(together.get(rank).or(together.first()).copied().unwrap_or_default());
                "ok".to_owned()
            }
            "among" => {
                in_group(&library, || {
                    together.iter().try_for_each(|comm| call(&library, words[1], (*comm, stream), 8, 0))
                })?;
                "ok".to_owned()
            }
            order @ ("split" | "group-split") => {
                let (color, key) = (signed(words[1])?, signed(words[2])?);
                let mut new = 0_u64;
                let to = &raw mut new;
                // SAFETY: its type in nccl.h; the handle outlives the group.
                let split = || unsafe {
                    library.find::<CommSplit>("ncclCommSplit")?(comm, color, key, to, null_mut());
                    Ok(())
                };
                if order == "split" {
                    split()?;
                } else {
                    in_group(&library, split)?;
                    // Used while it is where NCCL was told to put it.
                    call(&library, "ncclAllReduce", (new, stream), 1, 7)?;
                }
                comms.push(new);
                "ok".to_owned()
            }
            "shrink" => {
                let mut excluded = words[1..].iter().map(|word| signed(word)).collect::<Result<Vec<c_int>, _>>()?;
                let (count, mut new) = (c_int::try_from(excluded.len())?, 0_u64);
                // SAFETY: its type in nccl.h; there are so many excluded.
                unsafe {
                    let function = library.find::<CommShrink>("ncclCommShrink")?;
                    function(comm, excluded.as_mut_ptr(), count, &raw mut new, null_mut(), 0);
                }
                comms.push(new);
                "ok".to_owned()
            }
            "back" => {
                comms.pop();
                "ok".to_owned()
            }
            "ask" => {
                let mut answers = [-1; 2];
                for (name, answer) in ["ncclCommUserRank", "ncclCommCount"].into_iter().zip(&mut answers) {
                    // SAFETY: their type in nccl.h.
                    unsafe { library.find::<CommTell>(name)?(comm, &raw mut *answer) };
                }
                format!("{} {}", answers[0], answers[1])
            }
            "fail" => {
                let mut answer = -1;
                // SAFETY: their types in the library and in nccl.h.
                unsafe {
                    library.find::<Fails>("fake_nccl_fails")?(signed(words[1])?);
                    library.find::<CommTell>("ncclCommGetAsyncError")?(comm, &raw mut answer);
                }
                answer.to_string()
            }
            order @ ("call" | "group") => {
                for _ in 0..number(2)? {
                    let (count, datatype) = (usize::try_from(number(3)?)?, c_int::try_from(number(4)?)?);
                    let one = || call(&library, words[1], (comm, stream), count, datatype);
                    if order == "group" { in_group(&library, one)? } else { one()? }
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
            "launch" => {
                let cuda = Library::load(words[1].as_ref())?;
                // SAFETY: its type in cuda.h, where the other argument is a handle that the library does not follow.
                let function = unsafe { cuda.find::<OfStream>("cuGraphLaunch")? };
                let mut times = Vec::new();
                for turn in 0..number(2)? {
                    sleep_until(number(3)? + turn * number(4)? + number(5)?);
                    times.push(monotonic_ns().to_string());
                    // SAFETY: as above.
                    unsafe { function(0, 0) };
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
            "ras" => {
                let report = std::fs::read(words[1])?;
                let listener = TcpListener::bind("127.0.0.1:28028")?;
                thread::spawn(move || {
                    listener.incoming().flatten().try_for_each(|stream| answer_ras(&stream, &report))
                });
                "ok".to_owned()
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

/// As `src/ras/client_support.cc` of NCCL has it.
fn answer_ras(mut stream: &TcpStream, report: &[u8]) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        match line?.as_str() {
            "CLIENT PROTOCOL 2" => stream.write_all(b"SERVER PROTOCOL 2\n")?,
            "SET FORMAT json" => stream.write_all(b"OK\n")?,
            timeout if timeout.starts_with("TIMEOUT ") => stream.write_all(b"OK\n")?,
            "STATUS" => return stream.write_all(report),
            other => stream.write_all(format!("ERROR: Unknown command {other}\n").as_bytes())?,
        }
    }
    Ok(())
}

/// Which ends a millisecond after what is done in it.
fn in_group(library: &Library, done: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    // SAFETY: its type in nccl.h.
    unsafe { library.find::<OfNothing>("ncclGroupStart")?() };
    done()?;
    thread::sleep(Duration::from_millis(1));
    // SAFETY: its type in nccl.h.
    unsafe { library.find::<OfNothing>("ncclGroupEnd")?() };
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// One handle, or those of all ranks.
fn init(library: &Library, name: &str, ranks: u64, rank: u64, seed: u64) -> Result<Vec<u64>, Box<dyn Error>> {
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
        Ok(comms.into_iter().filter(|comm| *comm != 0).collect())
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
            "ncclAllReduce" | "ncclReduceScatter" | "ncclBroadcast" | "ncclGather" | "ncclScatter" => {
                library.find::<AllReduce>(name)?(none, none, count, datatype, 0, comm, stream)
            }
            "ncclAllGather" | "ncclAlltoAll" => {
                library.find::<AllGather>(name)?(none, none, count, datatype, comm, stream)
            }
            "ncclReduce" => library.find::<Reduce>(name)?(none, none, count, datatype, 0, 0, comm, stream),
            "ncclSend" | "ncclRecv" | "ncclBcast" => {
                library.find::<Send>(name)?(none, count, datatype, 0, comm, stream)
            }
            _ => return Err(format!("{name} is not known").into()),
        }
    };
    Ok(())
}

fn sleep_until(at_ns: u64) {
    thread::sleep(Duration::from_nanos(at_ns.saturating_sub(monotonic_ns())));
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
