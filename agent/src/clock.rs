//! The node's clocks. Everything pure gets its time with the data; only the rim asks here.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_BOOTTIME: never steps, runs while suspended, the kernel programs' own clock.
pub fn boot_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// Nanoseconds of CLOCK_MONOTONIC, which stands while suspended: the clock of the programs at functions of libraries.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Nanoseconds since 1970-01-01 UTC; steps when somebody sets the clock.
pub fn unix_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// Which boot the times of [`boot_ns`] are of (`random(4)`); empty where the kernel does not say.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
