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
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

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

/// Where the canary asks for a name: an address of this machine (RFC 1122, 3.2.1.3 g) that nobody answers at, as a rule.
const NAME_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 99, 97, 110)), DNS_PORT);

/// The question for the address of `canary.invalid`, a name that no one has (RFC 1035, 4.1; RFC 6761, 6.4).
const QUESTION: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x06canary\x07invalid\0\0\x01\0\x01";

/// `AF_INET` and `SOCK_RAW`.
const RAW_SOCKET: (u32, u32) = (2, 3);

/// What was seen of the canary: written by the sensor as it drains the rings.
#[derive(Debug, Default)]
pub struct Proof {
    seen: AtomicU32,
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
                self.judge(program::DNS, compare_question(message).and_then(|()| compare_task(task)));
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
        Ok(Self { file, path: fs::canonicalize(path)?, tcp, udp: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, proof })
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
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(QUESTION, NAME_SERVER)?;
        // It takes a capability (CAP_NET_RAW) that nothing else here does.
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP));
        let untried = if raw.is_ok() { 0 } else { 1 << program::SOCKET_OPEN };

        // This very program, which ends at once.
        let mut child = Command::new("/proc/self/exe");
        child.arg("canary").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        Ok(untried)
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

fn compare_question(message: &DnsMessage) -> Result<(), String> {
    same("direction", u64::from(message.direction == Direction::Received), 0)?;
    same("length of the message", u64::from(message.total_bytes), u64::try_from(QUESTION.len()).unwrap_or(0))?;
    if message.bytes == QUESTION { Ok(()) } else { Err("the message is told with other bytes".to_owned()) }
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
mod tests {
    use super::*;
    use crate::event::Namespaces;

    /// This process as the kernel programs would tell of it.
    fn own_task() -> Task {
        let namespace = |name: &str| {
            let meta = fs::metadata(format!("/proc/self/ns/{name}")).unwrap();
            u32::try_from(meta.ino()).unwrap()
        };
        let pid = std::process::id();
        Task {
            pid,
            tid: pid,
            ppid: rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            start_boot_ns: Procfs::default().look(pid, 0).unwrap().start_boot_ns,
            namespaces: Namespaces { mnt: namespace("mnt"), net: namespace("net"), pid: namespace("pid") },
            ..Task::default()
        }
    }

    /// What the programs tell of the canary's open, changed by `lie`, and what is found wrong with it.
    #[track_caller]
    fn check(lie: impl FnOnce(&mut FileOpen, &mut Task), expect: Option<&str>) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("plumbline-canary-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let proof = Arc::new(Proof::default());
        let canary = Canary::new(&directory, Arc::clone(&proof)).unwrap();
        let meta = fs::metadata(canary.path()).unwrap();
        let dev = rustix::fs::major(meta.dev()) << 20 | rustix::fs::minor(meta.dev());
        let key = FileKey { dev, ino: meta.ino(), generation: 0 };
        canary.enrolled(key).unwrap();
        let mut open = FileOpen {
            path: canary.path().as_os_str().as_encoded_bytes().to_vec(),
            path_truncated: false,
            known_as: None,
            key,
            watched: NO_DIRECTORY,
            flags: 0,
            inode_mode: meta.mode(),
            size_bytes: meta.len(),
            links: 1,
            received: false,
        };
        let mut task = own_task();
        lie(&mut open, &mut task);
        let event = Event { boot_ns: 1, origin: None, task: Some(task), what: What::FileOpen(open) };
        assert!(proof.takes(&event), "the canary's own event makes no record");
        let wrong = proof.wrong.lock().unwrap().get(&program::FILE_OPEN).cloned();
        assert_eq!(wrong.as_deref(), expect);
        assert_eq!(proof.seen.load(Ordering::Relaxed), 1 << program::FILE_OPEN);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn its_own_question_is_compared_and_makes_no_record() {
        let (proof, directory) = (Arc::new(Proof::default()), tempfile::tempdir().unwrap());
        let canary = Canary::new(directory.path(), Arc::clone(&proof)).unwrap();
        canary.enrolled(NO_DIRECTORY).unwrap();
        let told = |server, bytes: &[u8]| {
            let what = What::Dns(DnsMessage {
                direction: Direction::Sent,
                protocol: crate::event::Protocol::Udp,
                server,
                net_ns: crate::event::NetNs::default(),
                bytes: bytes.to_vec(),
                total_bytes: u32::try_from(bytes.len()).unwrap(),
            });
            proof.takes(&Event { boot_ns: 1, origin: None, task: Some(own_task()), what })
        };
        let wrong = || proof.wrong.lock().unwrap().get(&program::DNS).cloned();
        assert!(
            !told(SocketAddr::from(([127, 0, 0, 53], DNS_PORT)), QUESTION),
            "this daemon's resolver is not the canary"
        );
        assert!(told(NAME_SERVER, QUESTION) && wrong().is_none());
        assert!(told(NAME_SERVER, &QUESTION[1..]));
        assert_eq!(wrong().as_deref(), Some("the length of the message is told as 31, and is 32"));
    }

    #[test]
    fn what_is_told_rightly_is_not_wrong() {
        check(|_, _| {}, None);
    }

    #[test]
    fn a_field_that_is_told_wrongly_is_named_with_both_values() {
        check(|open, _| open.size_bytes = 7, Some("the size is told as 7, and is 4096"));
        check(|open, _| open.inode_mode = 0, Some("the mode is told as 0, and is 33152"));
        check(|open, _| open.path = b"/canary/x".to_vec(), Some("the path is told as /canary/x"));
        check(
            |_, task| task.uid = u32::MAX,
            Some(&format!("the uid is told as {}, and is {}", u32::MAX, own_task().uid)),
        );
        check(|_, task| task.start_boot_ns = 1, Some("the start of the process is told as 1 ns"));
    }
}
