//! The ways to learn the address of a name, gone by a child process: `vm-init act WAY SERVER SERVER6`. The name server is a
//! thread of the suite, on loopback.
#![expect(unsafe_code, reason = "the ways are system calls that no safe library has")]

use std::{
    cell::RefCell,
    fs::File,
    io::{self, IoSlice, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::OnceLock,
    thread,
};

use io_uring::{IoUring, opcode, types};
use plumbline::{
    event::{Event, What},
    identity::{
        Who,
        dns::{Dns, Outcome, resolvers::Resolvers},
        procfs::Procfs,
    },
};

use rustix::net::SendFlags;

use super::tools::{positive, submit};

/// Addresses that no name server of the machine has.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77)), 53);
const SERVER6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 53);

/// The number of the question whose answer is waited for.
const ID: u16 = 0x0909;

/// A name server that says of every name that it is 127.0.0.100, and one more for each letter of its first label. It lives
/// as long as the suite.
#[derive(Debug)]
pub struct NameServer {
    /// Where nothing else has `::1`.
    pub has_v6: bool,
}

impl NameServer {
    /// The one of this process.
    pub fn get() -> Result<&'static Self, String> {
        static SERVER: OnceLock<Result<NameServer, String>> = OnceLock::new();
        SERVER
            .get_or_init(|| Self::start().map_err(|error| format!("no name server here: {error}")))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn start() -> io::Result<Self> {
        let (udp, tcp) = (UdpSocket::bind(SERVER)?, TcpListener::bind(SERVER)?);
        thread::spawn(move || serve(&udp));
        thread::spawn(move || serve_streams(&tcp));
        let udp6 = UdpSocket::bind(SERVER6);
        let has_v6 = udp6.is_ok();
        if let Ok(udp) = udp6 {
            thread::spawn(move || serve(&udp));
        }
        Ok(Self { has_v6 })
    }

    /// What a child that goes the way is told.
    pub fn addresses() -> (String, String) {
        (SERVER.to_string(), SERVER6.to_string())
    }
}

fn serve(socket: &UdpSocket) {
    let mut bytes = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        let answer = answer(&bytes[..length]);
        let _ = if answer[13..].starts_with(PIECES) {
            send_in_pieces(socket, &answer, from)
        } else {
            socket.send_to(&answer, from).map(drop)
        };
    }
}

/// Without copying, the kernel makes a packet of headers, and of pages that have the message.
fn send_in_pieces(socket: &UdpSocket, message: &[u8], to: SocketAddr) -> io::Result<()> {
    let (on, bytes) = (1i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0));
    // SAFETY: an option of four bytes that live through the call.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const on).cast(), bytes)
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = SendFlags::from_bits_retain(libc::MSG_ZEROCOPY.cast_unsigned());
    rustix::net::sendto(socket, message, flags, &to)?;
    Ok(())
}

fn serve_streams(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let _ = read_framed(&mut stream).and_then(|asked| {
            let is_quote = usize::from(asked[12]) == LONGEST_LABEL;
            stream.write_all(&framed(&if is_quote { repeated(&asked) } else { answer(&asked) }))
        });
    }
}

fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    [&length, message].concat()
}

/// RFC 1035, 4.1: a header, and one question for the address of `plumbline.test`.
fn question(id: u16) -> Vec<u8> {
    question_of(id, b"plumbline")
}

fn question_of(id: u16, label: &[u8]) -> Vec<u8> {
    let header = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    let length = [u8::try_from(label.len()).unwrap_or(0)];
    [&header[..], &length, label, b"\x04test\0\0\x01\0\x01"].concat()
}

/// No way to learn a name, but to pretend that one was learned: an honest server repeats what it was asked for.
pub const QUOTE: &str = "quote an answer in a question over TCP, and read it apart";

/// A question for a name whose first label is this, to be repeated as it is.
fn quoting(bytes: &[u8]) -> Vec<u8> {
    let mut label = bytes.to_vec();
    label.resize(LONGEST_LABEL, b'x');
    question_of(!ID, &label)
}

/// RFC 1035, 2.3.4.
const LONGEST_LABEL: usize = 63;

/// What is asked for to be answered by a packet in two pieces.
const PIECES: &[u8] = b"pieces";

/// What is asked for to be answered at length.
const HUGE: &[u8] = b"huge";
const HUGE_BYTES: usize = 9000;

/// The question, and behind it a record of the same name (a pointer to offset 12), of an hour.
fn answer(question: &[u8]) -> Vec<u8> {
    // What is behind the question, as EDNS is, is not repeated.
    let labels = question.iter().skip(12).position(|&byte| byte == 0).unwrap_or(0);
    let mut bytes = question[..question.len().min(12 + labels + 5)].to_vec();
    if let Some(flags) = bytes.get_mut(2..8) {
        flags.copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    }
    if let Some(counts) = bytes.get_mut(8..12) {
        counts.fill(0);
    }
    let letters = bytes.get(12).copied().unwrap_or_default();
    // Of addresses of the sixth version it knows nothing.
    if bytes.ends_with(&[0, 28, 0, 1]) {
        bytes[7] = 0;
        return bytes;
    }
    bytes.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\x7f\0\0");
    bytes.push(100u8.saturating_add(letters));
    if bytes[13..].starts_with(HUGE) {
        bytes.resize(HUGE_BYTES, 0);
    }
    bytes
}

/// The question itself, as an answer that has none.
fn repeated(question: &[u8]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes
}

/// Whether the events so far tell a question of another process than this one, and then its answer.
pub fn is_told() -> impl Fn(&Event) -> bool {
    let dns = RefCell::new(Dns::new(Resolvers::new(Some(vec![SERVER.ip().into(), SERVER6.ip().into()]))));
    move |event| {
        let (What::Dns(message), Some(task)) = (&event.what, &event.task) else { return false };
        if task.pid == std::process::id() {
            return false;
        }
        let outcome = dns.borrow_mut().take(message, task, Who::default(), event.boot_ns, &Procfs::default());
        let is_last = message.bytes.windows(2).take(3).any(|bytes| bytes == ID.to_be_bytes());
        outcome == Outcome::Answer && is_last
    }
}

/// Goes the way; `None` for a way that is not one of these.
pub fn go(way: &str, server: &str, server6: &str) -> Option<io::Result<()>> {
    let address = |text: &str| text.parse::<SocketAddr>().ok();
    let (server, server6) = (address(server)?, address(server6)?);
    Some(match way {
        "ask by sendto and recvfrom" => by_name(server),
        "ask, and be answered with 9000 bytes" => connected(server).and_then(|socket| {
            socket.send(&question_of(ID, HUGE))?;
            let length = socket.recv(&mut vec![0; 2 * HUGE_BYTES])?;
            if length == HUGE_BYTES { Ok(()) } else { Err(io::Error::other(format!("{length} bytes"))) }
        }),
        "ask, and be answered by a packet in two pieces" => connected(server).and_then(|socket| {
            socket.send(&question_of(ID, PIECES))?;
            socket.recv(&mut [0; 512]).map(drop)
        }),
        "ask over IPv6" => by_name(server6),
        "ask, and take the answer without asking who sent it" => UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
            socket.send_to(&question(ID), server)?;
            File::from(OwnedFd::from(socket)).read(&mut [0; 512]).map(drop)
        }),
        "ask over a connected socket" => connected(server).and_then(|socket| {
            socket.send(&question(ID))?;
            socket.recv(&mut [0; 512]).map(drop)
        }),
        "ask by write and read" => connected(server).and_then(|socket| {
            let mut file = File::from(OwnedFd::from(socket));
            file.write_all(&question(ID))?;
            file.read(&mut [0; 512]).map(drop)
        }),
        "ask by sendmsg and recvmsg" => by_message(server),
        "ask two questions by sendmmsg and recvmmsg" => by_messages(server),
        "ask by io_uring" => connected(server).and_then(|socket| by_ring(socket.as_raw_fd(), &question(ID))),
        "ask over TCP by io_uring" => {
            TcpStream::connect(server).and_then(|stream| by_ring(stream.as_raw_fd(), &framed(&question(ID))))
        }
        "ask over TCP" => TcpStream::connect(server).and_then(|mut stream| {
            let asked = question(ID);
            let length = u16::try_from(asked.len()).unwrap_or(0).to_be_bytes();
            let sent = stream.write_vectored(&[IoSlice::new(&length), IoSlice::new(&asked)])?;
            if sent != asked.len() + 2 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            read_framed(&mut stream).map(drop)
        }),
        "ask over TCP, and read the answer in pieces" => TcpStream::connect(server).and_then(|mut stream| {
            stream.write_all(&framed(&question(ID)))?;
            stream.read_exact(&mut [0; 15])?;
            stream.read(&mut [0; 512]).map(drop)
        }),
        QUOTE => connected(server).and_then(|socket| {
            // Asked for, and never answered to whoever would take it.
            socket.send(&question(ID))?;
            let mut stream = TcpStream::connect(server)?;
            stream.write_all(&framed(&quoting(&answer(&question(ID)))))?;
            // The length, the header, and the length of the label.
            stream.read_exact(&mut [0; 2 + 12 + 1])?;
            stream.read_exact(&mut vec![0; answer(&question(ID)).len()])
        }),
        "ask over TCP with one write and one read" => TcpStream::connect(server).and_then(|mut stream| {
            stream.write_all(&framed(&question(ID)))?;
            stream.read(&mut [0; 512]).map(drop)
        }),
        _ => return None,
    })
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    Ok(socket)
}

/// Each datagram names its destination, each is taken with its source.
fn by_name(server: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(if server.is_ipv4() { server.ip() } else { SERVER6.ip() }, 0))?;
    socket.send_to(&question(ID), server)?;
    socket.recv_from(&mut [0; 512]).map(drop)
}

/// A message of one piece.
fn message(vector: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: zeros are an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn by_message(server: SocketAddr) -> io::Result<()> {
    let SocketAddr::V4(to) = server else { return Err(io::ErrorKind::Unsupported.into()) };
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut name = super::out::sockaddr(to);
    let (mut asked, mut answered) = (question(ID), vec![0; 512]);
    for (bytes, is_sent) in [(&mut asked, true), (&mut answered, false)] {
        let mut piece = vector(bytes);
        let mut message = message(&mut piece);
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = super::out::SOCKADDR_BYTES;
        // SAFETY: the message and what it points to outlive the call.
        positive(unsafe {
            if is_sent {
                libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
            } else {
                libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0)
            }
        })?;
    }
    Ok(())
}

/// As resolvers of libc do it: both questions with one call. The second is the one that is waited for.
fn by_messages(server: SocketAddr) -> io::Result<()> {
    let socket = connected(server)?;
    let mut bytes = [question(1), question(ID), vec![0; 512], vec![0; 512]];
    let mut pieces = bytes.each_mut().map(|bytes| vector(bytes));
    let mut messages = pieces.each_mut().map(|piece| libc::mmsghdr { msg_hdr: message(piece), msg_len: 0 });
    let (asked, answered) = messages.split_at_mut(2);
    // SAFETY: the messages and what they point to outlive the calls.
    let (sent, received) = unsafe {
        let sent = libc::sendmmsg(socket.as_raw_fd(), asked.as_mut_ptr(), 2, 0);
        (sent, libc::recvmmsg(socket.as_raw_fd(), answered.as_mut_ptr(), 2, 0, std::ptr::null_mut()))
    };
    if (sent, received) == (2, 2) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn by_ring(socket: RawFd, asked: &[u8]) -> io::Result<()> {
    let (mut ring, mut answered) = (IoUring::new(8)?, [0u8; 512]);
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0);
    let file = types::Fd(socket);
    submit(&mut ring, &opcode::Send::new(file, asked.as_ptr(), length(asked)).build())?;
    submit(&mut ring, &opcode::Recv::new(file, answered.as_mut_ptr(), length(&answered)).build()).map(drop)
}
