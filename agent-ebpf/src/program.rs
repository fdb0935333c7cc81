//! The logical programs. One program has several rungs (`fentry`, `tp_btf`, …) of which one is attached; number,
//! counters and sequence belong to the program, whatever the rung.

/// Numbers of the programs: index into the counters map and `Header::program`.
pub const FILE_OPEN: u32 = 0;
pub const TCP_CONNECT: u32 = 1;
pub const UDP_CONNECT: u32 = 2;
pub const FORK: u32 = 3;
pub const EXEC: u32 = 4;
pub const EXIT: u32 = 5;
pub const FILE_READ: u32 = 6;
pub const FILE_FAULT: u32 = 7;
pub const FILE_CLOSE: u32 = 8;
pub const FILE_CHANGE: u32 = 9;
pub const FILE_NAME: u32 = 10;
pub const IO_URING: u32 = 11;
pub const MEMORY: u32 = 12;
pub const UDP_SEND: u32 = 13;
pub const SOCKET_SEND: u32 = 14;
pub const SOCKET_OPEN: u32 = 15;
pub const DNS: u32 = 16;
pub const LOCAL_CONNECT: u32 = 17;
pub const BPF: u32 = 18;

/// How many there are.
pub const COUNT: u32 = 19;

/// Names as they appear in series labels and records, by number.
pub const NAMES: [&str; COUNT as usize] = [
    "file_open",
    "tcp_connect",
    "udp_connect",
    "fork",
    "exec",
    "exit",
    "file_read",
    "file_fault",
    "file_close",
    "file_change",
    "file_name",
    "io_uring",
    "memory",
    "udp_send",
    "socket_send",
    "socket_open",
    "dns",
    "local_connect",
    "bpf",
];
