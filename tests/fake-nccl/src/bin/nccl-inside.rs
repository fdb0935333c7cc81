//! An executable that contains NCCL, as some are linked, and calls it as it is told: `nccl-inside LIBCUDA`, which it loads as such an executable
//! does; lines of the standard input are numbers, of calls of `ncclAllReduce`, and are answered by `ok`.
#![expect(unsafe_code, reason = "loads a library, and calls what has a C interface")]

use std::{
    env,
    error::Error,
    ffi::CString,
    io::{self, BufRead as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    ptr::null_mut,
};

unsafe extern "C" {
    fn dlopen(name: *const std::ffi::c_char, flags: std::ffi::c_int) -> *mut std::ffi::c_void;
}

/// `RTLD_NOW` of dlfcn.h.
const NOW: std::ffi::c_int = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let library = env::args_os().nth(1).ok_or("usage: nccl-inside LIBCUDA")?;
    let name = CString::new(library.as_bytes())?;
    // SAFETY: a string that ends.
    if unsafe { dlopen(name.as_ptr(), NOW) }.is_null() {
        return Err(format!("{} cannot be loaded", library.display()).into());
    }
    say("ready")?;
    for line in io::stdin().lock().lines() {
        for _ in 0..line?.parse::<u32>()? {
            fake_nccl::ncclAllReduce(null_mut(), null_mut(), 8, 7, 0, 0, null_mut());
        }
        say("ok")?;
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
