//! Bytes were read from, or written to, a watched file.
//!
//! The ladder: `fentry/rw_verify_area`, through which every read and write of a file passes, whoever asks (`read(2)` and
//! its kin, sendfile, splice, copy_file_range, io_uring, AIO, O_DIRECT); the bytes are those that were asked for, up to the
//! end of the file. At the return of the system calls they are those that the kernel gave.

use aya_ebpf::{EbpfContext as _, macros::fentry, programs::FEntryContext};
use plumbline_ebpf::{
    program,
    record::{CHANGE_WRITE, WatchedFile},
};

use super::file_change;
use crate::{
    emit::Slot,
    files,
    kernel::{off, read},
    reads::{self, Figure, Range},
};

/// `rw_verify_area(int read_write, struct file *file, const loff_t *ppos, size_t count)`: 0 is READ (include/linux/kernel.h).
#[fentry(function = "rw_verify_area")]
pub fn file_read_fentry(ctx: FEntryContext) -> i32 {
    if !files::watching() {
        return 0;
    }
    let (direction, file, count): (i32, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(3));
    // Verifiers before 5.13 let nobody load an argument that points to a number; reading memory is another matter.
    let position: u64 = read(ctx.as_ptr() as u64, 2 * 8);
    let inode: u64 = read(file, off!(file_inode));
    if !files::is_regular(inode) || position == 0 {
        return 0;
    }
    let start_bytes: u64 = read(position, 0);
    if direction != 0 {
        if touch(file, Figure::Written, Range { start_bytes, bytes: count }) {
            file_change::tell_of_file(Slot::FileRead, CHANGE_WRITE, file);
        }
        return 0;
    }
    let size: u64 = read(inode, off!(inode_size));
    if start_bytes < size {
        let left = size - start_bytes;
        let bytes = if count < left { count } else { left };
        touch(file, Figure::Read, Range { start_bytes, bytes });
    }
    0
}

/// Accounts for a range of a file, if it is a watched one; whether these are the first bytes that the process wrote to it.
#[inline(always)]
pub fn touch(file: u64, figure: Figure, range: Range) -> bool {
    let inode: u64 = read(file, off!(file_inode));
    if file == 0 || range.bytes == 0 || !files::is_regular(inode) {
        return false;
    }
    let id = files::id(inode);
    let mut watch = WatchedFile { watched_ino: 0, watched_dev: 0, generation: 0 };
    if !files::is_watched(inode, &id, &mut watch) {
        return false;
    }
    reads::add(program::FILE_READ, inode, &id, &watch, figure, range) && figure == Figure::Written
}
