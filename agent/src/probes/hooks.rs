//! The table of hooks: for each logical program its ladder of rungs, best first.
//!
//! Adding a probe is its kernel program, its number in `plumbline_ebpf::program`, and one row here; a test fails
//! when a program has no row.

use plumbline_ebpf::{offsets::Group, program};

/// One logical program and the ways to attach it.
#[derive(Debug)]
pub struct Hook {
    pub name: &'static str,
    pub program: u32,
    /// Kernel fields that every rung reads.
    pub needs: &'static [Group],
    /// Best first; the first that attaches is taken.
    pub rungs: &'static [Rung],
    /// What the node does not see without it.
    pub sees: &'static str,
}

/// One way to attach a hook.
#[derive(Debug)]
pub struct Rung {
    /// As shown by `doctor` and accepted by `probes.rungs` in the configuration.
    pub name: &'static str,
    /// Names of the kernel programs; all of them or none.
    pub programs: &'static [&'static str],
    pub attach: Attach,
    /// Kernel fields that only this rung reads.
    pub needs: &'static [Group],
    /// What it costs, in words; measured figures are in docs/journal.
    pub cost: &'static str,
    /// What it cannot see.
    pub blind: &'static str,
}

/// What the rung attaches to. The number is how many arguments the programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    FEntry(&'static str, usize),
    Lsm(&'static str),
    BtfTracepoint(&'static str, usize),
    RawTracepoint(&'static str),
    /// The root of the cgroup v2 hierarchy.
    CgroupSockAddr,
}

impl Hook {
    pub fn find(name: &str) -> Option<&'static Self> {
        HOOKS.iter().find(|hook| hook.name == name)
    }
}

const FILE_BLIND: &str = "hard links outside the watched directories, files more than 31 directories below them";
const SYSCALL_BLIND: &str = "opens by io_uring and by 32-bit programs; a descriptor that another thread replaces at once; hard \
                             links outside the watched directories, files more than 31 directories below them";
const RARE: &str = "one short program per fork, exec or exit";

pub const HOOKS: &[Hook] = &[
    Hook {
        name: "file_open",
        program: program::FILE_OPEN,
        needs: &[Group::Task, Group::File],
        sees: "opens of files below watched directories",
        rungs: &[
            Rung {
                name: "fentry",
                programs: &["file_open_fentry"],
                attach: Attach::FEntry("security_file_open", 1),
                needs: &[],
                cost: "a walk over the parent directories per open, nothing per other system call",
                blind: FILE_BLIND,
            },
            Rung {
                name: "tp_btf",
                programs: &["file_open_tp_btf"],
                attach: Attach::BtfTracepoint("sys_exit", 2),
                needs: &[Group::Syscall],
                cost: "a short program at the return of every system call, the walk per open",
                blind: SYSCALL_BLIND,
            },
            Rung {
                name: "raw_tp",
                programs: &["file_open_raw_tp"],
                attach: Attach::RawTracepoint("sys_exit"),
                needs: &[Group::Syscall],
                cost: "a short program at the return of every system call, the walk per open",
                blind: SYSCALL_BLIND,
            },
            Rung {
                name: "lsm",
                programs: &["file_open_lsm"],
                attach: Attach::Lsm("file_open"),
                needs: &[],
                cost: "a walk over the parent directories per open, nothing per other system call",
                blind: FILE_BLIND,
            },
        ],
    },
    Hook {
        name: "tcp_connect",
        program: program::TCP_CONNECT,
        needs: &[Group::Task, Group::Socket],
        sees: "outgoing TCP connections",
        rungs: &[
            Rung {
                name: "tp_btf",
                programs: &["tcp_connect_tp_btf"],
                attach: Attach::BtfTracepoint("inet_sock_set_state", 3),
                needs: &[],
                cost: "a short program per change of a TCP socket's state",
                blind: "nothing known",
            },
            Rung {
                name: "raw_tp",
                programs: &["tcp_connect_raw_tp"],
                attach: Attach::RawTracepoint("inet_sock_set_state"),
                needs: &[],
                cost: "a short program per change of a TCP socket's state",
                blind: "nothing known",
            },
        ],
    },
    Hook {
        name: "udp_connect",
        program: program::UDP_CONNECT,
        needs: &[Group::Task, Group::Socket],
        sees: "connected UDP sockets",
        rungs: &[
            Rung {
                name: "cgroup",
                programs: &["udp_connect4_cgroup", "udp_connect6_cgroup"],
                attach: Attach::CgroupSockAddr,
                needs: &[],
                cost: "a short program per connect",
                blind: "datagrams sent without connect",
            },
            Rung {
                name: "fentry",
                programs: &["udp_connect_fentry"],
                attach: Attach::FEntry("security_socket_connect", 2),
                needs: &[],
                cost: "a short program per connect",
                blind: "datagrams sent without connect",
            },
            Rung {
                name: "lsm",
                programs: &["udp_connect_lsm"],
                attach: Attach::Lsm("socket_connect"),
                needs: &[],
                cost: "a short program per connect",
                blind: "datagrams sent without connect",
            },
        ],
    },
    Hook {
        name: "fork",
        program: program::FORK,
        needs: &[Group::Task],
        sees: "who started whom",
        rungs: &[
            Rung {
                name: "tp_btf",
                programs: &["fork_tp_btf"],
                attach: Attach::BtfTracepoint("sched_process_fork", 2),
                needs: &[],
                cost: RARE,
                blind: "nothing known",
            },
            Rung {
                name: "raw_tp",
                programs: &["fork_raw_tp"],
                attach: Attach::RawTracepoint("sched_process_fork"),
                needs: &[],
                cost: RARE,
                blind: "nothing known",
            },
        ],
    },
    Hook {
        name: "exec",
        program: program::EXEC,
        needs: &[Group::Task, Group::File, Group::Exec],
        sees: "which file a process runs",
        rungs: &[
            Rung {
                name: "tp_btf",
                programs: &["exec_tp_btf"],
                attach: Attach::BtfTracepoint("sched_process_exec", 3),
                needs: &[],
                cost: RARE,
                blind: "nothing known",
            },
            Rung {
                name: "raw_tp",
                programs: &["exec_raw_tp"],
                attach: Attach::RawTracepoint("sched_process_exec"),
                needs: &[],
                cost: RARE,
                blind: "nothing known",
            },
        ],
    },
    Hook {
        name: "exit",
        program: program::EXIT,
        needs: &[Group::Task, Group::Exit],
        sees: "when a process ends",
        rungs: &[
            Rung {
                name: "tp_btf",
                programs: &["exit_tp_btf"],
                attach: Attach::BtfTracepoint("sched_process_exit", 1),
                needs: &[],
                cost: RARE,
                blind: "nothing known",
            },
            Rung {
                name: "raw_tp",
                programs: &["exit_raw_tp"],
                attach: Attach::RawTracepoint("sched_process_exit"),
                needs: &[],
                cost: RARE,
                blind: "nothing known",
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_exactly_one_row_of_its_name() {
        for (number, name) in program::NAMES.iter().enumerate() {
            let rows: Vec<_> = HOOKS.iter().filter(|hook| hook.program as usize == number).collect();
            assert_eq!(rows.len(), 1, "program {name}");
            assert_eq!(rows[0].name, *name);
        }
    }
}
