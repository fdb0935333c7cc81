//! Simulated: flushes that fail. Loaded with `LD_PRELOAD`, it answers EIO to `fsync` and `fdatasync` while the file that
//! `PLUMBLINE_FAKE_DISK_FAILS` names exists; otherwise the kernel answers.
#![expect(unsafe_code, reason = "stands in for two functions of the C library")]

use std::ffi::{CStr, c_int, c_long};

/// `fsync(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    flush(libc::SYS_fsync, fd)
}

/// `fdatasync(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    flush(libc::SYS_fdatasync, fd)
}

fn flush(call: c_long, fd: c_int) -> c_int {
    if fails() {
        // SAFETY: the pointer is this thread's `errno`, valid as long as the thread.
        unsafe { *libc::__errno_location() = libc::EIO };
        return -1;
    }
    // SAFETY: both calls take one descriptor and touch no memory of ours; a bad descriptor is an error, not undefined.
    let answer = unsafe { libc::syscall(call, fd) };
    c_int::try_from(answer).unwrap_or(-1)
}

fn fails() -> bool {
    // SAFETY: the name ends in NUL; the environment is not changed by the programs that load this.
    let path = unsafe { libc::getenv(c"PLUMBLINE_FAKE_DISK_FAILS".as_ptr()) };
    if path.is_null() {
        return false;
    }
    // SAFETY: `getenv` gave a string that ends in NUL and lives as long as the environment.
    let path = unsafe { CStr::from_ptr(path) };
    // SAFETY: the path ends in NUL; `access` reads it and nothing else.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}
