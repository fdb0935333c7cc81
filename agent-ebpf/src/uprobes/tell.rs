//! Records: what is told at once.
#![expect(unsafe_code, reason = "kernel edge: a helper without preconditions")]

use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, macros::map, maps::RingBuf};
use plumbline_ebpf::{
    cuda::Lost,
    cuda_told::{Record, Told},
};

use super::{cuda::lost, thread::Current};

/// Rare by what is told; what finds it full is counted.
#[map]
static TOLD: RingBuf = RingBuf::with_byte_size(1 << 16, 0);

/// Of the thread that calls, now.
#[inline(always)]
pub fn tell(current: Current, what: Told, record: Record) {
    let record = Record {
        // SAFETY: the helper has no preconditions.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        pid: current.pid(),
        tid: current.pid_tgid as u32,
        what: what as u32,
        ..record
    };
    if TOLD.output::<Record>(&record, 0).is_err() {
        lost(Lost::Records);
    }
}
