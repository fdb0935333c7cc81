//! The canary: the daemon does itself what the hooks are to see, and looks whether they saw it, and rightly.
//!
//! At start it is the self-test: what the programs read of the daemon is compared with what `/proc` and `fstat` say, so that
//! a wrong offset is found before it makes evidence. Later it finds a program that was detached or fell silent. What the
//! canary opens, reads and connects to is swallowed by the sensor and makes no records; the process that it starts is one like
//! any other, recorded where the configuration asks for processes.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use plumbline_ebpf::{
    program,
    record::{DNS_PORT, Reads},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::watch::touch_first_page;
use crate::{
    event::{Change, Direction, DnsMessage, Event, FileKey, FileOpen, Task, What},
    identity::procfs::{Processes as _, Procfs},
};

/// How often the canary sings. Two misses in a row are a finding, so one takes at most 25 s, unless
/// records of the very program are lost meanwhile.
pub const EVERY: Duration = Duration::from_secs(10);

/// How long the programs may take to tell; they take milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// The canary's file, in the state directory.
pub const FILE_NAME: &str = "canary";

/// One page: enough to read, to map and to change.
const FILE_BYTES: usize = 4096;

/// What is said to be watched above the canary's file; no inode has this number.
pub const NO_DIRECTORY: FileKey = FileKey { dev: 0, ino: 0, generation: 0 };

/// The hooks that can be proven this way, as bits `1 << program`.
pub const PROVABLE: u32 = 1 << program::FILE_OPEN
    | 1 << program::FILE_READ
    | 1 << program::FILE_FAULT
    | 1 << program::FILE_CLOSE
    | 1 << program::FILE_CHANGE
    | 1 << program::FILE_NAME
    | 1 << program::TCP_CONNECT
    | 1 << program::UDP_CONNECT
    | 1 << program::SOCKET_OPEN
    | 1 << program::DNS
    | 1 << program::FORK
    | 1 << program::EXEC
    | 1 << program::EXIT;

/// Where the canary asks for a name: an address of this machine (RFC 1122, 3.2.1.3 g), at which it answers itself. Where it
/// may not listen there, who listens at port 53 of all addresses is asked for a name that nobody has.
const NAME_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 99, 97, 110)), DNS_PORT);

/// The question for the address of `canary.invalid`, a name that no one has (RFC 1035, 4.1; RFC 6761, 6.4).
const QUESTION: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x06canary\x07invalid\0\0\x01\0\x01";

/// `AF_INET` and `SOCK_RAW`.
const RAW_SOCKET: (u32, u32) = (2, 3);

/// The same with the bit that says that it is an answer; it names nothing.
const ANSWER: &[u8] = b"\0\0\x81\0\0\x01\0\0\0\0\0\0\x06canary\x07invalid\0\0\x01\0\x01";

/// How long it waits for its own datagram.
const DATAGRAM_PATIENCE: Duration = Duration::from_millis(200);

/// What was told of its question and its answer.
const ASKED: u32 = 1;
const ANSWERED: u32 = 2;

/// What was seen of the canary: written by the sensor as it drains the rings.
#[derive(Debug, Default)]
pub struct Proof {
    seen: AtomicU32,
    /// [`ASKED`] and [`ANSWERED`], and those of them that are to be told.
    names: AtomicU32,
    names_expected: AtomicU32,
    target: Mutex<Option<Target>>,
    wrong: Mutex<BTreeMap<u32, String>>,
}

/// What the canary's own events are known by.
#[derive(Debug, Clone)]
struct Target {
    file: FileKey,
    path: PathBuf,
    tcp: SocketAddr,
    udp: SocketAddr,
    meta: Metadata,
    /// Its file system is one of [`HONEST`].
    honest: bool,
}

impl Proof {
    /// Whether the event is the canary's own and makes no record.
    pub fn takes(&self, event: &Event) -> bool {
        let Some(task) = &event.task else { return false };
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = &*target else { return false };
        let own = task.pid == std::process::id();
        match &event.what {
            What::FileOpen(open) if own && same_file(open.key, target.file) => {
                self.judge(program::FILE_OPEN, compare_open(open, target).and_then(|()| compare_task(task)));
                true
            }
            What::FileChange(change) if own && same_file(change.key, target.file) => {
                match change.how {
                    Change::Truncate => self.mark(program::FILE_CHANGE),
                    Change::Rename => self.mark(program::FILE_NAME),
                    _ => {}
                }
                true
            }
            What::Connect(connect) if own => {
                let to = SocketAddr::new(connect.address, connect.port);
                let number = if to == target.tcp {
                    program::TCP_CONNECT
                } else if to == target.udp {
                    program::UDP_CONNECT
                } else {
                    // That it sends there is told once a minute only, so it proves nothing.
                    return to == NAME_SERVER;
                };
                self.judge(number, compare_task(task));
                true
            }
            What::SocketOpen(socket) if own && (socket.family, socket.kind) == RAW_SOCKET => {
                self.mark(program::SOCKET_OPEN);
                true
            }
            What::Dns(message) if own && message.server == NAME_SERVER => {
                let told = if message.direction == Direction::Sent { ASKED } else { ANSWERED };
                let told = self.names.fetch_or(told, Ordering::Relaxed) | told;
                let compared = compare_message(message).and_then(|()| compare_task(task));
                let expected = self.names_expected.load(Ordering::Relaxed);
                if compared.is_err() || told & expected == expected {
                    self.judge(program::DNS, compared);
                }
                true
            }
            What::ConnectEnd(end) if own => SocketAddr::new(end.address, end.port) == target.tcp,
            // Other children of the daemon, there are none, would prove as much. Records of processes stay.
            What::Fork(_) if own => {
                self.mark(program::FORK);
                false
            }
            What::Exec(_) if task.ppid == std::process::id() => {
                self.mark(program::EXEC);
                false
            }
            What::Exit(_) if task.ppid == std::process::id() => {
                self.mark(program::EXIT);
                false
            }
            _ => false,
        }
    }

    /// Whether this entry of the table of reads is the canary's own.
    pub fn takes_reads(&self, pid: u32, file: FileKey, reads: &Reads) -> bool {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let own = pid == std::process::id() && target.as_ref().is_some_and(|target| same_file(file, target.file));
        if own {
            if reads.bytes_read > 0 && reads.bytes_written > 0 {
                self.mark(program::FILE_READ);
            }
            if reads.bytes_faulted > 0 {
                self.mark(program::FILE_FAULT);
            }
        }
        own
    }

    /// The canary's file was let go.
    pub fn takes_close(&self, pid: u32, file: FileKey) {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if pid == std::process::id() && target.as_ref().is_some_and(|target| same_file(file, target.file)) {
            self.mark(program::FILE_CLOSE);
        }
    }

    fn mark(&self, number: u32) {
        self.seen.fetch_or(1 << number, Ordering::Relaxed);
    }

    fn judge(&self, number: u32, compared: Result<(), String>) {
        self.mark(number);
        if let Err(why) = compared {
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).insert(number, why);
        }
    }
}

/// What one round found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Programs that did not tell, as bits.
    pub silent: u32,
    /// Programs that told something that is not so.
    pub wrong: BTreeMap<u32, String>,
}

/// The canary itself.
#[derive(Debug)]
pub struct Canary {
    file: File,
    path: PathBuf,
    tcp: TcpListener,
    udp: UdpSocket,
    /// At [`NAME_SERVER`], where it may listen there.
    name_server: Option<UdpSocket>,
    proof: Arc<Proof>,
}

impl Canary {
    /// Makes its file in `directory`, and its sockets on the loopback address.
    pub fn new(directory: &Path, proof: Arc<Proof>) -> io::Result<Self> {
        let path = directory.join(FILE_NAME);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&[0; FILE_BYTES])?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        tcp.set_nonblocking(true)?;
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let name_server = UdpSocket::bind(NAME_SERVER).ok();
        if let Some(server) = &name_server {
            server.set_read_timeout(Some(DATAGRAM_PATIENCE))?;
        }
        Ok(Self { file, path: fs::canonicalize(path)?, tcp, udp, name_server, proof })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file is enrolled with this key.
    pub fn enrolled(&self, file: FileKey) -> io::Result<()> {
        let target = Target {
            file,
            path: self.path.clone(),
            tcp: self.tcp.local_addr()?,
            udp: self.udp.local_addr()?,
            meta: self.file.metadata()?,
            honest: rustix::fs::fstatfs(&self.file).is_ok_and(|fs| HONEST.contains(&fs.f_type)),
        };
        *self.proof.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
        Ok(())
    }

    /// What `fstat` says now: modes and links may have changed in order.
    fn refresh(&self) -> io::Result<()> {
        let mut target = self.proof.target.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = &mut *target {
            target.meta = self.file.metadata()?;
        }
        Ok(())
    }

    /// Does everything once and waits until each program of `expected` has told, or for [`PATIENCE`].
    pub fn sing(&self, expected: u32) -> io::Result<Finding> {
        self.proof.seen.store(0, Ordering::Relaxed);
        self.proof.wrong.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let untried = self.act(expected)?;
        let deadline = Instant::now() + PATIENCE;
        let silent = loop {
            let silent = expected & PROVABLE & !untried & !self.proof.seen.load(Ordering::Relaxed);
            if silent == 0 || Instant::now() > deadline {
                break silent;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let wrong = self.proof.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Finding { silent, wrong })
    }

    /// The programs that it could not try, as bits.
    fn act(&self, expected: u32) -> io::Result<u32> {
        let moved = self.path.with_extension("moved");
        // A round that ended between its two renames.
        if moved.exists() && !self.path.exists() {
            fs::rename(&moved, &self.path)?;
        }
        self.refresh()?;
        if expected & 1 << program::FILE_NAME != 0 {
            fs::rename(&self.path, &moved)?;
            fs::rename(&moved, &self.path)?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        file.read_exact(&mut [0])?;
        file.write_all(&[0])?;
        file.set_len(u64::try_from(FILE_BYTES).unwrap_or(0))?;
        touch_first_page(&file);
        drop(file);

        TcpStream::connect_timeout(&self.tcp.local_addr()?, PATIENCE)?;
        // Whoever else connects is let go with ours: nobody can fill the backlog for long.
        while self.tcp.accept().is_ok() {}
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.connect(self.udp.local_addr()?)?;
        // What is refused, by a filter of packets or for want of CAP_NET_RAW, proves nothing against the hook.
        let mut untried = 0;
        if self.ask_for_a_name().is_err() {
            untried |= 1 << program::DNS;
        }
        let flags = SocketFlags::CLOEXEC;
        if socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP)).is_err() {
            untried |= 1 << program::SOCKET_OPEN;
        }

        // This very program, which ends at once.
        let mut child = Command::new("/proc/self/exe");
        child.arg("canary").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        Ok(untried)
    }
}

impl Canary {
    /// Asks, and is answered by itself.
    fn ask_for_a_name(&self) -> io::Result<()> {
        let asking = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        asking.set_read_timeout(Some(DATAGRAM_PATIENCE))?;
        let expected = if self.name_server.is_some() { ASKED | ANSWERED } else { ASKED };
        self.proof.names_expected.store(expected, Ordering::Relaxed);
        self.proof.names.store(0, Ordering::Relaxed);
        asking.send_to(QUESTION, NAME_SERVER)?;
        if let Some(server) = &self.name_server {
            // Who else asks here is not answered.
            while server.recv_from(&mut [0; QUESTION.len()])?.1 != asking.local_addr()? {}
            server.send_to(ANSWER, asking.local_addr()?)?;
            asking.recv_from(&mut [0; ANSWER.len()])?;
        }
        Ok(())
    }
}

fn same_file(one: FileKey, other: FileKey) -> bool {
    (one.dev, one.ino) == (other.dev, other.ino)
}

/// File systems whose `stat` gives the numbers of the kernel's own inode (include/uapi/linux/magic.h): ext4, xfs, tmpfs.
const HONEST: [i64; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

/// The fields of the open against what `fstat` said. The file is not opened here: that would be told in turn, for ever.
fn compare_open(open: &FileOpen, target: &Target) -> Result<(), String> {
    let Target { meta, honest, path, .. } = target;
    if *honest {
        let dev = u64::from(rustix::fs::major(meta.dev())) << 20 | u64::from(rustix::fs::minor(meta.dev()));
        same("inode", open.key.ino, meta.ino())?;
        same("device", u64::from(open.key.dev), dev)?;
        same("links", u64::from(open.links), meta.nlink())?;
    }
    same("size", open.size_bytes, u64::try_from(FILE_BYTES).unwrap_or(0))?;
    same("mode", u64::from(open.inode_mode), u64::from(meta.mode()))?;
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    // In another mount namespace the directories may be spelled otherwise.
    if open.path.rsplit(|&byte| byte == b'/').next() != Some(name) {
        return Err(format!("the path is told as {}", String::from_utf8_lossy(&open.path)));
    }
    Ok(())
}

fn compare_message(message: &DnsMessage) -> Result<(), String> {
    let is = if message.direction == Direction::Sent { QUESTION } else { ANSWER };
    same("length of the message", u64::from(message.total_bytes), u64::try_from(is.len()).unwrap_or(0))?;
    if message.bytes == is { Ok(()) } else { Err("the message is told with other bytes".to_owned()) }
}

/// The task against what `/proc` says of this process.
fn compare_task(task: &Task) -> Result<(), String> {
    if Procfs::default().look(task.pid, task.start_boot_ns).is_none() {
        return Err(format!("the start of the process is told as {} ns", task.start_boot_ns));
    }
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    // A parent that ended meanwhile makes another one's child of us, on both sides.
    same("uid", u64::from(task.uid), u64::from(rustix::process::getuid().as_raw()))?;
    same("gid", u64::from(task.gid), u64::from(rustix::process::getgid().as_raw()))?;
    if parent != 0 {
        same("parent", u64::from(task.ppid), u64::from(parent))?;
    }
    for (name, told) in [("mnt", task.namespaces.mnt), ("net", task.namespaces.net), ("pid", task.namespaces.pid)] {
        let meta = fs::metadata(format!("/proc/self/ns/{name}")).map_err(|error| error.to_string())?;
        same(&format!("{name} namespace"), u64::from(told), meta.ino())?;
    }
    Ok(())
}

fn same(what: &str, told: u64, is: u64) -> Result<(), String> {
    if told == is { Ok(()) } else { Err(format!("the {what} is told as {told}, and is {is}")) }
}

#[cfg(test)]
mod tests;
