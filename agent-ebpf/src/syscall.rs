//! System calls by number, and their arguments at their return.

use crate::{
    kernel::{off, read},
    task,
};

/// Numbers of calls, and the list of all of them.
macro_rules! numbers {
    ($($name:ident = $number:expr;)*) => {
        $(pub const $name: u64 = $number;)*
        pub const ALL: &[u64] = &[$($number),*];
    };
}

/// x86-64: arch/x86/entry/syscalls/syscall_64.tbl
#[cfg(bpf_target_arch = "x86_64")]
pub mod number {
    numbers! {
        READ = 0;
        WRITE = 1;
        OPEN = 2;
        CLOSE = 3;
        MMAP = 9;
        IOCTL = 16;
        PREAD64 = 17;
        PWRITE64 = 18;
        READV = 19;
        WRITEV = 20;
        SENDFILE = 40;
        SOCKET = 41;
        CONNECT = 42;
        SENDTO = 44;
        RECVFROM = 45;
        SENDMSG = 46;
        RECVMSG = 47;
        FTRUNCATE = 77;
        RENAME = 82;
        CREAT = 85;
        PIVOT_ROOT = 155;
        MOUNT = 165;
        UMOUNT2 = 166;
        OPENAT = 257;
        RENAMEAT = 264;
        SPLICE = 275;
        FALLOCATE = 285;
        PREADV = 295;
        PWRITEV = 296;
        RECVMMSG = 299;
        OPEN_BY_HANDLE_AT = 304;
        SENDMMSG = 307;
        RENAMEAT2 = 316;
        COPY_FILE_RANGE = 326;
        PREADV2 = 327;
        PWRITEV2 = 328;
        MOVE_MOUNT = 429;
        OPENAT2 = 437;
        PIDFD_GETFD = 438;
        PTRACE = 101;
        PROCESS_VM_READV = 310;
        BPF = 321;
    }
}

/// arm64: include/uapi/asm-generic/unistd.h. Calls that it lacks have numbers that no call has.
#[cfg(bpf_target_arch = "aarch64")]
pub mod number {
    const NONE: u64 = 0xffff_ff00;
    numbers! {
        READ = 63;
        WRITE = 64;
        OPEN = NONE;
        CLOSE = 57;
        MMAP = 222;
        IOCTL = 29;
        PREAD64 = 67;
        PWRITE64 = 68;
        READV = 65;
        WRITEV = 66;
        SENDFILE = 71;
        SOCKET = 198;
        CONNECT = 203;
        SENDTO = 206;
        RECVFROM = 207;
        SENDMSG = 211;
        RECVMSG = 212;
        RECVMMSG = 243;
        SENDMMSG = 269;
        FTRUNCATE = 46;
        RENAME = NONE + 1;
        CREAT = NONE + 2;
        PIVOT_ROOT = 41;
        MOUNT = 40;
        UMOUNT2 = 39;
        OPENAT = 56;
        RENAMEAT = 38;
        SPLICE = 76;
        FALLOCATE = 47;
        PREADV = 69;
        PWRITEV = 70;
        OPEN_BY_HANDLE_AT = 265;
        RENAMEAT2 = 276;
        COPY_FILE_RANGE = 285;
        PREADV2 = 286;
        PWRITEV2 = 287;
        MOVE_MOUNT = 429;
        OPENAT2 = 437;
        PIDFD_GETFD = 438;
        PTRACE = 117;
        PROCESS_VM_READV = 270;
        BPF = 280;
    }
}

/// The 32-bit table of x86-64: arch/x86/entry/syscalls/syscall_32.tbl
#[cfg(bpf_target_arch = "x86_64")]
pub mod number_32 {
    numbers! {
        READ = 3;
        WRITE = 4;
        OPEN = 5;
        CREAT = 8;
        READV = 145;
        WRITEV = 146;
        PREAD64 = 180;
        OPENAT = 295;
        PREADV = 333;
        OPENAT2 = 437;
    }
}

/// The 32-bit table of arm64: arch/arm/tools/syscall.tbl
#[cfg(bpf_target_arch = "aarch64")]
pub mod number_32 {
    numbers! {
        READ = 3;
        WRITE = 4;
        OPEN = 5;
        CREAT = 8;
        READV = 145;
        WRITEV = 146;
        PREAD64 = 180;
        OPENAT = 322;
        PREADV = 361;
        OPENAT2 = 437;
    }
}

/// A bit for each number of either table that something is done for.
const LOOKED_AT: [u64; 8] = {
    let mut bits = [0; 8];
    let (mut table, mut next) = (number::ALL, 0);
    let mut tables = 2;
    while tables > 0 {
        while next < table.len() {
            let number = table[next];
            if number < 512 {
                bits[(number >> 6) as usize] |= 1 << (number & 63);
            }
            next += 1;
        }
        (table, next) = (number_32::ALL, 0);
        tables -= 1;
    }
    bits
};

/// Whether anything is done for calls of this number, in whichever table; most calls need no look at more than that.
#[inline(always)]
pub fn is_looked_at(number: u64) -> bool {
    static BITS: [u64; 8] = LOOKED_AT;
    number < 512 && BITS[(number >> 6) as usize & 7] >> (number & 63) & 1 != 0
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
