//! The ways out of the node, gone by a child process: `vm-init act WAY TCP-ADDRESS UDP-ADDRESS`. Everything stays on loopback.
#![expect(unsafe_code, reason = "the ways are system calls that no safe library has")]

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            self,
            net::{UnixListener, UnixStream},
        },
    },
    process::Command,
};

use io_uring::{IoUring, opcode, types};

use super::tools::{descriptor, pass, positive, standard_input, submit};

/// Goes the way; `None` for a way that is not one of these.
pub fn go(way: &str, tcp: &str, udp: &str) -> Option<io::Result<()>> {
    let address = |text: &str| text.parse::<SocketAddrV4>().ok();
    let (tcp, udp) = (address(tcp)?, address(udp)?);
    Some(match way {
        "connect by TCP" => TcpStream::connect(tcp).map(drop),
        "connect by TCP to an IPv4 address in IPv6 clothes" => {
            let clothed = SocketAddr::new(tcp.ip().to_ipv6_mapped().into(), tcp.port());
            TcpStream::connect(clothed).map(drop)
        }
        "connect by TCP and be refused" => refused(),
        "connect by TCP Fast Open" => fast_open(tcp),
        "connect by MPTCP" => mptcp(tcp),
        "connect by TCP through io_uring" => by_ring(tcp),
        "connect by TCP in another network namespace" => elsewhere(),
        "connect a UDP socket" => UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.connect(udp)),
        "send datagrams without connecting" => {
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", udp)).map(drop)
        }
        "send datagrams by io_uring" => datagram_by_ring(udp),
        "send over an inherited TCP connection" => inherited(tcp),
        "send over a TCP connection that was received over a socket" => passed(tcp),
        "connect to a local socket (AF_UNIX)" => local(b"", |name| UnixStream::connect_addr(name).map(drop)),
        "connect to an abstract local socket" => local(b"plumbline", |name| UnixStream::connect_addr(name).map(drop)),
        "connect to a local socket by io_uring" => local(b"", local_by_ring),
        "make a raw socket" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP),
        "make a packet socket" => socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
        "make an ICMP socket" => socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        "make an SCTP socket" => socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        "make a vsock socket" => socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        "make a raw socket by io_uring" => raw_by_ring(),
        "write to standard input" => standard_input().and_then(|mut socket| socket.write_all(b"x")),
        _ => return None,
    })
}

fn refused() -> io::Result<()> {
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    match TcpStream::connect(closed) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(io::Error::other(format!("not refused: {other:?}"))),
    }
}

pub fn sockaddr(to: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: 2,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// On an IPv4 socket Linux takes a name whose family is left out for an IPv4 one (net/ipv4/udp.c, `udp_sendmsg`).
pub fn datagram_without_family(to: SocketAddr) -> io::Result<()> {
    let SocketAddr::V4(to) = to else { return Err(io::ErrorKind::Unsupported.into()) };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut name = sockaddr(to);
    name.sin_family = 0;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).map_err(io::Error::other)?;
    // SAFETY: one readable byte, and a name of the length that is given.
    let sent =
        unsafe { libc::sendto(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, 0, (&raw const name).cast(), length) };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub const SOCKADDR_BYTES: u32 = 16;

fn make(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    descriptor(unsafe { libc::socket(family, kind, protocol) }.into())
}

/// A protocol that the machine lacks is no failure of ours.
fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<()> {
    make(family, kind, protocol).map(drop).map_err(|error| match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ESOCKTNOSUPPORT | libc::EACCES) => {
            io::Error::new(io::ErrorKind::Unsupported, "no such protocol here")
        }
        _ => error,
    })
}

fn fast_open(to: SocketAddrV4) -> io::Result<()> {
    let socket = make(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let name = sockaddr(to);
    // SAFETY: the name outlives the call.
    positive(unsafe {
        let name = (&raw const name).cast();
        libc::sendto(socket.as_raw_fd(), c"x".as_ptr().cast(), 1, libc::MSG_FASTOPEN, name, SOCKADDR_BYTES)
    })
    .map(drop)
}

fn connect(socket: &OwnedFd, to: SocketAddrV4) -> io::Result<()> {
    let name = sockaddr(to);
    // SAFETY: the name outlives the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), SOCKADDR_BYTES) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn mptcp(to: SocketAddrV4) -> io::Result<()> {
    const IPPROTO_MPTCP: i32 = 262;
    let socket = make(libc::AF_INET, libc::SOCK_STREAM, IPPROTO_MPTCP)
        .map_err(|_| io::Error::new(io::ErrorKind::Unsupported, "no MPTCP here"))?;
    connect(&socket, to)
}

fn by_ring(to: SocketAddrV4) -> io::Result<()> {
    let socket = make(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let name = sockaddr(to);
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), (&raw const name).cast(), SOCKADDR_BYTES).build();
    submit(&mut IoUring::new(8)?, &entry).map(drop)
}

fn datagram_by_ring(to: SocketAddrV4) -> io::Result<()> {
    let socket = make(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut name = sockaddr(to);
    let mut byte = *b"x";
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: zeros are an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = SOCKADDR_BYTES;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    let entry = opcode::SendMsg::new(types::Fd(socket.as_raw_fd()), &raw const message).build();
    submit(&mut IoUring::new(8)?, &entry).map(drop)
}

/// A server of this process, by an abstract name or by a path, and what connects to it.
fn local(name: &[u8], connect: impl FnOnce(&unix::net::SocketAddr) -> io::Result<()>) -> io::Result<()> {
    let directory = std::env::temp_dir().join(format!("plumbline-local-{}", std::process::id()));
    let address = if name.is_empty() {
        unix::net::SocketAddr::from_pathname(&directory)?
    } else {
        unix::net::SocketAddr::from_abstract_name([name, std::process::id().to_string().as_bytes()].concat())?
    };
    let server = UnixListener::bind_addr(&address)?;
    let connected = connect(&address);
    drop(server);
    let _ = std::fs::remove_file(&directory);
    connected
}

fn local_by_ring(to: &unix::net::SocketAddr) -> io::Result<()> {
    let path = to.as_pathname().map(|path| path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let socket = make(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
    // SAFETY: zeros are an empty name.
    let mut name: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    name.sun_family = u16::try_from(libc::AF_UNIX).unwrap_or(0);
    for (to, from) in name.sun_path.iter_mut().zip(path) {
        *to = from.cast_signed();
    }
    let bytes = u32::try_from(size_of::<libc::sockaddr_un>()).unwrap_or(0);
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), (&raw const name).cast(), bytes).build();
    submit(&mut IoUring::new(8)?, &entry).map(drop)
}

fn raw_by_ring() -> io::Result<()> {
    let entry = opcode::Socket::new(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP).build();
    submit(&mut IoUring::new(8)?, &entry).map(drop).map_err(|error| match error.kind() {
        // Before 5.19.
        io::ErrorKind::InvalidInput => io::ErrorKind::Unsupported.into(),
        _ => error,
    })
}

/// In a network namespace of its own, whose loopback is down: the attempt fails, and is told all the same.
fn elsewhere() -> io::Result<()> {
    super::tools::own_network()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    TcpStream::connect(listener.local_addr()?).map(drop)
}

/// The child connects, its child sends.
fn inherited(to: SocketAddrV4) -> io::Result<()> {
    let stream = TcpStream::connect(to)?;
    let mut heir = Command::new(std::env::current_exe()?);
    heir.args(["act", "write to standard input", "127.0.0.1:1", "127.0.0.1:1"]).stdin(OwnedFd::from(stream));
    if heir.status()?.success() { Ok(()) } else { Err(io::Error::other("the heir failed")) }
}

fn passed(to: SocketAddrV4) -> io::Result<()> {
    let mut stream = std::fs::File::from(pass("connect and send", &to.to_string())?);
    stream.write_all(b"x")
}
