//! A watched file was let go: what was read of it is due to be told.
//!
//! `fentry/locks_remove_file` runs when the last descriptor and mapping of an opened file are gone (fs/file_table.c,
//! `__fput`). At the return of `close(2)` the file is gone from the table already; so descriptors of watched files are
//! remembered from their open.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{fentry, map},
    maps::LruHashMap,
    programs::FEntryContext,
};
use plumbline_ebpf::{
    program::FILE_CLOSE,
    record::{FileClose, FileId, KIND_FILE_CLOSE, WatchedFile},
};

use crate::{
    emit::{self, Lane},
    files,
    kernel::{off, read},
    limit, task,
};

/// Open descriptors of watched files, by process and number. What falls out, or is closed otherwise (`dup2`, exec,
/// `close_range`), is told at the interval or the exit.
#[map]
static DESCRIPTORS: LruHashMap<Descriptor, FileId> = LruHashMap::with_max_entries(4096, 0);

#[repr(C)]
struct Descriptor {
    pid: u32,
    number: u32,
}

/// `locks_remove_file(struct file *filp)`
#[fentry(function = "locks_remove_file")]
pub fn file_close_fentry(ctx: FEntryContext) -> i32 {
    if !files::watching() {
        return 0;
    }
    let file: u64 = ctx.arg(0);
    let inode: u64 = read(file, off!(file_inode));
    if !files::is_regular(inode) {
        return 0;
    }
    let id = files::id(inode);
    let mut watch = WatchedFile { watched_ino: 0, watched_dev: 0, generation: 0 };
    if files::is_watched(inode, &id, &mut watch) {
        tell(&id);
    }
    0
}

/// An open returned this descriptor of a watched file.
#[inline(always)]
pub fn opened(number: u64, file: u64) {
    let id = files::id(read(file, off!(file_inode)));
    let _ = DESCRIPTORS.insert(&descriptor(number), &id, 0);
}

/// `close(2)` of this descriptor succeeded.
#[inline(always)]
pub fn closed(number: u64) {
    let key = descriptor(number);
    let Some(found) = DESCRIPTORS.get_ptr(&key) else { return };
    // SAFETY: a map value of plain integers.
    let id = unsafe { *found };
    let _ = DESCRIPTORS.remove(&key);
    tell(&id);
}

#[inline(always)]
fn descriptor(number: u64) -> Descriptor {
    // SAFETY: the helper has no preconditions.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    Descriptor { pid, number: number as u32 }
}

#[inline(always)]
fn tell(id: &FileId) {
    // What is held back is told at the interval or the exit.
    if !limit::admits(FILE_CLOSE) {
        return;
    }
    emit::record(Lane::Lifecycle, FILE_CLOSE, |record: *mut FileClose| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_FILE_CLOSE, FILE_CLOSE, task::current());
            (*record).ino = id.ino;
            (*record).dev = id.dev;
            (*record).reserved = 0;
        }
    });
}
