//! The incident profile, and until when it holds.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Until when the incident profile holds, nanoseconds of CLOCK_BOOTTIME; 0 for the steady one.
#[derive(Debug, Clone, Default)]
pub struct Incident(Arc<AtomicU64>);

impl Incident {
    pub fn until(&self, boot_ns: u64) {
        self.0.store(boot_ns, Ordering::Relaxed);
    }

    pub fn holds(&self, now_boot_ns: u64) -> bool {
        now_boot_ns < self.0.load(Ordering::Relaxed)
    }
}
