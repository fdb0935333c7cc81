//! A process reached into the memory of another, which may hold weights, or of the daemon.
//!
//! `fentry/security_ptrace_access_check` is asked before every such reach: ptrace, `process_vm_readv(2)`, `/proc/PID/mem`,
//! `pidfd_getfd(2)`. It tells of those that want to read and write a process that has read watched files, or the daemon. At the return of
//! system calls the other process is known by its number only, and the agent looks for what it has read.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use plumbline_ebpf::{
    program::MEMORY,
    record::{KIND_MEMORY, MEMORY_ATTACH, MemoryAccess},
};

use crate::{
    emit::{self, Lane},
    files,
    kernel::{off, read},
    limit, reads, task,
};

/// include/linux/ptrace.h: more than a look at what `/proc` shows of it.
const PTRACE_MODE_ATTACH: u32 = 2;

/// `security_ptrace_access_check(struct task_struct *child, unsigned int mode)`
#[fentry(function = "security_ptrace_access_check")]
pub fn memory_fentry(ctx: FEntryContext) -> i32 {
    let (other, mode): (u64, u32) = (ctx.arg(0), ctx.arg(1));
    if mode & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    let leader: u64 = read(other, off!(task_group_leader));
    let (start_boot_ns, pid) = (read(leader, off!(task_start_boottime)), read(other, off!(task_tgid)));
    let is_asked =
        reads::has_read(start_boot_ns, pid) || files::control().is_some_and(|control| control.own_pid == pid);
    if is_asked && pid != read::<u32>(task::current(), off!(task_tgid)) {
        tell(start_boot_ns, pid, MEMORY_ATTACH);
    }
    0
}

/// The other process as the caller named it.
#[inline(always)]
pub fn tell_of_number(pid: u64, how: u32) {
    if files::at_return(MEMORY) && pid as u32 != read::<u32>(task::current(), off!(task_tgid)) {
        tell(0, pid as u32, how);
    }
}

#[inline(always)]
fn tell(start_boot_ns: u64, pid: u32, how: u32) {
    if !limit::admits(MEMORY) {
        return;
    }
    emit::record(Lane::Events, MEMORY, |record: *mut MemoryAccess| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_MEMORY, MEMORY, task::current());
            (*record).target_start_boot_ns = start_boot_ns;
            (*record).target_pid = pid;
            (*record).how = how;
        }
    });
}
