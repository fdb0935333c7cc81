//! How much of which watched file each process has taken: a table in the kernel, read by the agent.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{Array, HashMap},
};
use plumbline_ebpf::record::{FileId, ProcessKey, ReadKey, Reads, SLICES, WatchedFile};

use crate::{
    emit,
    kernel::{off, read},
    task,
};

/// One entry per (process, file); the agent takes entries out when the process has ended.
#[map]
static READS: HashMap<ReadKey, Reads> = HashMap::with_max_entries(4096, 0);

/// Processes with entries in the table; the agent takes them out when they have ended.
#[map]
static READERS: HashMap<ProcessKey, u32> = HashMap::with_max_entries(4096, 0);

/// One entry of zeros, never written: what a new entry is made of.
#[map]
static NOTHING_READ: Array<Reads> = Array::with_max_entries(1, 0);

/// Which of the figures grows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    Read,
    Faulted,
    Written,
}

/// Part of a file.
#[derive(Clone, Copy)]
pub struct Range {
    pub start_bytes: u64,
    pub bytes: u64,
}

/// Adds to the current process's figures of a watched file. Says whether these are the first bytes of their kind.
#[inline(always)]
pub fn add(program: u32, inode: u64, file: &FileId, watch: &WatchedFile, figure: Figure, range: Range) -> bool {
    let task = task::current();
    let leader: u64 = read(task, off!(task_group_leader));
    let process = ProcessKey {
        start_boot_ns: read(leader, off!(task_start_boottime)),
        pid: read(task, off!(task_tgid)),
        reserved: 0,
    };
    let key = ReadKey { file: *file, start_boot_ns: process.start_boot_ns, pid: process.pid, reserved: 0 };
    if READS.get_ptr(&key).is_none() {
        let Some(nothing) = NOTHING_READ.get(0) else { return false };
        // BPF_NOEXIST (1): a thread beside us may have made it. What fails otherwise finds no entry below.
        let _ = READS.insert(&key, nothing, 1);
        let _ = READERS.insert(&process, &1, 0);
    }
    let Some(entry) = READS.get_ptr_mut(&key) else {
        emit::count_table_full(program);
        return false;
    };
    // SAFETY: a map value. Integers are added to atomically where a sum must be right, and stored where the last may win.
    unsafe {
        let now_boot_ns = bpf_ktime_get_boot_ns();
        if (*entry).bytes_read == 0 && (*entry).bytes_faulted == 0 {
            // What was written before the first read may have made the file.
            (*entry).size_bytes = read(inode, off!(inode_size));
        }
        if (*entry).header.boot_ns == 0 {
            (*entry).watched = *watch;
            task::describe(&raw mut (*entry).header, task);
            (*entry).header.boot_ns = now_boot_ns;
        }
        let counter = match figure {
            Figure::Read => &raw mut (*entry).bytes_read,
            Figure::Faulted => &raw mut (*entry).bytes_faulted,
            Figure::Written => &raw mut (*entry).bytes_written,
        };
        let first = counter.read_volatile() == 0;
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(counter, range.bytes);
        if figure != Figure::Written {
            cover((&raw mut (*entry).coverage).cast(), (*entry).size_bytes, range);
        }
        (*entry).last_boot_ns = now_boot_ns;
        first
    }
}

/// Whether the process has entries in the table.
#[inline(always)]
pub fn has_read(start_boot_ns: u64, pid: u32) -> bool {
    READERS.get_ptr(&ProcessKey { start_boot_ns, pid, reserved: 0 }).is_some()
}

/// Marks the slices that the range touches.
#[inline(always)]
fn cover(coverage: *mut u8, size_bytes: u64, range: Range) {
    if size_bytes == 0 || range.bytes == 0 {
        return;
    }
    let last = SLICES as u64 - 1;
    let slice_of = |byte: u64| {
        let slice = byte.wrapping_mul(SLICES as u64) / size_bytes;
        if slice > last { last } else { slice }
    };
    let mut slice = slice_of(range.start_bytes);
    let end = slice_of(range.start_bytes.wrapping_add(range.bytes - 1));
    for _ in 0..SLICES {
        if slice > end {
            break;
        }
        // SAFETY: the masked index lies within the array.
        unsafe { *coverage.add(slice as usize & (SLICES - 1)) = 1 };
        slice += 1;
    }
}
