//! What io_uring did, where opens and reads are otherwise seen at the return of system calls.
//!
//! A completion names the request, and the request its file, its position behind the bytes, and its result. Completions
//! come in the context of the process that asked, or of its workers, which share its files.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use plumbline_ebpf::{
    program::{FILE_OPEN, FILE_READ},
    record::{CHANGE_WRITE, VIA_OPEN},
};

use super::{file_change, file_open, file_read};
use crate::{
    emit::Slot,
    files,
    kernel::{off, read},
    reads::{Figure, Range},
    task,
};

/// include/uapi/linux/io_uring.h
mod opcode {
    pub const READV: u8 = 1;
    pub const WRITEV: u8 = 2;
    pub const READ_FIXED: u8 = 4;
    pub const WRITE_FIXED: u8 = 5;
    pub const OPENAT: u8 = 18;
    pub const READ: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const OPENAT2: u8 = 28;
}

#[btf_tracepoint(function = "io_uring_complete")]
pub fn io_uring_tp_btf(ctx: BtfTracePointContext) -> i32 {
    observe(ctx.arg(1))
}

#[raw_tracepoint(tracepoint = "io_uring_complete")]
pub fn io_uring_raw_tp(ctx: RawTracePointContext) -> i32 {
    observe(ctx.arg(1))
}

/// `io_uring_complete(struct io_ring_ctx *ctx, struct io_kiocb *req, …)`
#[inline(always)]
fn observe(request: u64) -> i32 {
    let result: i32 = read(request, off!(io_kiocb_res));
    if request == 0 || result < 0 || !files::watching() {
        return 0;
    }
    let figure = match read::<u8>(request, off!(io_kiocb_opcode)) {
        opcode::READ | opcode::READV | opcode::READ_FIXED => Figure::Read,
        opcode::WRITE | opcode::WRITEV | opcode::WRITE_FIXED => Figure::Written,
        opcode::OPENAT | opcode::OPENAT2 => {
            if files::at_return(FILE_OPEN) {
                file_open::observe(Slot::IoUring, task::file(result as u64), VIA_OPEN, false);
            }
            return 0;
        }
        _ => return 0,
    };
    if files::at_return(FILE_READ) {
        let file: u64 = read(request, off!(io_kiocb_file));
        // `struct io_rw` begins with the `struct kiocb`, and lies at the start of the request beside `file`.
        let end: u64 = read(request, off!(kiocb_pos));
        let bytes = result as u64;
        if file_read::touch(file, figure, Range { start_bytes: end.wrapping_sub(bytes), bytes }) {
            file_change::tell_of_file(Slot::IoUring, CHANGE_WRITE, file);
        }
    }
    0
}
