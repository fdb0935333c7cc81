//! A watched file changed under the server: its bytes, its length, its names.
//!
//! fentry on what the kernel asks its security modules tells of attempts that have passed the checks of permissions; fexit
//! tells of what was done. The first write of a process comes from `file_read.rs`.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use plumbline_ebpf::{
    program::{FILE_CHANGE, FILE_NAME},
    record::{
        CHANGE_ALLOCATE, CHANGE_CLONED, CHANGE_LINK, CHANGE_MAP_WRITABLE, CHANGE_OVERWRITTEN, CHANGE_RENAME,
        CHANGE_REPLACE, CHANGE_TRUNCATE, CHANGE_UNLINK, FileChange, KIND_FILE_CHANGE, WatchedFile,
    },
};

use crate::{
    emit::{self, Lane, Slot},
    files,
    kernel::{off, read},
    limit, path, task,
};

/// include/uapi/asm-generic/mman-common.h
pub const PROT_WRITE: u64 = 2;
pub const MAP_SHARED: u64 = 1;

/// `security_inode_rename(struct inode *old_dir, struct dentry *old, struct inode *new_dir, struct dentry *new, …)`
#[fentry(function = "security_inode_rename")]
pub fn file_rename_fentry(ctx: FEntryContext) -> i32 {
    let (old, new): (u64, u64) = (ctx.arg(1), ctx.arg(3));
    let moved: u64 = read(old, off!(dentry_inode));
    let replaced: u64 = read(new, off!(dentry_inode));
    if files::is_regular(moved) {
        tell(Slot::Rename, FILE_NAME, CHANGE_RENAME, moved, 0, new);
    }
    if !files::is_regular(moved) || (replaced != 0 && !files::is_regular(replaced)) {
        files::forget_directories();
    }
    if replaced != 0 {
        tell(Slot::Rename, FILE_NAME, CHANGE_REPLACE, replaced, 0, new);
    }
    0
}

/// `security_inode_unlink(struct inode *dir, struct dentry *dentry)`
#[fentry(function = "security_inode_unlink")]
pub fn file_unlink_fentry(ctx: FEntryContext) -> i32 {
    let dentry: u64 = ctx.arg(1);
    tell(Slot::Unlink, FILE_NAME, CHANGE_UNLINK, read(dentry, off!(dentry_inode)), 0, dentry);
    0
}

/// `security_inode_link(struct dentry *old, struct inode *dir, struct dentry *new)`
#[fentry(function = "security_inode_link")]
pub fn file_link_fentry(ctx: FEntryContext) -> i32 {
    let old: u64 = ctx.arg(0);
    tell(Slot::Link, FILE_NAME, CHANGE_LINK, read(old, off!(dentry_inode)), 0, ctx.arg(2));
    0
}

/// `security_path_truncate(const struct path *path)`: `truncate(2)`; before 6.2 `ftruncate(2)` and `O_TRUNC` too.
#[fentry(function = "security_path_truncate")]
pub fn file_path_truncate_fentry(ctx: FEntryContext) -> i32 {
    // `struct path` is the mount and the dentry (include/linux/path.h).
    let path: u64 = ctx.arg(0);
    let (mnt, dentry): (u64, u64) = (read(path, 0), read(path, 8));
    tell(Slot::PathTruncate, FILE_CHANGE, CHANGE_TRUNCATE, read(dentry, off!(dentry_inode)), mnt, dentry);
    0
}

/// `security_file_truncate(struct file *file)`, 6.2 and later.
#[fentry(function = "security_file_truncate")]
pub fn file_truncate_fentry(ctx: FEntryContext) -> i32 {
    tell_of_file(Slot::FileTruncate, CHANGE_TRUNCATE, ctx.arg(0));
    0
}

/// `vfs_clone_file_range(struct file *in, loff_t, struct file *out, loff_t, loff_t len, unsigned flags)` → `loff_t`
#[fexit(function = "vfs_clone_file_range")]
pub fn file_clone_fexit(ctx: FExitContext) -> i32 {
    let done: i64 = ctx.arg(6);
    if done >= 0 {
        tell_of_file(Slot::Clone, CHANGE_CLONED, ctx.arg(0));
        tell_of_file(Slot::Clone, CHANGE_OVERWRITTEN, ctx.arg(2));
    }
    0
}

/// `security_mmap_file(struct file *file, unsigned long prot, unsigned long flags)`
#[fentry(function = "security_mmap_file")]
pub fn file_map_fentry(ctx: FEntryContext) -> i32 {
    let (file, protection, flags): (u64, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    if protection & PROT_WRITE != 0 && flags & MAP_SHARED != 0 {
        tell_of_file(Slot::Map, CHANGE_MAP_WRITABLE, file);
    }
    0
}

/// `vfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)` → `int`
#[fexit(function = "vfs_fallocate")]
pub fn file_allocate_fexit(ctx: FExitContext) -> i32 {
    let done: i32 = ctx.arg(4);
    if done == 0 {
        tell_of_file(Slot::Allocate, CHANGE_ALLOCATE, ctx.arg(0));
    }
    0
}

#[inline(always)]
pub fn tell_of_file(slot: Slot, how: u32, file: u64) {
    if file == 0 {
        return;
    }
    let (mnt, dentry) = (read(file, off!(file_path_mnt)), read(file, off!(file_path_dentry)));
    tell(slot, FILE_CHANGE, how, read(file, off!(file_inode)), mnt, dentry);
}

/// Writes a record if the inode is a watched file and the hook is attached. `mnt` may be 0: then the path starts at the
/// root of its file system.
#[inline(always)]
pub fn tell(slot: Slot, program: u32, how: u32, inode: u64, mnt: u64, dentry: u64) {
    let Some(control) = files::control() else { return };
    if control.watched == 0 || control.attached & (1 << program) == 0 || !files::is_regular(inode) {
        return;
    }
    let id = files::id(inode);
    let mut watch = WatchedFile { watched_ino: 0, watched_dev: 0, generation: 0 };
    if !files::is_watched(inode, &id, &mut watch) {
        return;
    }
    if !limit::admits(program) {
        return;
    }
    let Some(scratch) = emit::scratch::<FileChange>(slot) else { return };
    // SAFETY: a slot of this program on this CPU.
    unsafe {
        let record = &raw mut (*scratch).record;
        emit::stamp(&raw mut (*record).header, KIND_FILE_CHANGE, program, task::current());
        (*record).ino = id.ino;
        (*record).dev = id.dev;
        (*record).watched_ino = watch.watched_ino;
        (*record).watched_dev = watch.watched_dev;
        (*record).generation = watch.generation;
        (*record).how = how;
        (*record).links = read(inode, off!(inode_nlink));
        (*record).reserved = 0;
        let spelled = path::spell(&raw mut (*scratch).path, mnt, dentry);
        (*record).path_bytes = spelled.bytes;
        (*record).path_state = spelled.state;
        emit::spelled(Lane::Events, program, scratch, spelled.bytes);
    }
}
