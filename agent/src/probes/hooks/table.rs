//! The rows, in the order in which they are attached.

use plumbline_ebpf::{offsets::Group, program};

use super::{Attach, Hook, Program, Rung};

const fn program(name: &'static str, attach: Attach) -> Program {
    Program { name, attach, optional: false }
}

const fn optional(name: &'static str, attach: Attach) -> Program {
    Program { name, attach, optional: true }
}

const fn rung(name: &'static str, programs: &'static [Program], cost: &'static str, blind: &'static str) -> Rung {
    Rung { name, programs, needs: &[], cost, blind }
}

/// At the return of system calls, by BTF tracepoint.
const fn at_return_tp_btf(blind: &'static str) -> Rung {
    const PROGRAMS: &[Program] = &[program("sys_exit_tp_btf", Attach::BtfTracepoint("sys_exit", 2))];
    Rung { needs: &[Group::Syscall], ..rung("tp_btf", PROGRAMS, SYSCALL_COST, blind) }
}

/// At the return of system calls, by raw tracepoint.
const fn at_return_raw_tp(blind: &'static str) -> Rung {
    const PROGRAMS: &[Program] = &[program("sys_exit_raw_tp", Attach::RawTracepoint("sys_exit"))];
    Rung { needs: &[Group::Syscall], ..rung("raw_tp", PROGRAMS, SYSCALL_COST, blind) }
}

const NOTHING: &str = "nothing known";
const SYSCALL_COST: &str = "a short program at the return of every system call, shared by the hooks that use it";
const OPEN_COST: &str = "a look at two tables per open of a regular file";
const OPEN_LSM_BLIND: &str = "an open that a security module before it refused; a file that is new below a watched directory and was opened \
                              first through a hard link outside; files more than 60 directories below a watched one, until they are found by name";
const OPEN_BLIND: &str = "whether another security module refused it; a file that is new below a watched directory and was opened first through a hard link outside; files more \
                          than 60 directories below a watched one, until they are found by name";
const OPEN_RETURN_BLIND: &str = "a descriptor that another thread replaces at once; descriptors passed over \
                                 sockets, whose reads are seen; and what fentry does not see";
const BPF_RETURN_BLIND: &str = "commands of 32-bit programs; arguments that another thread changes during the call; descriptors that are passed on; \
     programs of others that are given a map";
const READ_COST: &str = "a look at a table per read and write of a regular file";
const READ_RETURN_BLIND: &str = "a descriptor that another thread replaces during the call; reads by AIO (io_submit), by splice inside io_uring, and \
     by sendfile and splice of 32-bit programs";
const FAULT_COST: &str = "a look at a table per page fault of a mapped file";
const FAULT_BLIND: &str = "files on DAX; of a huge page that is mapped at once all but the first pages before 6.18; since \
                           then, the rest of a folio that the fault itself brings into the page cache, and on tmpfs of one beyond the \
                           file's end";
const FAULT_TRACE_BLIND: &str = "files on DAX; huge pages that are mapped at once; the rest of a folio that the fault itself brings into \
                                 the page cache. Since 6.18 whole folios are counted where part of one was mapped";
const DNS_RETURN_BLIND: &str = "names asked for by io_uring and by 32-bit programs; a process that shows another answer in \
                                its own memory";
const RARE: &str = "one short program per fork, exec or exit";
const CONNECT_COST: &str = "a short program per connect";
const SEND_COST: &str = "a look at a table per send";
const SEND_BLIND: &str = "connections that were there before the daemon";
const STATE_COST: &str = "a short program per change of a TCP socket's state";

const DNS_RECEIVE: Program = program("dns_receive_fentry", Attach::FEntry("skb_consume_udp", 2));
const DNS_SEND4: Program = program("dns_send4_fentry", Attach::FEntry("ip_send_skb", 2));
const DNS_SEND6: Program = program("dns_send6_fentry", Attach::FEntry("ip6_send_skb", 1));

pub const HOOKS: &[Hook] = &[
    Hook {
        name: "file_open",
        program: program::FILE_OPEN,
        needs: &[Group::Task, Group::File],
        sees: "opens of watched files, descriptors of them that other processes receive, and opens of ways around them",
        only_for: None,
        rungs: &[
            Rung {
                needs: &[Group::Deny],
                ..rung(
                    "lsm",
                    &[
                        program("file_open_lsm", Attach::Lsm("file_open", 1)),
                        program("file_receive_lsm", Attach::Lsm("file_receive", 1)),
                    ],
                    OPEN_COST,
                    OPEN_LSM_BLIND,
                )
            },
            rung(
                "fentry",
                &[
                    program("file_open_fentry", Attach::FEntry("security_file_open", 1)),
                    program("file_receive_fentry", Attach::FEntry("security_file_receive", 1)),
                ],
                OPEN_COST,
                OPEN_BLIND,
            ),
            at_return_tp_btf(OPEN_RETURN_BLIND),
            at_return_raw_tp(OPEN_RETURN_BLIND),
        ],
    },
    Hook {
        name: "file_read",
        program: program::FILE_READ,
        needs: &[Group::Task, Group::File],
        sees: "how much of which watched file each process reads and writes",
        only_for: None,
        rungs: &[
            rung(
                "fentry",
                &[program("file_read_fentry", Attach::FEntry("rw_verify_area", 4))],
                READ_COST,
                "nothing known; bytes are those asked for, up to the file's end: more than given where reads come short, and kernels before 6.8 are asked twice by sendfile",
            ),
            at_return_tp_btf(READ_RETURN_BLIND),
            at_return_raw_tp(READ_RETURN_BLIND),
        ],
    },
    Hook {
        name: "file_fault",
        program: program::FILE_FAULT,
        needs: &[Group::Task, Group::File, Group::Mapping],
        sees: "how much of which watched file each process maps",
        only_for: None,
        rungs: &[
            Rung {
                needs: &[Group::Fault],
                ..rung(
                    "fentry",
                    &[
                        program("file_map_pages_fentry", Attach::FEntry("filemap_map_pages", 3)),
                        program("file_fault_fentry", Attach::FEntry("filemap_fault", 1)),
                    ],
                    FAULT_COST,
                    FAULT_BLIND,
                )
            },
            rung(
                "tp_btf",
                &[
                    program("file_map_pages_tp_btf", Attach::BtfTracepoint("mm_filemap_map_pages", 3)),
                    program("file_fault_tp_btf", Attach::BtfTracepoint("mm_filemap_fault", 2)),
                ],
                FAULT_COST,
                FAULT_TRACE_BLIND,
            ),
            rung(
                "raw_tp",
                &[
                    program("file_map_pages_raw_tp", Attach::RawTracepoint("mm_filemap_map_pages")),
                    program("file_fault_raw_tp", Attach::RawTracepoint("mm_filemap_fault")),
                ],
                FAULT_COST,
                FAULT_TRACE_BLIND,
            ),
        ],
    },
    Hook {
        name: "file_close",
        program: program::FILE_CLOSE,
        needs: &[Group::Task, Group::File],
        sees: "when a watched file is let go, so that what was read of it is told at once and not at the interval",
        only_for: None,
        rungs: &[
            rung(
                "fentry",
                &[program("file_close_fentry", Attach::FEntry("locks_remove_file", 1))],
                "a look at a table per close of a regular file",
                NOTHING,
            ),
            at_return_tp_btf("closes by dup2, close_range and exec, which the interval or the exit makes up for"),
            at_return_raw_tp("closes by dup2, close_range and exec, which the interval or the exit makes up for"),
        ],
    },
    Hook {
        name: "file_change",
        program: program::FILE_CHANGE,
        needs: &[Group::Task, Group::File],
        sees: "writes to watched files, truncations, reflinks, shared writable mappings",
        only_for: None,
        rungs: &[
            rung(
                "fentry",
                &[
                    program("file_path_truncate_fentry", Attach::FEntry("security_path_truncate", 1)),
                    optional("file_truncate_fentry", Attach::FEntry("security_file_truncate", 1)),
                    program("file_clone_fexit", Attach::FExit("vfs_clone_file_range", 6)),
                    program("file_map_fentry", Attach::FEntry("security_mmap_file", 3)),
                    program("file_allocate_fexit", Attach::FExit("vfs_fallocate", 4)),
                ],
                "a short program per truncation, reflink, mmap and fallocate",
                "bytes written through a shared mapping; whether a truncation or mapping succeeded; mprotect",
            ),
            at_return_tp_btf("truncate(2) by name; bytes written through a shared mapping; 32-bit programs"),
            at_return_raw_tp("truncate(2) by name; bytes written through a shared mapping; 32-bit programs"),
        ],
    },
    Hook {
        name: "file_name",
        program: program::FILE_NAME,
        needs: &[Group::Task, Group::File],
        sees: "renames, links and removals of watched files",
        only_for: None,
        rungs: &[rung(
            "fentry",
            &[
                program("file_rename_fentry", Attach::FEntry("security_inode_rename", 4)),
                program("file_unlink_fentry", Attach::FEntry("security_inode_unlink", 2)),
                program("file_link_fentry", Attach::FEntry("security_inode_link", 3)),
            ],
            "a short program per rename, link and removal",
            "whether the attempt succeeded",
        )],
    },
    Hook {
        name: "io_uring",
        program: program::IO_URING,
        needs: &[Group::Task, Group::File, Group::IoUring],
        sees: "opens, reads and writes of watched files by io_uring",
        only_for: Some(&[program::FILE_OPEN, program::FILE_READ]),
        rungs: &[
            Rung {
                needs: &[Group::Syscall],
                ..rung(
                    "tp_btf",
                    &[program("io_uring_tp_btf", Attach::BtfTracepoint("io_uring_complete", 2))],
                    "a short program per completion",
                    "opens into fixed files, whose reads are seen",
                )
            },
            Rung {
                needs: &[Group::Syscall],
                ..rung(
                    "raw_tp",
                    &[program("io_uring_raw_tp", Attach::RawTracepoint("io_uring_complete"))],
                    "a short program per completion",
                    "opens into fixed files, whose reads are seen",
                )
            },
        ],
    },
    Hook {
        name: "memory",
        program: program::MEMORY,
        needs: &[Group::Task],
        sees: "processes that reach into the memory of a process that has read watched files, or of the daemon",
        only_for: None,
        rungs: &[
            rung(
                "fentry",
                &[program("memory_fentry", Attach::FEntry("security_ptrace_access_check", 2))],
                "a short program per attempt to trace or inspect a process",
                "whether the attempt succeeded; PTRACE_TRACEME",
            ),
            at_return_tp_btf("the memory of a process that the caller names in another pid namespace"),
            at_return_raw_tp("the memory of a process that the caller names in another pid namespace"),
        ],
    },
    Hook {
        name: "bpf",
        program: program::BPF,
        needs: &[Group::Task, Group::Syscall, Group::Bpf],
        sees: "processes that reach for the daemon's own maps, programs and links by bpf(2)",
        only_for: None,
        rungs: &[
            rung(
                "fentry",
                &[
                    program("bpf_change_fentry", Attach::FEntry("security_bpf", 3)),
                    program("bpf_map_fentry", Attach::FEntry("security_bpf_map", 2)),
                    program("bpf_program_fentry", Attach::FEntry("security_bpf_prog", 1)),
                    program("bpf_mapped_fentry", Attach::FEntry("security_mmap_file", 3)),
                ],
                "a short program per bpf(2), and per mapping of a file",
                "whether the command succeeded; that a link was opened, before it is changed; descriptors that are passed on; programs of others that are given a map",
            ),
            at_return_tp_btf(BPF_RETURN_BLIND),
            at_return_raw_tp(BPF_RETURN_BLIND),
        ],
    },
    Hook {
        name: "tcp_connect",
        program: program::TCP_CONNECT,
        needs: &[Group::Task, Group::Socket],
        sees: "outgoing TCP connections: their begin, their end, and the bytes each way",
        only_for: None,
        rungs: &[
            rung(
                "tp_btf",
                &[program("tcp_connect_tp_btf", Attach::BtfTracepoint("inet_sock_set_state", 3))],
                STATE_COST,
                NOTHING,
            ),
            rung(
                "raw_tp",
                &[program("tcp_connect_raw_tp", Attach::RawTracepoint("inet_sock_set_state"))],
                STATE_COST,
                NOTHING,
            ),
        ],
    },
    Hook {
        name: "udp_connect",
        program: program::UDP_CONNECT,
        needs: &[Group::Task, Group::Socket],
        sees: "connected UDP sockets, and connections that policies deny",
        only_for: None,
        rungs: &[
            Rung {
                needs: &[Group::Deny],
                ..rung(
                    "lsm",
                    &[program("udp_connect_lsm", Attach::Lsm("socket_connect", 3))],
                    CONNECT_COST,
                    "a connect that a security module before it refused",
                )
            },
            Rung {
                needs: &[Group::Deny],
                ..rung(
                    "cgroup",
                    &[
                        program("udp_connect4_cgroup", Attach::CgroupSockAddr),
                        program("udp_connect6_cgroup", Attach::CgroupSockAddr),
                    ],
                    CONNECT_COST,
                    NOTHING,
                )
            },
            rung(
                "fentry",
                &[program("udp_connect_fentry", Attach::FEntry("security_socket_connect", 2))],
                CONNECT_COST,
                NOTHING,
            ),
        ],
    },
    Hook {
        name: "udp_send",
        program: program::UDP_SEND,
        needs: &[Group::Task, Group::Socket],
        sees: "datagrams that are sent without connect, each destination once a minute per process",
        only_for: None,
        rungs: &[
            Rung {
                needs: &[Group::Deny],
                ..rung(
                    "lsm",
                    &[program("udp_send_lsm", Attach::Lsm("socket_sendmsg", 3))],
                    SEND_COST,
                    "a send that a security module before it refused",
                )
            },
            Rung {
                needs: &[Group::Deny],
                ..rung(
                    "cgroup",
                    &[
                        program("udp_send4_cgroup", Attach::CgroupSockAddr),
                        program("udp_send6_cgroup", Attach::CgroupSockAddr),
                    ],
                    SEND_COST,
                    NOTHING,
                )
            },
            rung(
                "fentry",
                &[program("udp_send_fentry", Attach::FEntry("security_socket_sendmsg", 2))],
                SEND_COST,
                NOTHING,
            ),
        ],
    },
    Hook {
        name: "socket_send",
        program: program::SOCKET_SEND,
        needs: &[Group::Task, Group::Socket],
        sees: "processes that send over a TCP connection that another one began",
        only_for: None,
        rungs: &[
            rung(
                "fentry",
                &[program("socket_send_fentry", Attach::FEntry("security_socket_sendmsg", 1))],
                SEND_COST,
                SEND_BLIND,
            ),
            rung(
                "tp_btf",
                &[program("socket_send_tp_btf", Attach::BtfTracepoint("sock_send_length", 1))],
                SEND_COST,
                SEND_BLIND,
            ),
            rung(
                "raw_tp",
                &[program("socket_send_raw_tp", Attach::RawTracepoint("sock_send_length"))],
                SEND_COST,
                SEND_BLIND,
            ),
        ],
    },
    Hook {
        name: "socket_open",
        program: program::SOCKET_OPEN,
        needs: &[Group::Task],
        sees: "sockets whose traffic no hook sees: raw, packet, ICMP, SCTP, vsock, XDP, RDS, SMC, TIPC",
        only_for: None,
        rungs: &[
            rung(
                "fentry",
                &[program("socket_open_fentry", Attach::FEntry("security_socket_create", 4))],
                "a short program per socket",
                "what is sent through them; whether the attempt succeeded",
            ),
            at_return_tp_btf("what is sent through them; sockets made by io_uring and by 32-bit programs"),
            at_return_raw_tp("what is sent through them; sockets made by io_uring and by 32-bit programs"),
        ],
    },
    Hook {
        name: "local_connect",
        program: program::LOCAL_CONNECT,
        needs: &[Group::Task, Group::Socket, Group::Local],
        sees: "connections to local sockets (AF_UNIX) of processes whose tree has read watched files",
        only_for: None,
        rungs: &[
            rung(
                "fentry",
                &[program("local_connect_fentry", Attach::FEntry("security_unix_stream_connect", 2))],
                CONNECT_COST,
                "datagrams; whether the attempt succeeded",
            ),
            at_return_tp_btf("datagrams; connections by io_uring and by 32-bit programs"),
            at_return_raw_tp("datagrams; connections by io_uring and by 32-bit programs"),
        ],
    },
    Hook {
        name: "dns",
        program: program::DNS,
        needs: &[Group::Task, Group::File, Group::Socket],
        sees: "questions to name servers and their answers: the names of addresses",
        only_for: None,
        rungs: &[
            Rung {
                needs: &[Group::Packet, Group::Pages],
                ..rung(
                    "fentry",
                    &[
                        DNS_RECEIVE,
                        DNS_SEND4,
                        DNS_SEND6,
                        program("dns_stream_send_fentry", Attach::FEntry("tcp_sendmsg", 3)),
                        program("dns_stream_receive_fentry", Attach::FEntry("skb_copy_datagram_iter", 4)),
                    ],
                    "a look at the port of each datagram, and of the socket of each copy of received bytes",
                    "what of a packet is not in the one piece where its message begins; over TCP, messages that are not read whole with one call, with or without their length, or by splice, and those behind one that was not",
                )
            },
            Rung {
                needs: &[Group::Packet],
                ..rung(
                    "fentry_udp",
                    &[DNS_RECEIVE, DNS_SEND4, DNS_SEND6],
                    "a look at the port of each datagram",
                    "names asked for over TCP; what of a packet is not in its first piece",
                )
            },
            at_return_tp_btf(DNS_RETURN_BLIND),
            at_return_raw_tp(DNS_RETURN_BLIND),
        ],
    },
    Hook {
        name: "fork",
        program: program::FORK,
        needs: &[Group::Task],
        sees: "who started whom",
        only_for: None,
        rungs: &[
            rung("tp_btf", &[program("fork_tp_btf", Attach::BtfTracepoint("sched_process_fork", 2))], RARE, NOTHING),
            rung("raw_tp", &[program("fork_raw_tp", Attach::RawTracepoint("sched_process_fork"))], RARE, NOTHING),
        ],
    },
    Hook {
        name: "exec",
        program: program::EXEC,
        needs: &[Group::Task, Group::File, Group::Exec],
        sees: "which file a process runs",
        only_for: None,
        rungs: &[
            rung("tp_btf", &[program("exec_tp_btf", Attach::BtfTracepoint("sched_process_exec", 3))], RARE, NOTHING),
            rung("raw_tp", &[program("exec_raw_tp", Attach::RawTracepoint("sched_process_exec"))], RARE, NOTHING),
        ],
    },
    Hook {
        name: "exit",
        program: program::EXIT,
        needs: &[Group::Task, Group::Exit],
        sees: "when a process ends",
        only_for: None,
        rungs: &[
            rung("tp_btf", &[program("exit_tp_btf", Attach::BtfTracepoint("sched_process_exit", 1))], RARE, NOTHING),
            rung("raw_tp", &[program("exit_raw_tp", Attach::RawTracepoint("sched_process_exit"))], RARE, NOTHING),
        ],
    },
];
