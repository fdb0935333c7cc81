//! Calls CUDA's driver as it is told.
//!
//! `cuda-caller LIBRARY`; a line of the standard input is a function of `cuda.h` and how often to call it, with the number that matters of
//! its arguments: `cuMemAlloc_v2 3 4096`. What a call gives is kept, the last in front, for those that take it: `cuMemFree_v2 1` frees
//! what was allocated last. With `thread` in front, a thread of its own does it and ends. After each line it says which result came last.
//!
//! `fork 100 cuGraphLaunch 3` has so many processes do it, which stay until this one ends; it is answered when all have.
#![expect(unsafe_code, reason = "calls a library by its C interface")]

use std::{
    env,
    error::Error,
    ffi::{CString, c_int, c_void},
    io::{self, BufRead as _, Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    process::ExitCode,
    thread,
};

/// Handles that calls gave.
#[derive(Default)]
struct Given {
    contexts: Vec<u64>,
    memory: Vec<u64>,
}

/// Every function of the table has at most so many arguments, and those that it lacks do it no harm: the caller cleans up.
type Function = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64) -> c_int;

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
    let library = env::args_os().nth(1).ok_or("usage: cuda-caller LIBRARY")?;
    let name = CString::new(library.as_bytes())?;
    // SAFETY: the name is a string that ends.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    if handle.is_null() {
        return Err(format!("{} cannot be loaded", library.display()).into());
    }
    let mut given = Given::default();
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let in_thread = line.strip_prefix("thread ");
        let in_processes = line.strip_prefix("fork ");
        let mut words = in_processes.or(in_thread).unwrap_or(&line).split_whitespace();
        let processes: u32 = in_processes.and_then(|_| words.next()).unwrap_or("0").parse()?;
        let name = words.next().ok_or("a line is a function and a number")?;
        let times: u64 = words.next().unwrap_or("1").parse()?;
        let number: u64 = words.next().unwrap_or("0").parse()?;
        let function = find(handle, name)?;
        let mut calls = || (0..times).fold(0, |_, _| call(function, name, number, &mut given));
        let result = match in_thread {
            _ if processes > 0 => fork(processes, &mut calls)?,
            Some(_) => thread::scope(|scope| scope.spawn(calls).join()).map_err(|_| "the thread panicked")?,
            None => calls(),
        };
        say(&result.to_string())?;
    }
    Ok(())
}

/// The results of all, of which 0 is that of none.
fn fork(processes: u32, calls: &mut impl FnMut() -> c_int) -> io::Result<c_int> {
    let (mut done, mut tell) = io::pipe()?;
    for _ in 0..processes {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: has no preconditions; who was forked by one that has ended stays, and is ended by whoever looks after all.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let result = u8::try_from(calls()).unwrap_or(u8::MAX);
                let _ = tell.write_all(&[result]);
                drop(tell);
                loop {
                    // SAFETY: has no preconditions.
                    unsafe { libc::pause() };
                }
            }
            _ => {}
        }
    }
    // So that there is an end if one of them is killed.
    drop(tell);
    let mut results = vec![0; usize::try_from(processes).unwrap_or(0)];
    done.read_exact(&mut results)?;
    Ok(results.into_iter().max().unwrap_or(0).into())
}

fn say(word: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{word}")?;
    out.flush()
}

fn find(handle: *mut c_void, name: &str) -> Result<Function, Box<dyn Error>> {
    let symbol = CString::new(name)?;
    // SAFETY: a handle of `dlopen`, and a string that ends.
    let address = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
    if address.is_null() {
        return Err(format!("there is no {name}").into());
    }
    // SAFETY: the library's functions take integers and pointers only, of which the first six are in registers of one class.
    Ok(unsafe { std::mem::transmute::<*mut c_void, Function>(address) })
}

fn call(function: Function, name: &str, number: u64, given: &mut Given) -> c_int {
    let mut out = [0_u64; 2];
    let to = (&raw mut out) as u64;
    let mut arguments = [0_u64; 6];
    match name {
        "cuMemAlloc_v2" | "cuMemCreate" | "cuDevicePrimaryCtxRetain" | "cuDeviceGetUuid_v2" => {
            arguments[..2].copy_from_slice(&[to, number]);
        }
        "cuCtxCreate_v2" => arguments[..3].copy_from_slice(&[to, 0, number]),
        "cuMemFree_v2" | "cuMemFreeAsync" | "cuMemRelease" => arguments[0] = given.memory.pop().unwrap_or(number),
        "cuCtxSetCurrent" => arguments[0] = given.contexts.last().copied().unwrap_or(number),
        "cuMemcpyPeerAsync" => arguments[4] = number,
        name if name.starts_with("cuMemcpy") => arguments[2] = number,
        _ => arguments[0] = number,
    }
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: pointers among the arguments are to `out`, or are handles that the library gave and does not follow.
    let result = unsafe { function(a, b, c, d, e, f, 0, 0, 0, 0, 0) };
    let kept = if name.contains("Ctx") { &mut given.contexts } else { &mut given.memory };
    kept.extend(Some(out[0]).filter(|out| *out != 0 && !name.contains("Uuid")));
    result
}
