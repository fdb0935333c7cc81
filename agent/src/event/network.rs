//! What leaves the node.

use std::net::{IpAddr, SocketAddr};

use super::{DeniedBy, NetNs};

/// A process set out to connect, or to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    pub protocol: Protocol,
    /// v4-mapped v6 addresses are given as v4.
    pub address: IpAddr,
    pub port: u16,
    pub how: ConnectHow,
    /// The node's own address, where it was known already.
    pub source: Option<IpAddr>,
    pub net_ns: NetNs,
    /// Not done after all.
    pub denied_by: Option<DeniedBy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectHow {
    /// A TCP connection begins, or a UDP socket is connected.
    Begin,
    /// Datagrams that each name their destination.
    Datagram,
    /// Over a connection that another process began: the socket was inherited, or passed.
    Inherited,
}

impl ConnectHow {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Datagram => "datagram",
            Self::Inherited => "inherited",
        }
    }
}

/// A TCP connection ended, or did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectEnd {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    pub outcome: Outcome,
    /// The node's own address.
    pub source: Option<IpAddr>,
    pub net_ns: NetNs,
    /// From the begin to this moment.
    pub duration_ns: u64,
    /// Retransmissions not counted.
    pub bytes_sent: u64,
    /// The end of the stream may count as one.
    pub bytes_received: u64,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It stood, and ended in order.
    Closed,
    /// It stood, and broke with this errno.
    Broken(u32),
    Refused,
    TimedOut,
    /// It never stood, for this errno; 0 where the process gave up.
    Failed(u32),
}

/// include/uapi/asm-generic/errno.h
const ECONNREFUSED: u32 = 111;
const ETIMEDOUT: u32 = 110;

impl Outcome {
    pub fn new(was_established: bool, error: u32) -> Self {
        match (was_established, error) {
            (true, 0) => Self::Closed,
            (true, error) => Self::Broken(error),
            (false, ECONNREFUSED) => Self::Refused,
            (false, ETIMEDOUT) => Self::TimedOut,
            (false, error) => Self::Failed(error),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Failed(_) => "failed",
        }
    }
}

/// A process connected to a local socket (`AF_UNIX`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalConnect {
    /// As the server bound it; an abstract one begins with a NUL.
    pub name: Vec<u8>,
    /// Who listens, in the initial pid namespace.
    pub server_pid: Option<u32>,
}

/// A message of the domain name system, to or from the port 53 of a server. Bytes of a stranger, not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsMessage {
    pub direction: Direction,
    pub protocol: Protocol,
    pub server: SocketAddr,
    pub net_ns: NetNs,
    /// Over TCP they may begin with the length of the message, or be a part of one.
    pub bytes: Vec<u8>,
    /// How long the message is; more than `bytes` where it was cut.
    pub total_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

/// A socket was made whose traffic no hook sees; the numbers are those of `socket(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOpen {
    pub family: u32,
    pub kind: u32,
    pub protocol: u32,
}

impl SocketOpen {
    /// As `socket(2)` is called: `AF_PACKET`, or the number.
    pub fn family_name(self) -> String {
        let known = match self.family {
            2 => "AF_INET",
            10 => "AF_INET6",
            17 => "AF_PACKET",
            21 => "AF_RDS",
            30 => "AF_TIPC",
            40 => "AF_VSOCK",
            43 => "AF_SMC",
            44 => "AF_XDP",
            number => return format!("AF_{number}"),
        };
        known.to_owned()
    }

    pub fn kind_name(self) -> String {
        match self.kind {
            1 => "SOCK_STREAM".to_owned(),
            2 => "SOCK_DGRAM".to_owned(),
            3 => "SOCK_RAW".to_owned(),
            5 => "SOCK_SEQPACKET".to_owned(),
            number => format!("SOCK_{number}"),
        }
    }
}
