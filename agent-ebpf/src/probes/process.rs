//! The life of a process: fork, exec, exit.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use plumbline_ebpf::{
    offsets::UNKNOWN,
    program,
    record::{ARGUMENTS_MAX_BYTES, Exec, Exit, Fork, KIND_EXEC, KIND_EXIT, KIND_FORK, NO_LOGIN, PATH_MAX_BYTES},
};

use crate::{
    emit::{self, Lane, Slot},
    files,
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

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, in the context of `p` and with its
/// new memory. The path is that of the file that now runs: for a script, its interpreter. The arguments are read from the
/// new program's memory before it has run.
#[inline(always)]
fn exec(process: u64, binprm: u64) {
    let Some(scratch) = emit::scratch::<Exec>(Slot::Exec) else { return };
    let file: u64 = read(binprm, off!(binprm_file));
    // SAFETY: a per-CPU map value; the program does not nest on a CPU.
    unsafe {
        let record = &raw mut (*scratch).record;
        emit::stamp(&raw mut (*record).header, KIND_EXEC, program::EXEC, process);
        let inode: u64 = read(file, off!(file_inode));
        let id = files::id(inode);
        (*record).ino = id.ino;
        (*record).dev = id.dev;
        (*record).inode_generation = read(inode, off!(inode_generation));
        (*record).links = read(inode, off!(inode_nlink));
        (*record).mnt_ns = path::mnt_ns(read(file, off!(file_path_mnt)));
        (*record).reserved = 0;
        let cred: u64 = read(process, off!(task_cred));
        (*record).capabilities = read(cred, off!(cred_cap_effective));
        let loginuid = off!(task_loginuid);
        (*record).loginuid = if loginuid == UNKNOWN { NO_LOGIN } else { read(process, loginuid) };
        let spelled =
            path::spell(&raw mut (*scratch).path, read(file, off!(file_path_mnt)), read(file, off!(file_path_dentry)));
        (*record).path_bytes = spelled.bytes;
        (*record).path_state = spelled.state;
        let mm: u64 = read(process, off!(task_mm));
        let start: u64 = read(mm, off!(mm_arg_start));
        let total = read::<u64>(mm, off!(mm_arg_end)).wrapping_sub(start);
        (*record).argument_total_bytes = total as u32;
        (*record).argument_bytes = 0;
        let mut bytes = spelled.bytes;
        if (bytes as usize) < PATH_MAX_BYTES {
            let last = ARGUMENTS_MAX_BYTES as u64 - 1;
            let length = (if total > last { last } else { total }) as u32 & last as u32;
            let at = bytes as usize & (PATH_MAX_BYTES - 1);
            let target = (&raw mut (*scratch).path).cast::<u8>().add(at);
            if bpf_probe_read_user(target.cast(), length, start as *const core::ffi::c_void) == 0 {
                (*record).argument_bytes = length;
                bytes = at as u32 + length;
            }
        }
        emit::spelled(Lane::Lifecycle, program::EXEC, scratch, bytes);
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
