//! The life of a process: fork, exec, exit.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use plumbline_ebpf::{
    program,
    record::{Exec, Exit, Fork, KIND_EXEC, KIND_EXIT, KIND_FORK},
};

use crate::{
    emit::{self, Lane, Slot},
    kernel::{off, read},
    path, reads,
};

#[btf_tracepoint(function = "sched_process_fork")]
pub fn fork_tp_btf(ctx: BtfTracePointContext) -> i32 {
    fork(ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork_raw_tp(ctx: RawTracePointContext) -> i32 {
    fork(ctx.arg(0), ctx.arg(1));
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec_tp_btf(ctx: BtfTracePointContext) -> i32 {
    exec(ctx.arg(0), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_raw_tp(ctx: RawTracePointContext) -> i32 {
    exec(ctx.arg(0), ctx.arg(2));
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit_tp_btf(ctx: BtfTracePointContext) -> i32 {
    exit(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit_raw_tp(ctx: RawTracePointContext) -> i32 {
    exit(ctx.arg(0));
    0
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`; new threads are left out.
#[inline(always)]
fn fork(parent: u64, child: u64) {
    let child_pid: u32 = read(child, off!(task_tgid));
    if child_pid == read::<u32>(parent, off!(task_tgid)) {
        return;
    }
    emit::record(Lane::Lifecycle, program::FORK, |record: *mut Fork| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_FORK, program::FORK, parent);
            (*record).child_pid = child_pid;
            (*record).child_start_boot_ns = read(child, off!(task_start_boottime));
            (*record).reserved = 0;
        }
    });
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`. The path is that of the
/// file that now runs: for a script, its interpreter.
#[inline(always)]
fn exec(process: u64, binprm: u64) {
    let Some(scratch) = emit::scratch::<Exec>(Slot::Exec) else { return };
    let file: u64 = read(binprm, off!(binprm_file));
    // SAFETY: a per-CPU map value; the program does not nest on a CPU.
    unsafe {
        let record = &raw mut (*scratch).record;
        emit::stamp(&raw mut (*record).header, KIND_EXEC, program::EXEC, process);
        (*record).ino = read(read(file, off!(file_inode)), off!(inode_ino));
        let spelled =
            path::spell(&raw mut (*scratch).path, read(file, off!(file_path_mnt)), read(file, off!(file_path_dentry)));
        (*record).path_bytes = spelled.bytes;
        (*record).path_state = spelled.state;
        emit::spelled(Lane::Lifecycle, program::EXEC, scratch, spelled.bytes);
    }
}

/// `sched_process_exit(struct task_struct *p, …)`; only for the last thread, whichever it is: the main thread may end
/// before the others. `live` was counted down before this point (kernel/exit.c, `do_exit`); two threads that end at once
/// may both find it at 0.
#[inline(always)]
fn exit(process: u64) {
    let signal: u64 = read(process, off!(task_signal));
    if read::<u32>(signal, off!(signal_live)) != 0 {
        return;
    }
    emit::record(Lane::Lifecycle, program::EXIT, |record: *mut Exit| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_EXIT, program::EXIT, process);
            (*record).code = read(process, off!(task_exit_code));
            (*record).files = u32::from(reads::has_read((*record).header.start_boot_ns, (*record).header.pid));
        }
    });
}
