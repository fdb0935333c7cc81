//! A file below a watched directory was opened.
//!
//! Rungs: `fentry/security_file_open` sees every open, io_uring's included; the return of the open system calls
//! (`tp_btf` or raw `sys_exit`) sees what a process asked for by `open`, `openat`, `openat2`, `creat` and
//! `open_by_handle_at`, with the kernel's own file, so arguments cannot be swapped underneath; `lsm/file_open` as the
//! last. 32-bit system calls and io_uring are blind spots of the system-call rungs.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fentry, lsm, map, raw_tracepoint},
    maps::{Array, HashMap, PerCpuArray},
    programs::{BtfTracePointContext, FEntryContext, LsmContext, RawTracePointContext},
};
use plumbline_ebpf::{
    program,
    record::{Control, FileOpen, KIND_ENROL, KIND_FILE_OPEN, WatchKey},
};

use crate::{
    emit::{self, Lane},
    kernel::{off, read, trace},
    path, task,
};

/// Watched directories by inode, enrolled by the agent with the keys that this very program read.
#[map]
static WATCHED: HashMap<WatchKey, u32> = HashMap::with_max_entries(1024, 0);

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

#[map]
static FILE_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
struct Scratch {
    record: FileOpen,
    path: path::Area,
}

/// Directories above a file that are compared with the watched ones.
const MAX_DEPTH: usize = 32;

const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;
/// `O_PATH` opens cannot read.
const O_PATH: u32 = 0o10_000_000;

#[fentry(function = "security_file_open")]
pub fn file_open_fentry(ctx: FEntryContext) -> i32 {
    if observe(ctx.arg(0)) {
        trace!(&ctx, "file_open by fentry told of an open");
    }
    0
}

#[lsm(hook = "file_open")]
pub fn file_open_lsm(ctx: LsmContext) -> i32 {
    if observe(ctx.arg(0)) {
        trace!(&ctx, "file_open by lsm told of an open");
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn file_open_tp_btf(ctx: BtfTracePointContext) -> i32 {
    if observe_return(ctx.arg(0), ctx.arg(1)) {
        trace!(&ctx, "file_open by tp_btf told of an open");
    }
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn file_open_raw_tp(ctx: RawTracePointContext) -> i32 {
    if observe_return(ctx.arg(0), ctx.arg(1)) {
        trace!(&ctx, "file_open by raw_tp told of an open");
    }
    0
}

/// System calls that return a new descriptor of a named file, x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn opens_a_file(syscall: u64) -> bool {
    const OPEN: u64 = 2;
    const CREAT: u64 = 85;
    const OPENAT: u64 = 257;
    const OPEN_BY_HANDLE_AT: u64 = 304;
    const OPENAT2: u64 = 437;
    matches!(syscall, OPEN | CREAT | OPENAT | OPEN_BY_HANDLE_AT | OPENAT2)
}

/// 32-bit programs number their calls otherwise: `cs` is `__USER32_CS` (arch/x86/include/asm/segment.h).
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn is_32_bit(cs: u64) -> bool {
    cs & 0xffff == 0x23
}

/// `PSTATE.nRW` (arch/arm64/include/uapi/asm/ptrace.h, `PSR_MODE32_BIT`).
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn is_32_bit(pstate: u64) -> bool {
    pstate & 0x10 != 0
}

/// The same for arm64 (include/uapi/asm-generic/unistd.h), which has no `open` and no `creat`.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn opens_a_file(syscall: u64) -> bool {
    const OPENAT: u64 = 56;
    const OPEN_BY_HANDLE_AT: u64 = 265;
    const OPENAT2: u64 = 437;
    matches!(syscall & 0xffff_ffff, OPENAT | OPEN_BY_HANDLE_AT | OPENAT2)
}

/// `sys_exit(struct pt_regs *regs, long ret)`: the file behind the descriptor that an open returned.
#[inline(always)]
fn observe_return(regs: u64, ret: i64) -> bool {
    if ret < 0 || !opens_a_file(read(regs, off!(regs_syscall))) || is_32_bit(read(regs, off!(regs_mode))) {
        return false;
    }
    let files: u64 = read(task::current(), off!(task_files));
    let table: u64 = read(files, off!(files_fdt));
    let max: u32 = read(table, off!(fdtable_max_fds));
    if ret >= i64::from(max) {
        return false;
    }
    let array: u64 = read(table, off!(fdtable_fd));
    observe(read(array.wrapping_add(ret as u64 * 8), 0))
}

/// Writes a record if the file lies below a watched directory, or the daemon is enrolling; says whether it did.
#[inline(always)]
fn observe(file: u64) -> bool {
    let Some(control) = CONTROL.get(0) else { return false };
    // SAFETY: the helper has no preconditions.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let enrolling = control.enrol_pid != 0 && control.enrol_pid == pid;
    if control.watched == 0 && !enrolling {
        return false;
    }
    let inode: u64 = read(file, off!(file_inode));
    let mode: u16 = read(inode, off!(inode_mode));
    let flags: u32 = read(file, off!(file_flags));
    if !enrolling && (mode & S_IFMT != S_IFREG || flags & O_PATH != 0) {
        return false;
    }
    let super_block: u64 = read(inode, off!(inode_sb));
    let own =
        WatchKey { ino: read(inode, off!(inode_ino)), dev: read(super_block, off!(super_block_dev)), reserved: 0 };
    let dentry: u64 = read(file, off!(file_path_dentry));
    let mnt: u64 = read(file, off!(file_path_mnt));
    let (kind, watched) = if enrolling {
        (KIND_ENROL, own)
    } else {
        let watched = watched_ancestor(mnt, dentry, own.dev);
        if watched.ino == 0 {
            return false;
        }
        (KIND_FILE_OPEN, watched)
    };

    let Some(scratch) = FILE_SCRATCH.get_ptr_mut(0) else { return false };
    // SAFETY: a per-CPU map value of plain bytes. Only the LSM rung, the last, can be preempted by itself here; its record
    // may then mix two tasks, which is why it is the last.
    unsafe {
        let record = &raw mut (*scratch).record;
        emit::stamp(&raw mut (*record).header, kind, program::FILE_OPEN, task::current());
        (*record).ino = own.ino;
        (*record).dev = own.dev;
        (*record).watched_ino = watched.ino;
        (*record).watched_dev = watched.dev;
        (*record).generation = read(inode, off!(inode_generation));
        (*record).size_bytes = read(inode, off!(inode_size));
        (*record).links = read(inode, off!(inode_nlink));
        (*record).mode = u32::from(mode);
        (*record).flags = flags;
        let spelled = path::spell(&raw mut (*scratch).path, mnt, dentry);
        (*record).path_bytes = spelled.bytes;
        (*record).path_state = spelled.state;
        let bytes = size_of::<FileOpen>() + (spelled.bytes as usize & (size_of::<path::Area>() - 1));
        emit::bytes(Lane::Events, program::FILE_OPEN, scratch.cast(), bytes);
    }
    true
}

/// The nearest watched directory at or above `dentry`, across mounts; an inode number of 0 for none. A bind mount below
/// the directory does not hide a file from this walk, because it follows dentries and not the path that was asked for.
#[inline(always)]
fn watched_ancestor(mnt: u64, dentry: u64, dev: u32) -> WatchKey {
    let mut key = WatchKey { ino: 0, dev, reserved: 0 };
    let mut dentry = dentry;
    let mut vfsmount = mnt;
    for _ in 0..MAX_DEPTH {
        let inode: u64 = read(dentry, off!(dentry_inode));
        key.ino = read(inode, off!(inode_ino));
        if WATCHED.get_ptr(&key).is_some() {
            return key;
        }
        let mut parent: u64 = read(dentry, off!(dentry_parent));
        if parent == dentry || dentry == read::<u64>(vfsmount, off!(vfsmount_root)) {
            // The root of a mount: what lies above is where it is mounted.
            let mount = vfsmount.wrapping_sub(u64::from(off!(mount_vfsmount)));
            let parent_mount: u64 = read(mount, off!(mount_parent));
            if parent_mount == mount || parent_mount == 0 {
                break;
            }
            parent = read(mount, off!(mount_mountpoint));
            vfsmount = parent_mount.wrapping_add(u64::from(off!(mount_vfsmount)));
            let above: u64 = read(parent, off!(dentry_inode));
            let super_block: u64 = read(above, off!(inode_sb));
            key.dev = read(super_block, off!(super_block_dev));
        }
        dentry = parent;
    }
    key.ino = 0;
    key
}
