//! System calls by number, and their arguments at their return.

use crate::{
    kernel::{off, read},
    task,
};

/// x86-64: arch/x86/entry/syscalls/syscall_64.tbl
#[cfg(bpf_target_arch = "x86_64")]
pub mod number {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const OPEN: u64 = 2;
    pub const CLOSE: u64 = 3;
    pub const MMAP: u64 = 9;
    pub const IOCTL: u64 = 16;
    pub const PREAD64: u64 = 17;
    pub const PWRITE64: u64 = 18;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDFILE: u64 = 40;
    pub const SOCKET: u64 = 41;
    pub const CONNECT: u64 = 42;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const FTRUNCATE: u64 = 77;
    pub const RENAME: u64 = 82;
    pub const CREAT: u64 = 85;
    pub const PIVOT_ROOT: u64 = 155;
    pub const MOUNT: u64 = 165;
    pub const UMOUNT2: u64 = 166;
    pub const OPENAT: u64 = 257;
    pub const RENAMEAT: u64 = 264;
    pub const SPLICE: u64 = 275;
    pub const FALLOCATE: u64 = 285;
    pub const PREADV: u64 = 295;
    pub const PWRITEV: u64 = 296;
    pub const RECVMMSG: u64 = 299;
    pub const OPEN_BY_HANDLE_AT: u64 = 304;
    pub const SENDMMSG: u64 = 307;
    pub const RENAMEAT2: u64 = 316;
    pub const COPY_FILE_RANGE: u64 = 326;
    pub const PREADV2: u64 = 327;
    pub const PWRITEV2: u64 = 328;
    pub const MOVE_MOUNT: u64 = 429;
    pub const OPENAT2: u64 = 437;
    pub const PIDFD_GETFD: u64 = 438;
    pub const PTRACE: u64 = 101;
    pub const PROCESS_VM_READV: u64 = 310;
}

/// arm64: include/uapi/asm-generic/unistd.h. Calls that it lacks have numbers that no call has.
#[cfg(bpf_target_arch = "aarch64")]
pub mod number {
    const NONE: u64 = 0xffff_ff00;
    pub const READ: u64 = 63;
    pub const WRITE: u64 = 64;
    pub const OPEN: u64 = NONE;
    pub const CLOSE: u64 = 57;
    pub const MMAP: u64 = 222;
    pub const IOCTL: u64 = 29;
    pub const PREAD64: u64 = 67;
    pub const PWRITE64: u64 = 68;
    pub const READV: u64 = 65;
    pub const WRITEV: u64 = 66;
    pub const SENDFILE: u64 = 71;
    pub const SOCKET: u64 = 198;
    pub const CONNECT: u64 = 203;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const SENDMSG: u64 = 211;
    pub const RECVMSG: u64 = 212;
    pub const RECVMMSG: u64 = 243;
    pub const SENDMMSG: u64 = 269;
    pub const FTRUNCATE: u64 = 46;
    pub const RENAME: u64 = NONE + 1;
    pub const CREAT: u64 = NONE + 2;
    pub const PIVOT_ROOT: u64 = 41;
    pub const MOUNT: u64 = 40;
    pub const UMOUNT2: u64 = 39;
    pub const OPENAT: u64 = 56;
    pub const RENAMEAT: u64 = 38;
    pub const SPLICE: u64 = 76;
    pub const FALLOCATE: u64 = 47;
    pub const PREADV: u64 = 69;
    pub const PWRITEV: u64 = 70;
    pub const OPEN_BY_HANDLE_AT: u64 = 265;
    pub const RENAMEAT2: u64 = 276;
    pub const COPY_FILE_RANGE: u64 = 285;
    pub const PREADV2: u64 = 286;
    pub const PWRITEV2: u64 = 287;
    pub const MOVE_MOUNT: u64 = 429;
    pub const OPENAT2: u64 = 437;
    pub const PIDFD_GETFD: u64 = 438;
    pub const PTRACE: u64 = 117;
    pub const PROCESS_VM_READV: u64 = 270;
}

/// The 32-bit table of x86-64: arch/x86/entry/syscalls/syscall_32.tbl
#[cfg(bpf_target_arch = "x86_64")]
pub mod number_32 {
    pub const READ: u64 = 3;
    pub const WRITE: u64 = 4;
    pub const OPEN: u64 = 5;
    pub const CREAT: u64 = 8;
    pub const READV: u64 = 145;
    pub const WRITEV: u64 = 146;
    pub const PREAD64: u64 = 180;
    pub const OPENAT: u64 = 295;
    pub const PREADV: u64 = 333;
    pub const OPENAT2: u64 = 437;
}

/// The 32-bit table of arm64: arch/arm/tools/syscall.tbl
#[cfg(bpf_target_arch = "aarch64")]
pub mod number_32 {
    pub const READ: u64 = 3;
    pub const WRITE: u64 = 4;
    pub const OPEN: u64 = 5;
    pub const CREAT: u64 = 8;
    pub const READV: u64 = 145;
    pub const WRITEV: u64 = 146;
    pub const PREAD64: u64 = 180;
    pub const OPENAT: u64 = 322;
    pub const PREADV: u64 = 361;
    pub const OPENAT2: u64 = 437;
}

/// A system call that has returned: its `struct pt_regs`.
#[derive(Clone, Copy)]
pub struct Call(pub u64);

impl Call {
    /// Its number; `syscallno` of arm64 is 32 bits wide.
    #[inline(always)]
    pub fn number(self) -> u64 {
        read::<u64>(self.0, off!(regs_syscall)) & 0xffff_ffff
    }

    /// Whether it is a call of the 32-bit table, whose calls are numbered otherwise; a 64-bit program can make one too:
    /// `TS_COMPAT` (arch/x86/include/asm/thread_info.h).
    #[cfg(bpf_target_arch = "x86_64")]
    #[inline(always)]
    pub fn is_32_bit(self) -> bool {
        read::<u32>(task::current(), off!(task_status)) & 2 != 0
    }

    /// `TIF_32BIT` (arch/arm64/include/asm/thread_info.h).
    #[cfg(bpf_target_arch = "aarch64")]
    #[inline(always)]
    pub fn is_32_bit(self) -> bool {
        read::<u64>(task::current(), off!(task_status)) & (1 << 22) != 0
    }

    #[inline(always)]
    pub fn arg0(self) -> u64 {
        read(self.0, off!(regs_arg0))
    }

    #[inline(always)]
    pub fn arg1(self) -> u64 {
        read(self.0, off!(regs_arg1).wrapping_add(ARRAY * 8))
    }

    #[inline(always)]
    pub fn arg2(self) -> u64 {
        read(self.0, off!(regs_arg2).wrapping_add(ARRAY * 16))
    }

    #[inline(always)]
    pub fn arg3(self) -> u64 {
        read(self.0, off!(regs_arg3).wrapping_add(ARRAY * 24))
    }

    #[inline(always)]
    pub fn arg4(self) -> u64 {
        read(self.0, off!(regs_arg4).wrapping_add(ARRAY * 32))
    }

    #[inline(always)]
    pub fn arg5(self) -> u64 {
        read(self.0, off!(regs_arg5).wrapping_add(ARRAY * 40))
    }
}

/// The arguments of a call of the 32-bit table.
impl Call {
    #[inline(always)]
    pub fn arg0_32(self) -> u64 {
        read::<u64>(self.0, off!(regs_bx)) & 0xffff_ffff
    }

    /// The fourth and fifth arguments, which make one offset.
    #[inline(always)]
    pub fn offset_32(self) -> u64 {
        let low: u64 = read(self.0, off!(regs_arg1).wrapping_add(ARRAY * 24));
        let high: u64 = read(self.0, off!(regs_di).wrapping_add(ARRAY * 32));
        (low & 0xffff_ffff) | high << 32
    }
}

/// 1 where the arguments are elements of an array, 0 where each has a field of its own.
const ARRAY: u32 = if cfg!(bpf_target_arch = "aarch64") { 1 } else { 0 };
