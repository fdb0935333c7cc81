//! Every process that already runs: the iterator that seeds the process table at start.
#![expect(unsafe_code, reason = "kernel edge; aya-ebpf has no macro for iterators")]

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_seq_write};
use plumbline_ebpf::{
    record::{Header, KIND_TASK},
    running::Running,
};

use crate::{
    files,
    kernel::{off, read},
    task,
};

/// `struct bpf_iter__task` (kernel/bpf/task_iter.c): pointers, so each is 8 bytes.
#[repr(C)]
pub struct IterTask {
    meta: *const IterMeta,
    task: *const c_void,
}

/// The head of `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
pub struct IterMeta {
    seq: *mut c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn tasks_iter(ctx: *const IterTask) -> i32 {
    // SAFETY: the verifier knows the type of the context and checks these loads.
    let (task, seq) = unsafe { ((*ctx).task as u64, (*(*ctx).meta).seq) };
    if task == 0 || read::<u32>(task, off!(task_pid)) != read::<u32>(task, off!(task_tgid)) {
        return 0;
    }
    let mut header = Header {
        kind: KIND_TASK,
        program: 0,
        cpu: 0,
        generation: 0,
        sequence: 0,
        // SAFETY: the helper has no preconditions.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        start_boot_ns: 0,
        cgroup_id: 0,
        pid: 0,
        tid: 0,
        ppid: 0,
        uid: 0,
        gid: 0,
        mnt_ns: 0,
        net_ns: 0,
        pid_ns: 0,
        comm: [0; 16],
    };
    task::describe(&raw mut header, task);
    // SAFETY: the sequence file comes from the context; the header is fully initialised.
    unsafe { bpf_seq_write(seq.cast(), (&raw const header).cast_mut().cast(), size_of::<Header>() as u32) };
    0
}

/// Which file each process runs, as the programs that deny know it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn programs_iter(ctx: *const IterTask) -> i32 {
    // SAFETY: the verifier knows the type of the context and checks these loads.
    let (task, seq) = unsafe { ((*ctx).task as u64, (*(*ctx).meta).seq) };
    if task == 0 || read::<u32>(task, off!(task_pid)) != read::<u32>(task, off!(task_tgid)) {
        return 0;
    }
    let mm: u64 = read(task, off!(task_mm));
    let file: u64 = read(mm, off!(mm_exe_file));
    let inode: u64 = read(file, off!(file_inode));
    let id = files::id(inode);
    let running = Running {
        ino: id.ino,
        dev: id.dev,
        inode_generation: read(inode, off!(inode_generation)),
        pid: read(task, off!(task_tgid)),
        reserved: 0,
    };
    // SAFETY: the sequence file comes from the context; the record is fully initialised.
    unsafe { bpf_seq_write(seq.cast(), (&raw const running).cast_mut().cast(), size_of::<Running>() as u32) };
    0
}
