//! How much one cgroup may tell in a second, so that a flood of one does not drown the others. What is held back is counted
//! and told as lost.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, macros::map, maps::HashMap};
use plumbline_ebpf::record::{Bucket, BucketKey};

use crate::{files, task};

/// The agent takes entries out that have been quiet for a while. A full table limits nobody.
#[map]
static BUCKETS: HashMap<BucketKey, Bucket> = HashMap::with_max_entries(4096, 0);

const WINDOW_NS: u64 = 1_000_000_000;

/// Whether the current task's cgroup may have another record of this program in this second. Two CPUs that count at once may
/// let one more through; what is held back is counted exactly.
#[inline(always)]
pub fn admits(program: u32) -> bool {
    admits_at_most(program, u32::MAX)
}

/// The same, and never more than so many.
#[inline(always)]
pub fn admits_at_most(program: u32, most: u32) -> bool {
    let Some(control) = files::control() else { return true };
    let limit = match control.records_per_second {
        0 => most,
        given => {
            if given < most {
                given
            } else {
                most
            }
        }
    };
    if limit == u32::MAX {
        return true;
    }
    let key = BucketKey { cgroup_id: task::cgroup_id(task::current()), program, reserved: 0 };
    // SAFETY: the helper has no preconditions.
    let now_boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    let Some(bucket) = BUCKETS.get_ptr_mut(&key) else {
        // BPF_NOEXIST (1): another CPU may have made it.
        let new = Bucket { window_boot_ns: now_boot_ns, suppressed: 0, taken: 1, reserved: 0 };
        let _ = BUCKETS.insert(&key, &new, 1);
        return true;
    };
    // SAFETY: a map value; the one sum that must be right is added to atomically.
    unsafe {
        if now_boot_ns.wrapping_sub((*bucket).window_boot_ns) >= WINDOW_NS {
            (*bucket).window_boot_ns = now_boot_ns;
            (*bucket).taken = 0;
        }
        if (*bucket).taken >= limit {
            let suppressed = &raw mut (*bucket).suppressed;
            core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(suppressed, 1);
            return false;
        }
        (*bucket).taken += 1;
    }
    true
}
