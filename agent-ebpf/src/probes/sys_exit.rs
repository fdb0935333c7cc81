//! The return of every system call: where opens, reads, writes and closes are seen when the kernel refuses fentry.
//!
//! One program does the work of several hooks, as the agent says in [`Control::at_return`]; most calls cost it a look at
//! their number. By then the kernel has resolved every name and descriptor, so nothing is taken from the caller's memory
//! but the offsets that sendfile, splice and copy_file_range keep there. Of the calls of 32-bit programs, which are numbered
//! otherwise, those that open and read are seen.
//!
//! [`Control::at_return`]: plumbline_ebpf::record::Control

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use plumbline_ebpf::{
    program::{BPF, DNS, FILE_CHANGE, FILE_CLOSE, FILE_OPEN, FILE_READ, LOCAL_CONNECT, SOCKET_OPEN},
    record::{
        CHANGE_ALLOCATE, CHANGE_CLONED, CHANGE_MAP_WRITABLE, CHANGE_OVERWRITTEN, CHANGE_TRUNCATE, CHANGE_WRITE,
        MEMORY_PTRACE, MEMORY_VM_READ, VIA_OPEN, VIA_RECEIVED, WatchedFile,
    },
};

use super::{
    bpf, dns,
    file_change::{self, MAP_SHARED, PROT_WRITE},
    file_close, file_open, file_read, local, memory, socket,
};
use crate::{
    emit::Slot,
    files,
    kernel::{off, read, user_word},
    reads::{Figure, Range},
    syscall::{Call, is_looked_at, number, number_32},
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

/// What a call did, as far as it concerns watched files. Gathered first and acted on in one place, because every place that
/// spells a path multiplies the work of the kernel's verifier. Plain numbers, all of them set from the start: of an option
/// that lives across a helper call the compiler makes reads of registers that were never set.
#[derive(Clone, Copy)]
struct Done {
    /// `VIA_*` of the descriptor that was returned, or [`NOT_OPENED`].
    opened: u32,
    /// `CHANGE_*` of `changed`, or 0.
    how: u32,
    /// Flags of the open.
    flags: u64,
    /// A `struct file *`.
    changed: u64,
    /// Bytes were taken from a file, and given to one.
    taken: Moved,
    given: Moved,
}

/// Bytes of a file; `file` is 0 for none.
#[derive(Clone, Copy)]
struct Moved {
    file: u64,
    range: Range,
}

const NOT_OPENED: u32 = u32::MAX;
const NO_BYTES: Moved = Moved { file: 0, range: Range { start_bytes: 0, bytes: 0 } };

/// `sys_exit(struct pt_regs *regs, long ret)`
#[inline(always)]
fn observe(regs: u64, ret: i64) {
    if ret < 0 {
        return;
    }
    let (call, returned) = (Call(regs), ret as u64);
    if !is_looked_at(call.number()) {
        return;
    }
    let mut done = Done { opened: NOT_OPENED, how: 0, flags: 0, changed: 0, taken: NO_BYTES, given: NO_BYTES };
    // Its number is read again wherever it is asked: known all along, it would multiply the work of the verifier.
    if call.is_32_bit() {
        gather_32(&mut done, call, returned);
    } else {
        gather(&mut done, call, returned);
    }
    if done.opened != NOT_OPENED && files::at_return(FILE_OPEN) {
        let file = task::file(returned);
        if file_open::observe(SLOT, file, done.opened, false).is_told {
            if done.opened == VIA_OPEN && files::at_return(FILE_CLOSE) {
                file_close::opened(returned, file);
            }
            if done.flags & O_TRUNC != 0 {
                done.how = CHANGE_TRUNCATE;
                done.changed = file;
            }
        }
    }
    if done.taken.file != 0 {
        file_read::touch(done.taken.file, Figure::Read, done.taken.range);
    }
    if done.given.file != 0 && file_read::touch(done.given.file, Figure::Written, done.given.range) {
        done.how = CHANGE_WRITE;
        done.changed = done.given.file;
    }
    if done.how != 0 {
        file_change::tell_of_file(SLOT, done.how, done.changed);
    }
    // Last, where the verifier has nothing to keep apart any more of what was found before.
    if files::at_return(DNS) && !call.is_32_bit() {
        dns::at_return(SLOT, call, returned);
    }
}

/// What a call of the 64-bit table did; what needs no path is told at once.
#[inline(always)]
fn gather(done: &mut Done, call: Call, returned: u64) {
    match call.number() {
        number::READ | number::READV => done.taken = at_position(call.arg0(), returned),
        number::WRITE | number::WRITEV => done.given = at_position(call.arg0(), returned),
        number::PREAD64 | number::PREADV | number::PREADV2 => {
            done.taken = at_offset(call.arg0(), call.arg3(), returned);
        }
        number::PWRITE64 | number::PWRITEV | number::PWRITEV2 => {
            done.given = at_offset(call.arg0(), call.arg3(), returned);
        }
        number::SENDFILE => {
            done.taken = at_told(call.arg1(), call.arg2(), returned);
            done.given = at_position(call.arg0(), returned);
        }
        number::SPLICE | number::COPY_FILE_RANGE => {
            done.taken = at_told(call.arg0(), call.arg1(), returned);
            done.given = at_told(call.arg2(), call.arg3(), returned);
        }
        number::OPEN => opened(done, call.arg1()),
        number::OPENAT | number::OPEN_BY_HANDLE_AT => opened(done, call.arg2()),
        number::CREAT => opened(done, O_TRUNC),
        // The flags of openat2 lie in the caller's memory.
        number::OPENAT2 => opened(done, user_word(call.arg2())),
        number::PIDFD_GETFD => done.opened = VIA_RECEIVED,
        number::FTRUNCATE => changed(done, CHANGE_TRUNCATE, call.arg0()),
        number::FALLOCATE => changed(done, CHANGE_ALLOCATE, call.arg0()),
        number::IOCTL => cloned(done, call),
        number::MMAP => {
            if call.arg2() & PROT_WRITE != 0 && call.arg3() & MAP_SHARED != 0 {
                if files::at_return(BPF) {
                    bpf::mapped_writable(task::file(call.arg4()));
                }
                changed(done, CHANGE_MAP_WRITABLE, call.arg4());
            }
        }
        number::CLOSE => {
            if files::at_return(FILE_CLOSE) {
                file_close::closed(call.arg0());
            }
        }
        number::SOCKET => {
            if files::at_return(SOCKET_OPEN) {
                socket::opened(call.arg0() as u32, call.arg1() as u32, call.arg2() as u32);
            }
        }
        number::CONNECT => {
            if files::at_return(LOCAL_CONNECT) {
                local::connected(call.arg0());
            }
        }
        number::PROCESS_VM_READV => memory::tell_of_number(call.arg0(), MEMORY_VM_READ),
        number::PTRACE => {
            if matches!(call.arg0(), PTRACE_ATTACH | PTRACE_SEIZE) {
                memory::tell_of_number(call.arg1(), MEMORY_PTRACE);
            }
        }
        number::BPF => {
            if files::at_return(BPF) {
                bpf::at_return(call, returned);
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

/// The calls of 32-bit programs that open, read and write; the rest of theirs is a blind spot.
#[inline(always)]
fn gather_32(done: &mut Done, call: Call, returned: u64) {
    match call.number() {
        number_32::OPEN | number_32::CREAT | number_32::OPENAT | number_32::OPENAT2 => opened(done, 0),
        number_32::READ | number_32::READV => done.taken = at_position(call.arg0_32(), returned),
        number_32::WRITE | number_32::WRITEV => done.given = at_position(call.arg0_32(), returned),
        number_32::PREAD64 | number_32::PREADV => {
            done.taken = at_offset(call.arg0_32(), call.offset_32(), returned);
        }
        _ => {}
    }
}

#[inline(always)]
fn opened(done: &mut Done, flags: u64) {
    done.opened = VIA_OPEN;
    done.flags = flags;
}

/// A call that moved the file's own position, which now stands behind the bytes.
#[inline(always)]
fn at_position(descriptor: u64, bytes: u64) -> Moved {
    let file = regular_file(descriptor, bytes);
    let position: u64 = read(file, off!(file_pos));
    Moved { file, range: Range { start_bytes: position.wrapping_sub(bytes), bytes } }
}

/// A call that was told where, or -1 for the file's own position (preadv2).
#[inline(always)]
fn at_offset(descriptor: u64, told: u64, bytes: u64) -> Moved {
    let mut moved = at_position(descriptor, bytes);
    if told != u64::MAX {
        moved.range.start_bytes = told;
    }
    moved
}

/// A call that copied: the position behind the bytes is the file's own, or lies in the caller's memory.
#[inline(always)]
fn at_told(descriptor: u64, position: u64, bytes: u64) -> Moved {
    let mut moved = at_position(descriptor, bytes);
    if position != 0 {
        moved.range.start_bytes = user_word(position).wrapping_sub(bytes);
    }
    moved
}

/// The regular file behind a descriptor of the current task, when the bytes and the hook make it worth a look; else 0.
#[inline(always)]
fn regular_file(descriptor: u64, bytes: u64) -> u64 {
    if bytes == 0 || !files::at_return(FILE_READ) || !files::watching() {
        return 0;
    }
    let file = task::file(descriptor);
    if files::is_regular(read(file, off!(file_inode))) { file } else { 0 }
}

#[inline(always)]
fn changed(done: &mut Done, how: u32, descriptor: u64) {
    if files::at_return(FILE_CHANGE) {
        done.how = how;
        done.changed = task::file(descriptor);
    }
}

/// `ioctl(to, FICLONE, from)` and `ioctl(to, FICLONERANGE, struct file_clone_range *)`, whose first word is `from`. Where
/// both are watched, the copy is told.
#[inline(always)]
fn cloned(done: &mut Done, call: Call) {
    let from = match call.arg1() {
        FICLONE => call.arg2(),
        FICLONERANGE => user_word(call.arg2()),
        _ => return,
    };
    let inode: u64 = read(task::file(from), off!(file_inode));
    let mut watch = WatchedFile { watched_ino: 0, watched_dev: 0, generation: 0 };
    if files::is_watched(inode, &files::id(inode), &mut watch) {
        changed(done, CHANGE_CLONED, from);
    } else {
        changed(done, CHANGE_OVERWRITTEN, call.arg0());
    }
}
