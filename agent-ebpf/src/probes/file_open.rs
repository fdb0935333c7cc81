//! A watched file was opened, or its descriptor came from another process.
//!
//! The ladder: `lsm/file_open` sees every open in the kernel that no security module before it refused, and can deny it;
//! `fentry/security_file_open` sees every open in the kernel (io_uring, 32-bit programs, `open_by_handle_at`)
//! and decides on the kernel's own objects; the return of the opening system calls, where the descriptor leads to the
//! file, works where the kernel refuses fentry (`sys_exit.rs`, `io_uring.rs`).
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{fentry, lsm},
    programs::{FEntryContext, LsmContext},
};
use plumbline_ebpf::{
    program,
    record::{FileOpen, KIND_ENROL, KIND_FILE_OPEN, VIA_OPEN, VIA_RECEIVED, WatchedFile},
};

use crate::{
    decide::{self, Decision},
    emit::{self, Lane, Slot},
    files::{self, S_IFMT, S_IFREG},
    kernel::{self, off, read, trace},
    limit, path, task,
};

/// `O_PATH` opens cannot read.
const O_PATH: u32 = 0o10_000_000;

/// `security_file_open(struct file *file)`
#[fentry(function = "security_file_open")]
pub fn file_open_fentry(ctx: FEntryContext) -> i32 {
    if observe(Slot::FileOpen, ctx.arg(0), VIA_OPEN, false).is_told {
        trace!(&ctx, "file_open by fentry told of an open");
    }
    0
}

/// `security_file_receive(struct file *file)`: `SCM_RIGHTS` and `pidfd_getfd(2)`.
#[fentry(function = "security_file_receive")]
pub fn file_receive_fentry(ctx: FEntryContext) -> i32 {
    observe(Slot::FileReceive, ctx.arg(0), VIA_RECEIVED, false);
    0
}

/// `security_file_open`, where its answer counts.
#[lsm(hook = "file_open")]
pub fn file_open_lsm(ctx: LsmContext) -> i32 {
    decide::answer(observe(Slot::FileOpen, ctx.arg(0), VIA_OPEN, true).is_denied)
}

/// `security_file_receive`, where its answer counts.
#[lsm(hook = "file_receive")]
pub fn file_receive_lsm(ctx: LsmContext) -> i32 {
    decide::answer(observe(Slot::FileReceive, ctx.arg(0), VIA_RECEIVED, true).is_denied)
}

/// What became of an open.
#[derive(Clone, Copy)]
pub struct Observed {
    /// A record of it was due.
    pub is_told: bool,
    pub is_denied: bool,
}

impl Observed {
    const NOTHING: Self = Self { is_told: false, is_denied: false };
}

/// Writes a record if the file is watched, or the daemon is enrolling.
#[inline(always)]
pub fn observe(slot: Slot, file: u64, via: u32, may_deny: bool) -> Observed {
    let Some(control) = files::control() else { return Observed::NOTHING };
    // SAFETY: the helper has no preconditions.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let enrolling = control.enrol_pid != 0 && control.enrol_pid == pid;
    if (control.watched == 0 && !enrolling) || file == 0 {
        return Observed::NOTHING;
    }
    let inode: u64 = read(file, off!(file_inode));
    let flags: u32 = read(file, off!(file_flags));
    let mode: u16 = read(inode, off!(inode_mode));
    if !enrolling && flags & O_PATH != 0 {
        return Observed::NOTHING;
    }
    let id = files::id(inode);
    let dentry: u64 = read(file, off!(file_path_dentry));
    let mut via = via;
    let mnt: u64 = read(file, off!(file_path_mnt));
    let mut watch = WatchedFile { watched_ino: kernel::zero(), watched_dev: 0, generation: 0 };
    let mut kind = KIND_ENROL;
    let mut decision = Decision::none();
    if !enrolling {
        kind = KIND_FILE_OPEN;
        let special = files::special(inode, mode, dentry);
        if special != 0 {
            via = special;
            watch.watched_dev = read(inode, off!(inode_rdev));
        } else if mode & S_IFMT != S_IFREG
            || (!files::is_watched(inode, &id, &mut watch)
                && !files::is_below_watched(mnt, dentry, inode, &id, &mut watch))
        {
            return Observed::NOTHING;
        } else if may_deny {
            decision = kernel::any(&decide::open(&id, &kernel::any(&watch)));
        }
    }
    let observed = Observed { is_told: true, is_denied: decision.denied != 0 };
    if !enrolling && !limit::admits(program::FILE_OPEN) {
        return observed;
    }
    let Some(scratch) = emit::scratch::<FileOpen>(slot) else { return observed };
    if may_deny && !emit::claim(slot, program::FILE_OPEN) {
        return observed;
    }
    // SAFETY: a slot of this program on this CPU.
    unsafe {
        let record = &raw mut (*scratch).record;
        emit::stamp(&raw mut (*record).header, kind, program::FILE_OPEN, task::current());
        (*record).header.generation = decision.generation;
        (*record).ino = id.ino;
        (*record).dev = id.dev;
        (*record).watched_ino = watch.watched_ino;
        (*record).watched_dev = watch.watched_dev;
        (*record).generation = read(inode, off!(inode_generation));
        (*record).size_bytes = read(inode, off!(inode_size));
        (*record).links = read(inode, off!(inode_nlink));
        (*record).mode = u32::from(mode);
        (*record).flags = flags;
        (*record).via = via;
        (*record).denied = decision.denied;
        let spelled = path::spell(&raw mut (*scratch).path, mnt, dentry);
        (*record).path_bytes = spelled.bytes;
        (*record).path_state = spelled.state;
        emit::spelled(Lane::Events, program::FILE_OPEN, scratch, spelled.bytes);
    }
    if may_deny {
        emit::release(slot);
    }
    observed
}
