//! The return of every system call: where opens, reads, writes and closes are seen when the kernel refuses fentry.
//!
//! One program does the work of several hooks, as the agent says in [`Control::at_return`]; most calls cost it a look at
//! their number. By then the kernel has resolved every name and descriptor, so nothing is taken from the caller's memory
//! but the offsets that sendfile, splice and copy_file_range keep there. Of the calls of 32-bit programs, which are numbered
//! otherwise, those that open and read are seen.
//!
//! [`Control::at_return`]: plumbline_ebpf::record::Control
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use plumbline_ebpf::{
    program::{FILE_CHANGE, FILE_CLOSE, FILE_OPEN, FILE_READ, SOCKET_OPEN},
    record::{
        CHANGE_ALLOCATE, CHANGE_CLONED, CHANGE_MAP_WRITABLE, CHANGE_OVERWRITTEN, CHANGE_TRUNCATE, MEMORY_PTRACE,
        MEMORY_VM_READ, VIA_OPEN, VIA_RECEIVED,
    },
};

use super::{
    file_change::{self, MAP_SHARED, PROT_WRITE},
    file_close, file_open, file_read, memory, socket,
};
use crate::{
    emit::Slot,
    files,
    kernel::{off, read},
    reads::{Figure, Range},
    syscall::{Call, number, number_32},
    task,
};

const SLOT: Slot = Slot::SystemCallReturn;

/// include/uapi/asm-generic/fcntl.h
const O_TRUNC: u64 = 0o1000;
/// include/uapi/linux/fs.h
const FICLONE: u64 = 0x4004_9409;
const FICLONERANGE: u64 = 0x4020_940d;

/// include/uapi/linux/ptrace.h
const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;

#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit_tp_btf(ctx: BtfTracePointContext) -> i32 {
    observe(ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit_raw_tp(ctx: RawTracePointContext) -> i32 {
    observe(ctx.arg(0), ctx.arg(1));
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[inline(always)]
fn observe(regs: u64, ret: i64) {
    let call = Call(regs);
    if ret < 0 {
        return;
    }
    let returned = ret as u64;
    if call.is_32_bit() {
        return observe_32(call, returned);
    }
    match call.number() {
        number::READ | number::READV => at_position(call.arg0(), Figure::Read, returned),
        number::WRITE | number::WRITEV => at_position(call.arg0(), Figure::Written, returned),
        number::PREAD64 | number::PREADV | number::PREADV2 => {
            at_offset(call.arg0(), call.arg3(), Figure::Read, returned)
        }
        number::PWRITE64 | number::PWRITEV | number::PWRITEV2 => {
            at_offset(call.arg0(), call.arg3(), Figure::Written, returned)
        }
        number::SENDFILE => copied(call.arg1(), call.arg2(), call.arg0(), 0, returned),
        number::SPLICE | number::COPY_FILE_RANGE => {
            copied(call.arg0(), call.arg1(), call.arg2(), call.arg3(), returned);
        }
        number::OPEN => opened(returned, call.arg1()),
        number::OPENAT => opened(returned, call.arg2()),
        number::CREAT => opened(returned, O_TRUNC),
        // The flags of openat2 lie in the caller's memory.
        number::OPENAT2 => opened(returned, user_word(call.arg2())),
        number::OPEN_BY_HANDLE_AT => opened(returned, call.arg2()),
        number::PIDFD_GETFD => received(returned),
        number::CLOSE => {
            if files::at_return(FILE_CLOSE) {
                file_close::closed(call.arg0());
            }
        }
        number::FTRUNCATE => changed(CHANGE_TRUNCATE, call.arg0()),
        number::FALLOCATE => changed(CHANGE_ALLOCATE, call.arg0()),
        number::IOCTL => cloned(call),
        number::MMAP => {
            if call.arg2() & PROT_WRITE != 0 && call.arg3() & MAP_SHARED != 0 {
                changed(CHANGE_MAP_WRITABLE, call.arg4());
            }
        }
        number::SOCKET => {
            if files::at_return(SOCKET_OPEN) {
                socket::opened(call.arg0() as u32, call.arg1() as u32, call.arg2() as u32);
            }
        }
        number::PROCESS_VM_READV => memory::tell_of_number(call.arg0(), MEMORY_VM_READ),
        number::PTRACE => {
            if matches!(call.arg0(), PTRACE_ATTACH | PTRACE_SEIZE) {
                memory::tell_of_number(call.arg1(), MEMORY_PTRACE);
            }
        }
        number::RENAME
        | number::RENAMEAT
        | number::RENAMEAT2
        | number::MOUNT
        | number::MOVE_MOUNT
        | number::UMOUNT2
        | number::PIVOT_ROOT => files::forget_directories(),
        _ => {}
    }
}

/// The calls of 32-bit programs that open and read; the rest of theirs is a blind spot.
#[inline(always)]
fn observe_32(call: Call, returned: u64) {
    match call.number() {
        number_32::OPEN | number_32::CREAT | number_32::OPENAT | number_32::OPENAT2 => opened(returned, 0),
        number_32::READ | number_32::READV => at_position(call.arg0_32(), Figure::Read, returned),
        number_32::WRITE | number_32::WRITEV => at_position(call.arg0_32(), Figure::Written, returned),
        number_32::PREAD64 | number_32::PREADV => {
            at_offset(call.arg0_32(), call.offset_32(), Figure::Read, returned);
        }
        _ => {}
    }
}

#[inline(always)]
fn opened(descriptor: u64, flags: u64) {
    if !files::at_return(FILE_OPEN) {
        return;
    }
    let file = task::file(descriptor);
    if !file_open::observe(SLOT, file, VIA_OPEN) {
        return;
    }
    if files::at_return(FILE_CLOSE) {
        file_close::opened(descriptor, file);
    }
    if flags & O_TRUNC != 0 && files::at_return(FILE_CHANGE) {
        file_change::tell_of_file(SLOT, CHANGE_TRUNCATE, file);
    }
}

#[inline(always)]
fn received(descriptor: u64) {
    if files::at_return(FILE_OPEN) {
        file_open::observe(SLOT, task::file(descriptor), VIA_RECEIVED);
    }
}

/// A call that moved the file's own position, which now stands behind the bytes.
#[inline(always)]
fn at_position(descriptor: u64, figure: Figure, bytes: u64) {
    let Some(file) = regular_file(descriptor, bytes) else { return };
    let position: u64 = read(file, off!(file_pos));
    file_read::touch(SLOT, file, figure, Range { start_bytes: position.wrapping_sub(bytes), bytes });
}

/// A call that was told where, or -1 for the file's own position (preadv2).
#[inline(always)]
fn at_offset(descriptor: u64, told: u64, figure: Figure, bytes: u64) {
    let Some(file) = regular_file(descriptor, bytes) else { return };
    let start_bytes = if told == u64::MAX { read::<u64>(file, off!(file_pos)).wrapping_sub(bytes) } else { told };
    file_read::touch(SLOT, file, figure, Range { start_bytes, bytes });
}

/// A call that copied from one descriptor to another; each position is the file's own or lies in the caller's memory.
#[inline(always)]
fn copied(from: u64, from_position: u64, to: u64, to_position: u64, bytes: u64) {
    if let Some(file) = regular_file(from, bytes) {
        let start_bytes = position(file, from_position).wrapping_sub(bytes);
        file_read::touch(SLOT, file, Figure::Read, Range { start_bytes, bytes });
    }
    if let Some(file) = regular_file(to, bytes) {
        let start_bytes = position(file, to_position).wrapping_sub(bytes);
        file_read::touch(SLOT, file, Figure::Written, Range { start_bytes, bytes });
    }
}

#[inline(always)]
fn position(file: u64, told: u64) -> u64 {
    if told == 0 { read(file, off!(file_pos)) } else { user_word(told) }
}

/// The regular file behind a descriptor of the current task, when the bytes and the hook make it worth a look.
#[inline(always)]
fn regular_file(descriptor: u64, bytes: u64) -> Option<u64> {
    if bytes == 0 || !files::at_return(FILE_READ) || !files::watching() {
        return None;
    }
    let file = task::file(descriptor);
    if file != 0 && files::is_regular(read(file, off!(file_inode))) { Some(file) } else { None }
}

#[inline(always)]
fn changed(how: u32, descriptor: u64) {
    if files::at_return(FILE_CHANGE) {
        file_change::tell_of_file(SLOT, how, task::file(descriptor));
    }
}

/// `ioctl(to, FICLONE, from)` and `ioctl(to, FICLONERANGE, struct file_clone_range *)`, whose first word is `from`.
#[inline(always)]
fn cloned(call: Call) {
    let request = call.arg1();
    let from = match request {
        FICLONE => call.arg2(),
        FICLONERANGE => user_word(call.arg2()),
        _ => return,
    };
    changed(CHANGE_CLONED, from);
    changed(CHANGE_OVERWRITTEN, call.arg0());
}

#[inline(always)]
fn user_word(address: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: the helper checks the address and writes eight bytes, zeros when it is not readable.
    unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const core::ffi::c_void) };
    word
}
