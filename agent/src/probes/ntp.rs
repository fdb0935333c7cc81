//! Whether the wall clock is synchronised, as the kernel sees it.
#![expect(unsafe_code, reason = "kernel edge: adjtimex has no safe wrapper")]

/// `synchronised`, `unsynchronised` or `unknown`: the kernel's STA_UNSYNC (adjtimex(2), read only).
pub fn clock_sync() -> &'static str {
    // SAFETY: zeros are a valid `timex`; with `modes` 0 the call changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is valid for the whole call.
    match unsafe { libc::adjtimex(&raw mut state) } {
        -1 => "unknown",
        libc::TIME_ERROR => "unsynchronised",
        _ if state.status & libc::STA_UNSYNC != 0 => "unsynchronised",
        _ => "synchronised",
    }
}
