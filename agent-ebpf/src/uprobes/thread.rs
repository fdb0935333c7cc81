//! What is known of the thread that calls: found by one lookup, so that the commonest calls cost no more than that.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers, and helpers without preconditions")]

use aya_ebpf::{
    helpers::generated::bpf_get_current_task_btf,
    macros::map,
    maps::{Array, HashMap},
};
use plumbline_ebpf::cuda::{COUNTS, Launches, Lost, Thread, UNKNOWN_DEVICE, count_of};

use super::{BPF_F_NO_PREALLOC, BPF_NOEXIST, cuda::lost};
use crate::kernel::{off, read};

/// By number of process and thread. The agent takes out those that have ended.
#[map]
static THREADS: HashMap<u64, Thread> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// One entry of zeros, never written: what a new thread is made of.
#[map]
static NO_THREAD: Array<Thread> = Array::with_max_entries(1, 0);

/// The current one; a thread alone writes to what is known of it.
#[derive(Clone, Copy)]
pub struct Current {
    pub pid_tgid: u64,
    pub known: *mut Thread,
}

impl Current {
    pub fn pid(self) -> u32 {
        (self.pid_tgid >> 32) as u32
    }

    pub fn start_boot_ns(self) -> u64 {
        // SAFETY: a map value.
        unsafe { (*self.known).start_boot_ns }
    }

    pub fn device(self) -> u32 {
        // SAFETY: a map value.
        unsafe { (*self.known).device }
    }

    pub fn set_device(self, device: u32) {
        // SAFETY: a map value of this thread's own.
        unsafe { (*self.known).device = device };
    }

    /// Another one more, on its device.
    #[inline(always)]
    pub fn count(self, kind: u8) {
        let place = core::hint::black_box(count_of(self.device(), kind)) & (COUNTS - 1);
        // SAFETY: a map value of this thread's own, which nobody else adds to; the place is masked.
        unsafe { *(&raw mut (*self.known).counts).cast::<u64>().add(place) += 1 };
    }

    /// Of this thread's own, which nobody else writes to.
    pub fn launches(self) -> *mut Launches {
        // SAFETY: a map value.
        unsafe { &raw mut (*self.known).launches }
    }

    pub fn is_capturing(self) -> bool {
        // SAFETY: a map value.
        unsafe { (*self.known).is_capturing != 0 }
    }

    pub fn set_capturing(self, is: bool) {
        // SAFETY: a map value of this thread's own.
        unsafe { (*self.known).is_capturing = is.into() };
    }
}

/// `None`, and counted, where there is no room.
#[inline(always)]
pub fn current() -> Option<Current> {
    // SAFETY: the helper has no preconditions, and the kernel reads what is at an offset of its own types' itself.
    let (task, pid_tgid) = unsafe {
        let task = bpf_get_current_task_btf().cast::<u8>();
        let [pid, tgid] =
            [off!(task_pid), off!(task_tgid)].map(|at| task.add(at as usize).cast::<u32>().read_volatile());
        (task as u64, u64::from(tgid) << 32 | u64::from(pid))
    };
    if let Some(known) = THREADS.get_ptr_mut(&pid_tgid) {
        let current = Current { pid_tgid, known };
        // SAFETY: a map value.
        if unsafe { (*known).task } != task {
            begin(current, task);
        }
        return Some(current);
    }
    let _ = THREADS.insert(&pid_tgid, NO_THREAD.get(0)?, BPF_NOEXIST);
    let Some(known) = THREADS.get_ptr_mut(&pid_tgid) else {
        lost(Lost::Calls);
        return None;
    };
    let current = Current { pid_tgid, known };
    begin(current, task);
    Some(current)
}

/// Another thread than the one that had this number, or the first. What was counted stays if the process is the same.
#[inline(never)]
fn begin(current: Current, task: u64) {
    let leader: u64 = read(task, off!(task_group_leader));
    let start_boot_ns: u64 = read(leader, off!(task_start_boottime));
    let known = current.known;
    // SAFETY: a map value of this thread's own.
    unsafe {
        if (*known).start_boot_ns != start_boot_ns {
            for at in 0..COUNTS {
                (&raw mut (*known).counts).cast::<u64>().add(at).write_volatile(0);
            }
        }
        (*known).start_boot_ns = start_boot_ns;
        (*known).device = UNKNOWN_DEVICE;
        (*known).is_capturing = 0;
        // No member of anything.
        (*known).launches.hash = 0;
        (*known).launches.number = 0;
        (*known).launches.is_recorded = 0;
        (*known).task = task;
    }
}
