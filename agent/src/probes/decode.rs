//! Bytes of the ring → [`Event`]. A record of unknown kind or wrong length is an error that the caller counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use plumbline_ebpf::{
    bpf,
    record::{self, Header},
};
use thiserror::Error;
use zerocopy::FromBytes as _;

use crate::event::{
    BpfAccess, BpfHow, BpfKind, Change, Connect, ConnectEnd, ConnectHow, DeniedBy, DeviceKind, DeviceOpen, Direction,
    DnsMessage, Event, Exec, Exit, FileChange, FileKey, FileOpen, Fork, LocalConnect, MemoryAccess, MemoryHow,
    Namespaces, NetNs, Origin, Outcome, Protocol, SocketOpen, Task, What,
};

#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("a record of {0} bytes is shorter than its kind demands")]
    Short(usize),
    #[error("a record of unknown kind {0}")]
    Kind(u32),
    #[error("a connection of unknown family {0} or protocol {1}")]
    Address(u16, u32),
    #[error("a change of a file of unknown kind {0}")]
    Change(u32),
}

/// What a ring record says.
#[derive(Debug, PartialEq)]
pub enum Decoded {
    Event(Event),
    /// A watched file was let go by this process.
    Closed {
        task: Task,
        key: FileKey,
        boot_ns: u64,
    },
    /// The process ended, having read watched files.
    Exited {
        event: Event,
        has_read: bool,
    },
    /// The answer to an enrolling open of the daemon's own thread `tid`.
    Enrolled {
        tid: u32,
        key: FileKey,
        path: Vec<u8>,
    },
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// Decodes one record, and says where it stands among those of its program on its CPU.
pub fn decode(bytes: &[u8]) -> Result<(Origin, Decoded), DecodeError> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| DecodeError::Short(bytes.len()))?;
    Ok((origin(header), body(header, bytes)?))
}

fn body(header: &Header, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let short = || DecodeError::Short(bytes.len());
    let what = match header.kind {
        record::KIND_FILE_OPEN | record::KIND_ENROL => {
            let (open, tail) = record::FileOpen::ref_from_prefix(bytes).map_err(|_| short())?;
            let path = assemble(tail.get(..open.path_bytes as usize).ok_or_else(short)?);
            let key = FileKey { dev: open.dev, ino: open.ino, generation: open.generation };
            if header.kind == record::KIND_ENROL {
                let path = if open.path_bytes == 0 { Vec::new() } else { path };
                return Ok(Decoded::Enrolled { tid: header.tid, key, path });
            }
            if let Some(around) = of_another_kind(open, &path) {
                return Ok(Decoded::Event(event(header, around)));
            }
            What::FileOpen(FileOpen {
                path,
                path_truncated: open.path_state & record::PATH_TRUNCATED != 0,
                known_as: None,
                key,
                watched: FileKey { dev: open.watched_dev, ino: open.watched_ino, generation: 0 },
                flags: open.flags,
                inode_mode: open.mode,
                size_bytes: open.size_bytes,
                links: open.links,
                received: open.via == record::VIA_RECEIVED,
                denied_by: denied_by(header, open.denied),
            })
        }
        bpf::KIND_BPF => {
            let (access, _) = bpf::BpfAccess::ref_from_prefix(bytes).map_err(|_| short())?;
            let name = access.name.split(|byte| *byte == 0).next().unwrap_or_default();
            What::BpfAccess(BpfAccess {
                kind: match access.object.kind {
                    bpf::OBJECT_MAP => BpfKind::Map,
                    bpf::OBJECT_PROGRAM => BpfKind::Program,
                    _ => BpfKind::Link,
                },
                id: access.object.id,
                name: name.to_vec(),
                how: if access.how == bpf::OBJECT_OPEN { BpfHow::Open } else { BpfHow::Change },
            })
        }
        record::KIND_MEMORY => {
            let (access, _) = record::MemoryAccess::ref_from_prefix(bytes).map_err(|_| short())?;
            What::MemoryAccess(MemoryAccess {
                target_pid: access.target_pid,
                target_start_boot_ns: (access.target_start_boot_ns != 0).then_some(access.target_start_boot_ns),
                how: match access.how {
                    record::MEMORY_VM_READ => MemoryHow::VmRead,
                    record::MEMORY_PTRACE => MemoryHow::Ptrace,
                    _ => MemoryHow::Attach,
                },
            })
        }
        record::KIND_FILE_CHANGE => {
            let (change, tail) = record::FileChange::ref_from_prefix(bytes).map_err(|_| short())?;
            let how = Change::ALL.into_iter().find(|(number, _)| *number == change.how);
            What::FileChange(FileChange {
                how: how.ok_or(DecodeError::Change(change.how))?.1,
                path: assemble(tail.get(..change.path_bytes as usize).ok_or_else(short)?),
                path_truncated: change.path_state & record::PATH_TRUNCATED != 0,
                known_as: None,
                key: FileKey { dev: change.dev, ino: change.ino, generation: change.generation },
                watched: FileKey { dev: change.watched_dev, ino: change.watched_ino, generation: 0 },
                links: change.links,
            })
        }
        record::KIND_FILE_CLOSE => {
            let (close, _) = record::FileClose::ref_from_prefix(bytes).map_err(|_| short())?;
            let key = FileKey { dev: close.dev, ino: close.ino, generation: 0 };
            return Ok(Decoded::Closed { task: task(header), key, boot_ns: header.boot_ns });
        }
        record::KIND_CONNECT => {
            let (begun, _) = record::Connect::ref_from_prefix(bytes).map_err(|_| short())?;
            What::Connect(connect(header, begun)?)
        }
        record::KIND_CONNECT_END => {
            let (end, _) = record::ConnectEnd::ref_from_prefix(bytes).map_err(|_| short())?;
            What::ConnectEnd(connect_end(end)?)
        }
        record::KIND_LOCAL_CONNECT => {
            let (connect, _) = record::LocalConnect::ref_from_prefix(bytes).map_err(|_| short())?;
            What::LocalConnect(LocalConnect {
                name: connect.name.get(..connect.name_bytes as usize).ok_or_else(short)?.to_vec(),
                server_pid: (connect.server_pid != 0).then_some(connect.server_pid),
            })
        }
        record::KIND_DNS => {
            let (message, tail) = record::DnsMessage::ref_from_prefix(bytes).map_err(|_| short())?;
            let bytes = tail.get(..message.message_bytes as usize).ok_or_else(short)?;
            What::Dns(dns_message(message, bytes)?)
        }
        record::KIND_SOCKET_OPEN => {
            let (open, _) = record::SocketOpen::ref_from_prefix(bytes).map_err(|_| short())?;
            What::SocketOpen(SocketOpen { family: open.family, kind: open.kind, protocol: open.protocol })
        }
        record::KIND_EXEC => {
            let (exec, tail) = record::Exec::ref_from_prefix(bytes).map_err(|_| short())?;
            let (path, tail) = tail.split_at_checked(exec.path_bytes as usize).ok_or_else(short)?;
            let arguments = tail.get(..exec.argument_bytes as usize).ok_or_else(short)?;
            What::Exec(Exec {
                mnt_ns: exec.mnt_ns,
                exe: assemble(path),
                arguments: whole_arguments(arguments, exec.argument_total_bytes > exec.argument_bytes).to_vec(),
                arguments_truncated: exec.argument_total_bytes > exec.argument_bytes,
                capabilities: exec.capabilities,
                loginuid: (exec.loginuid != record::NO_LOGIN).then_some(exec.loginuid),
                deleted: exec.links == 0,
                key: FileKey { dev: exec.dev, ino: exec.ino, generation: exec.inode_generation },
            })
        }
        record::KIND_FORK => {
            let (fork, _) = record::Fork::ref_from_prefix(bytes).map_err(|_| short())?;
            What::Fork(Fork { child_pid: fork.child_pid, child_start_boot_ns: fork.child_start_boot_ns })
        }
        record::KIND_EXIT => {
            let (exit, _) = record::Exit::ref_from_prefix(bytes).map_err(|_| short())?;
            let event = event(header, What::Exit(Exit { code: exit.code }));
            return Ok(Decoded::Exited { event, has_read: exit.files != 0 });
        }
        unknown => return Err(DecodeError::Kind(unknown)),
    };
    Ok(Decoded::Event(event(header, what)))
}

fn origin(header: &Header) -> Origin {
    Origin { generation: header.generation, program: header.program, cpu: header.cpu, sequence: header.sequence }
}

fn event(header: &Header, what: What) -> Event {
    Event { boot_ns: header.boot_ns, origin: Some(origin(header)), task: Some(task(header)), what }
}

/// What an open that is not one of a watched file opens.
fn of_another_kind(open: &record::FileOpen, path: &[u8]) -> Option<What> {
    let device = |kind| What::DeviceOpen(DeviceOpen { kind, path: path.to_vec(), device: open.watched_dev });
    match open.via {
        record::VIA_BLOCK_DEVICE => Some(device(DeviceKind::BlockDevice)),
        record::VIA_BYPASS_DEVICE => Some(device(DeviceKind::BypassDevice)),
        record::VIA_GPU_DEVICE => Some(device(DeviceKind::GpuDevice)),
        record::VIA_PROC_MEM => {
            // `…/PID/mem` or `…/PID/task/TID/mem`, as that `/proc` numbers them, wherever it is mounted.
            let mut above = path.rsplit(|&byte| byte == b'/').skip(1);
            let number = |name: Option<&[u8]>| std::str::from_utf8(name?).ok()?.parse::<u32>().ok();
            let nearest = number(above.next());
            let target_pid = if above.next() == Some(b"task") { number(above.next()) } else { nearest };
            let how = MemoryHow::ProcMem;
            Some(What::MemoryAccess(MemoryAccess { target_pid: target_pid?, target_start_boot_ns: None, how }))
        }
        _ => None,
    }
}

/// The task part of a header; also the whole of what the task iterator writes.
pub fn task(header: &Header) -> Task {
    let comm_end = header.comm.iter().position(|&byte| byte == 0).unwrap_or(record::COMM_BYTES);
    Task {
        pid: header.pid,
        tid: header.tid,
        ppid: header.ppid,
        uid: header.uid,
        gid: header.gid,
        start_boot_ns: header.start_boot_ns,
        cgroup_id: header.cgroup_id,
        namespaces: Namespaces { mnt: header.mnt_ns, net: header.net_ns, pid: header.pid_ns },
        comm: header.comm[..comm_end].to_vec(),
    }
}

fn protocol(number: u32) -> Option<Protocol> {
    match number {
        IPPROTO_TCP => Some(Protocol::Tcp),
        IPPROTO_UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// v4-mapped addresses leave as v4.
fn address(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    let [a, b, c, d, ..] = bytes;
    match family {
        AF_INET => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()),
        _ => None,
    }
}

/// Zeros are no address yet.
fn source(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    address(family, bytes).filter(|address| !address.is_unspecified())
}

fn denied_by(header: &Header, denied: u32) -> Option<DeniedBy> {
    denied.checked_sub(1).map(|lane| DeniedBy { generation: header.generation, lane })
}

fn connect(header: &Header, connect: &record::Connect) -> Result<Connect, DecodeError> {
    let unknown = || DecodeError::Address(connect.family, connect.protocol);
    Ok(Connect {
        protocol: protocol(connect.protocol).ok_or_else(unknown)?,
        address: address(connect.family, connect.address).ok_or_else(unknown)?,
        port: connect.port,
        source: source(connect.family, connect.source),
        net_ns: net_ns(connect.net),
        how: match connect.how {
            record::CONNECT_DATAGRAM => ConnectHow::Datagram,
            record::CONNECT_INHERITED => ConnectHow::Inherited,
            _ => ConnectHow::Begin,
        },
        denied_by: denied_by(header, connect.denied),
    })
}

fn net_ns(net: record::NetNs) -> NetNs {
    NetNs { inum: net.inum, mix: net.mix }
}

fn dns_message(message: &record::DnsMessage, bytes: &[u8]) -> Result<DnsMessage, DecodeError> {
    let unknown = || DecodeError::Address(message.family, message.protocol);
    let address = address(message.family, message.address).ok_or_else(unknown)?;
    Ok(DnsMessage {
        direction: if message.direction == record::DNS_SENT { Direction::Sent } else { Direction::Received },
        protocol: protocol(message.protocol).ok_or_else(unknown)?,
        server: SocketAddr::new(address, message.port),
        net_ns: net_ns(message.net),
        bytes: bytes.to_vec(),
        total_bytes: message.total_bytes,
    })
}

fn connect_end(end: &record::ConnectEnd) -> Result<ConnectEnd, DecodeError> {
    let unknown = || DecodeError::Address(end.family, end.protocol);
    Ok(ConnectEnd {
        protocol: protocol(end.protocol).ok_or_else(unknown)?,
        address: address(end.family, end.address).ok_or_else(unknown)?,
        port: end.port,
        source: source(end.family, end.source),
        net_ns: net_ns(end.net),
        outcome: Outcome::new(end.established_boot_ns != 0, end.error),
        duration_ns: end.header.boot_ns.saturating_sub(end.begin_boot_ns),
        bytes_sent: end.bytes_sent,
        bytes_received: end.bytes_received,
    })
}

/// Of arguments that were cut, those before the cut: of half a secret, no pattern would know the rest.
fn whole_arguments(arguments: &[u8], cut: bool) -> &[u8] {
    let end = arguments.iter().rposition(|&byte| byte == 0).map_or(0, |at| at + 1);
    if cut { &arguments[..end] } else { arguments }
}

/// NUL-ended components, last first → `/first/…/last`. A name holds neither NUL nor slash, so this loses nothing.
fn assemble(components: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(components.len() + 1);
    let body = components.strip_suffix(&[0]).unwrap_or(components);
    if body.is_empty() {
        return b"/".to_vec();
    }
    for name in body.rsplit(|&byte| byte == 0) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    fn connection(family: u16, protocol: u32, address: [u8; 16]) -> Result<Decoded, DecodeError> {
        let mut record = record::Connect::new_zeroed();
        record.header.kind = record::KIND_CONNECT;
        record.family = family;
        record.protocol = protocol;
        record.port = 443;
        record.address = address;
        decode(record.as_bytes()).map(|(_, decoded)| decoded)
    }

    #[test]
    fn components_come_last_first_and_leave_as_a_path() {
        assert_eq!(assemble(b"x.safetensors\0m\0models\0"), b"/models/m/x.safetensors");
        assert_eq!(assemble(b"new\nline\xff\0"), b"/new\nline\xff");
        assert_eq!(assemble(b""), b"/");
    }

    #[test]
    fn a_v4_mapped_address_is_a_v4_address() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        let Ok(Decoded::Event(Event { what: What::Connect(connect), .. })) = connection(AF_INET6, 6, mapped) else {
            panic!("not a connection")
        };
        assert_eq!(connect.address, "192.0.2.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn what_cannot_be_named_is_an_error() {
        assert_eq!(connection(1, 6, [0; 16]), Err(DecodeError::Address(1, 6)));
        let decode = |bytes: &[u8]| decode(bytes).map(|(_, decoded)| decoded);
        assert_eq!(decode(&[0; 40]), Err(DecodeError::Short(40)));
        assert_eq!(decode(&[0; 96]), Err(DecodeError::Kind(0)));
    }

    #[test]
    fn a_path_longer_than_the_record_is_an_error() {
        let mut open = record::FileOpen::new_zeroed();
        open.header.kind = record::KIND_FILE_OPEN;
        open.path_bytes = 1;
        assert_eq!(decode(open.as_bytes()).err(), Some(DecodeError::Short(160)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, kind in 0u32..16) {
            let mut bytes = bytes;
            if let Some(head) = bytes.get_mut(..4) { head.copy_from_slice(&kind.to_ne_bytes()); }
            let _ = decode(&bytes);
        }
    }
}
