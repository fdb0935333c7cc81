//! Ways to the weights, and out of the node, that are meant to escape notice: each is seen by a hook, or declared.
//!
//! The table makes docs/coverage.md and the coverage statement in the log; the suite `tests/src/bypass/` goes each way on
//! each kernel and fails when this table says otherwise than what happened.

use std::fmt::Write as _;

use super::{hooks::HOOKS, ladder::HookVerdict};

/// One way.
#[derive(Debug)]
pub struct Way {
    /// Unique; what somebody does.
    pub name: &'static str,
    pub subject: Subject,
    /// Any of these suffices.
    pub seen_by: &'static [Seen],
    /// What is so when none of them is attached, or where there is none.
    pub otherwise: &'static str,
}

/// What a way leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// To the bytes of watched files.
    Read,
    /// To other bytes in the place of watched files.
    Change,
    /// Out of the node.
    Egress,
    /// To the address of a name.
    Name,
}

impl Subject {
    pub const ALL: [Self; 4] = [Self::Read, Self::Change, Self::Egress, Self::Name];

    pub fn title(self) -> &'static str {
        match self {
            Self::Read => "Ways to the bytes of watched files",
            Self::Change => "Ways to change them",
            Self::Egress => "Ways out of the node",
            Self::Name => "Ways to learn the address of a name",
        }
    }
}

/// A hook that sees it, on any of these rungs; on every rung where none is named.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub hook: &'static str,
    pub rungs: &'static [&'static str],
}

impl Way {
    pub fn find(name: &str) -> Option<&'static Self> {
        WAYS.iter().find(|way| way.name == name)
    }

    /// The hook and rung that see this way as the hooks are attached now.
    pub fn seen(&self, verdicts: &[HookVerdict]) -> Option<(&'static str, &'static str)> {
        self.seen_by.iter().find_map(|seen| {
            let verdict = verdicts.iter().find(|verdict| verdict.hook.name == seen.hook)?;
            let rung = verdict.attached()?;
            (seen.rungs.is_empty() || seen.rungs.contains(&rung.name)).then_some((seen.hook, rung.name))
        })
    }
}

/// What nothing sees, as the hooks are attached now.
pub fn blind(verdicts: &[HookVerdict]) -> impl Iterator<Item = &'static Way> {
    WAYS.iter().filter(|way| way.seen(verdicts).is_none())
}

const fn any(hook: &'static str) -> Seen {
    Seen { hook, rungs: &[] }
}

const fn fentry(hook: &'static str) -> Seen {
    Seen { hook, rungs: &["fentry"] }
}

/// Where every open passes, whoever asked for it.
const EVERY_OPEN: Seen = Seen { hook: "file_open", rungs: &["lsm", "fentry"] };

/// At the return of system calls.
const fn at_return(hook: &'static str) -> Seen {
    Seen { hook, rungs: &["tp_btf", "raw_tp"] }
}

const fn read(name: &'static str, seen_by: &'static [Seen], otherwise: &'static str) -> Way {
    Way { name, subject: Subject::Read, seen_by, otherwise }
}

const fn change(name: &'static str, seen_by: &'static [Seen], otherwise: &'static str) -> Way {
    Way { name, subject: Subject::Change, seen_by, otherwise }
}

const fn out(name: &'static str, seen_by: &'static [Seen], otherwise: &'static str) -> Way {
    Way { name, subject: Subject::Egress, seen_by, otherwise }
}

const fn name(name: &'static str, seen_by: &'static [Seen], otherwise: &'static str) -> Way {
    Way { name, subject: Subject::Name, seen_by, otherwise }
}

const DNS: &[Seen] = &[any("dns")];
/// From the kernel's memory.
const PACKETS: &[Seen] = &[Seen { hook: "dns", rungs: &["fentry", "fentry_udp"] }];
const NO_NAME: &str = "no name is known: connections say `dns: none`";
const LOCAL: &str = "the connections of whoever listens there are seen, charged to it";
const TCP: &[Seen] = &[any("tcp_connect")];
const INHERITED: &[Seen] = &[any("socket_send")];
const OPENS: &[Seen] = &[any("file_open")];
const READS: &[Seen] = &[any("file_read")];
const NO_OPENS: &str = "no open is seen";
const NO_FAULTS: &str = "what is read through a mapping is not seen; the open is";
const NO_READS: &str = "no read is seen; the open is, by `file_open`";

pub const WAYS: &[Way] = &[
    read("open by its own name", OPENS, NO_OPENS),
    read("open through a symbolic link", OPENS, NO_OPENS),
    read("open through a hard link in another directory", OPENS, NO_OPENS),
    read("open through a bind mount of the file", OPENS, NO_OPENS),
    read("open a new file through a bind mount of a directory below the watched one", OPENS, NO_OPENS),
    read("open after it was moved to another directory", OPENS, NO_OPENS),
    read("open a copy that was put in its place by rename", OPENS, NO_OPENS),
    read("open by a file handle", OPENS, NO_OPENS),
    read("open through /proc/PID/fd", OPENS, NO_OPENS),
    read("open in another mount namespace", OPENS, NO_OPENS),
    read("open by io_uring", &[EVERY_OPEN, any("io_uring")], "an open by io_uring is not seen"),
    read("open by a 32-bit system call", OPENS, NO_OPENS),
    read(
        "receive its descriptor over a socket",
        &[EVERY_OPEN],
        "that a descriptor was passed is not seen; what the receiver reads is, by `file_read`",
    ),
    read("take its descriptor by pidfd_getfd", OPENS, NO_OPENS),
    read("read through a descriptor that was received over a socket", READS, NO_READS),
    read("read through an inherited descriptor after exec", READS, NO_READS),
    read("read after it was removed while open", READS, NO_READS),
    read("read by read, pread, readv, preadv and preadv2", READS, NO_READS),
    read("read by a 32-bit system call", READS, NO_READS),
    read("read past the page cache (O_DIRECT)", READS, NO_READS),
    read("copy by sendfile", READS, NO_READS),
    read("copy by splice", READS, NO_READS),
    read("copy by copy_file_range", READS, NO_READS),
    read("read by io_uring", &[fentry("file_read"), any("io_uring")], NO_READS),
    read("read by io_uring from a fixed file", &[fentry("file_read"), any("io_uring")], NO_READS),
    read("read by AIO (io_submit)", &[fentry("file_read")], NO_READS),
    read("map and touch", &[any("file_fault")], NO_FAULTS),
    read("map and touch what no cache has", &[any("file_fault")], NO_FAULTS),
    read("map populated in advance", &[any("file_fault")], NO_FAULTS),
    read("open on an overlay", OPENS, NO_OPENS),
    read(
        "open in the layer below an overlay",
        &[any("file_fault")],
        "files of layers are not known by their own inode; watch the layer's directory too",
    ),
    read("read the memory of a process by process_vm_readv", &[any("memory")], "not seen"),
    read("read the memory of a process through /proc/PID/mem", OPENS, NO_OPENS),
    read("attach to a process by ptrace", &[any("memory")], "not seen"),
    read("open the block device below", OPENS, NO_OPENS),
    read(
        "copy by reflink (FICLONE)",
        &[any("file_change")],
        "a copy that shares blocks is made without a read; the opens of both files are seen",
    ),
    read(
        "read through a descriptor that another thread replaces before the call returns",
        &[fentry("file_read")],
        NO_READS,
    ),
    read(
        "read by io_uring without a completion (IOSQE_CQE_SKIP_SUCCESS)",
        &[fentry("file_read")],
        "no completion is told; an open by system call is",
    ),
    read(
        "read the memory of a process that got the weights by fork, or mapped them before the daemon began",
        &[],
        "only processes that the daemon saw reading count as readers",
    ),
    read("attach before the process has read", &[], "what a debugger reads later is not seen"),
    read("have a child that asks to be traced (PTRACE_TRACEME)", &[], "not seen"),
    read(
        "what was mapped before the daemon began",
        &[],
        "pages that were mapped then fault no more; the first fault after it is seen",
    ),
    read("read through a loop device over a watched file", OPENS, "not seen; with it, the reads are the kernel's"),
    read("read a snapshot of the file system", &[], "a snapshot is another device; watch its directory too"),
    read("open the disk below btrfs, overlay or zfs, or by /dev/sg*, /dev/bsg/*, /dev/ng*", &[], "not seen"),
    read(
        "GPUDirect Storage",
        &[],
        "transfers pass no read; the opens of the file, and of /dev/nvidia-fs* by that name, are seen",
    ),
    read("a file on DAX, mapped", &[], "there is no page cache to tell of; the open is seen"),
    read(
        "open on a file system whose inode numbers change (some in user space)",
        &[],
        "directories and files are found anew by name every ten seconds; what is opened between is not seen",
    ),
    read(
        "read on another node, from a network file system",
        &[],
        "each node tells of its own reads; put the daemon on all that mount it",
    ),
    read("by the kernel's NFS server", &[EVERY_OPEN], "the server opens files without a system call"),
    change("write", READS, "a write is not seen; the open for writing is"),
    change(
        "write through a shared mapping",
        &[],
        "the bytes are not seen; that it was mapped writable is, by `file_change`",
    ),
    change("map shared, then make it writable (mprotect)", &[], "not seen; the open for writing is"),
    change("rename or remove a watched directory", &[], "it stays watched by inode, and the next statement says so"),
    change("map shared and writable", &[any("file_change")], "not seen; the open for writing is"),
    change("truncate by descriptor", &[any("file_change")], "not seen; the open for writing is"),
    change("truncate by name", &[fentry("file_change")], "not seen"),
    change("truncate by opening", &[any("file_change")], "not seen; the open for writing is"),
    change("punch a hole (fallocate)", &[any("file_change")], "not seen; the open for writing is"),
    change("put another file in its place by rename", &[any("file_name")], "not seen until the new file is opened"),
    change("rename", &[any("file_name")], "not seen"),
    change("remove", &[any("file_name")], "not seen"),
    change("make a hard link", &[any("file_name")], "not seen; opens through it are"),
    out("connect by TCP", TCP, "not seen"),
    out("connect by TCP to an IPv4 address in IPv6 clothes", TCP, "not seen"),
    out("connect by TCP and be refused", TCP, "not seen"),
    out("connect by TCP Fast Open", TCP, "not seen"),
    out("connect by MPTCP", TCP, "not seen"),
    out("connect by TCP through io_uring", TCP, "not seen"),
    out("connect by TCP in another network namespace", TCP, "not seen"),
    out("connect a UDP socket", &[any("udp_connect")], "not seen"),
    out("send datagrams without connecting", &[any("udp_send")], "not seen"),
    out("send datagrams by io_uring", &[any("udp_send")], "not seen"),
    out("send over an inherited TCP connection", INHERITED, "charged to the process that began the connection"),
    out(
        "send over a TCP connection that was received over a socket",
        INHERITED,
        "charged to the process that began it",
    ),
    out("make a raw socket", &[any("socket_open")], "not seen"),
    out("make a packet socket", &[any("socket_open")], "not seen"),
    out("make an ICMP socket", &[any("socket_open")], "not seen"),
    out("make an SCTP socket", &[any("socket_open")], "not seen"),
    out("make a vsock socket", &[any("socket_open")], "not seen"),
    out("make a raw socket by io_uring", &[fentry("socket_open")], "not seen"),
    out("send over a UDP socket that another process connected", &[], "charged to the process that connected it"),
    out("sendfile or splice into a passed connection, before 6.5", &[], "charged to the process that began it"),
    out("UDP-Lite, DCCP, L2TP, /dev/net/tun", &[], "not seen"),
    out("connect to a local socket (AF_UNIX)", &[any("local_connect")], LOCAL),
    out("connect to an abstract local socket", &[any("local_connect")], LOCAL),
    out("connect to a local socket by io_uring", &[fentry("local_connect")], LOCAL),
    out("send datagrams to a local socket", &[], LOCAL),
    out("RDMA", &[], "transfers pass no socket; the opens of /dev/infiniband/* by their names are seen"),
    out("connections that were there before the daemon", &[], "their begin is in no log; their end is not told"),
    name("ask by sendto and recvfrom", DNS, NO_NAME),
    name("ask over IPv6", DNS, NO_NAME),
    name("ask over a connected socket", DNS, NO_NAME),
    name("ask by write and read", DNS, NO_NAME),
    name("ask by sendmsg and recvmsg", DNS, NO_NAME),
    name("ask two questions by sendmmsg and recvmmsg", DNS, NO_NAME),
    name("ask, and take the answer without asking who sent it", PACKETS, NO_NAME),
    name("ask, and be answered with 9000 bytes", DNS, NO_NAME),
    name("ask, and be answered by a packet in two pieces", &[fentry("dns"), at_return("dns")], NO_NAME),
    name("ask by io_uring", PACKETS, NO_NAME),
    name("ask over TCP", &[fentry("dns"), at_return("dns")], NO_NAME),
    name("ask over TCP with one write and one read", &[fentry("dns"), at_return("dns")], NO_NAME),
    name("ask over TCP by io_uring", &[fentry("dns")], NO_NAME),
    name("ask over TCP, and read the answer in pieces", &[], NO_NAME),
    name("learn by sendfile, splice, TCP Fast Open, MPTCP or kernel TLS", &[], NO_NAME),
    name("learn by a 32-bit system call", PACKETS, NO_NAME),
    name("learn more than two names with one call", PACKETS, NO_NAME),
    name("learn over TLS, QUIC or HTTPS", &[], "connections to port 853, and to known services, say `dns: encrypted`"),
    name(
        "learn from systemd-resolved over its own socket",
        &[],
        "the service's questions are seen, and name addresses in its network namespace",
    ),
    name("learn from /etc/hosts, nscd, mDNS or a HTTPS record's hints", &[], NO_NAME),
    name(
        "learn from a message that lies in more than one piece behind a packet's headers (large frames)",
        &[at_return("dns")],
        "what is in the first of them is read; the rest is cut",
    ),
    name(
        "show the kernel another answer than the one that came",
        PACKETS,
        "where answers are read from the process's memory, it names addresses as it likes in its network namespace",
    ),
    name(
        "send packets in a configured server's name (CAP_NET_RAW)",
        &[],
        "who may do that names addresses as it likes in its network namespace",
    ),
];

/// `docs/coverage.md`: every way, what sees it, and what is so where that is not attached; then every hook and rung.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Coverage\n\nGenerated from the tables in `agent/src/probes/ways.rs` and `hooks/table.rs`; `UPDATE_EXPECT=1 cargo test -p plumbline \
         probes::ways` writes it anew.\n\nThe suite in `tests/src/bypass/` goes the ways that a test can go, on every rung, natively and on Debian's kernels \
         5.10, 6.1, 6.12 and the newest, and fails where this page says otherwise than what happened; it lists the others as not run. The ways to files and to change them are gone on ext4, xfs, btrfs, \
         FUSE (bindfs) and NFS 4.2 too, as far as the kernel has them. `plumbline doctor` and the \
         coverage statement in the log say which of them are seen on a given node.\n",
    );
    for subject in Subject::ALL {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## {}\n\n| way | seen by | otherwise |\n|---|---|---|\n", subject.title());
        for way in WAYS.iter().filter(|way| way.subject == subject) {
            let seen: Vec<String> = way.seen_by.iter().map(Seen::in_words).collect();
            let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
            let _ = writeln!(page, "| {} | {seen} | {} |", way.name, way.otherwise);
        }
    }
    page.push_str("\n## Hooks\n\n| hook | sees | rung | costs | blind to |\n|---|---|---|---|---|\n");
    for hook in HOOKS {
        for rung in hook.rungs {
            let _ =
                writeln!(page, "| `{}` | {} | {} | {} | {} |", hook.name, hook.sees, rung.name, rung.cost, rung.blind);
        }
    }
    page
}

impl Seen {
    fn in_words(&self) -> String {
        match self.rungs {
            [] => format!("`{}`", self.hook),
            rungs => format!("`{}` ({})", self.hook, rungs.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_the_tables() {
        expect_test::expect_file!["../../../docs/coverage.md"].assert_eq(&markdown());
    }
    use crate::probes::hooks::Hook;

    #[test]
    fn every_way_has_a_name_of_its_own_and_names_hooks_that_exist() {
        for (position, way) in WAYS.iter().enumerate() {
            assert!(WAYS.iter().skip(position + 1).all(|other| other.name != way.name), "{}", way.name);
            for seen in way.seen_by {
                let hook = Hook::find(seen.hook).unwrap_or_else(|| panic!("{}: no hook {}", way.name, seen.hook));
                assert!(seen.rungs.iter().all(|rung| hook.rung(rung).is_some()), "{}", way.name);
            }
        }
    }
}
