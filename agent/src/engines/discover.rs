//! Which processes of this node are engines, and where they listen.
//!
//! A process is told by its command line (`dialect::Process`), its sockets by `/proc/PID/fd` and the listening ones
//! by `/proc/net/tcp` and `tcp6` (layout: `Documentation/networking/proc_net_tcp.rst`). An engine also listens where
//! its own parts meet, and bytes of ours could disturb that: only the port that the command line names (or the
//! engine's default) is a candidate, or the single port where there is just one. A candidate is an engine only once
//! a dialect recognises its page; that is the caller's part.
//!
//! An engine in another network namespace, as in a pod, is looked up in the tables of that namespace (`/proc/PID/net`) and asked
//! from within it. What it is called comes from who may not be deceived by it: the kubelet's directories, its
//! cgroup, the kernel; not from its own files.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::access::{Access, MetricsUrl, Way, Within};
use super::dialect::{Command, DIALECTS, Dialect, Process};
use crate::identity::{
    cgroup::Cgroup,
    pod::{Page, Pod},
};
use crate::netns::Network;

/// Engines of one node, found or not; what is beyond is not looked at.
const MAX_CANDIDATES: usize = 256;

/// Of one network namespace other than ours: who makes many takes no room from others.
const MAX_OF_NETWORK: usize = 16;

const MOST_COMMAND_LINE: u64 = 64 * 1024;

/// Letters of a pod's name that stand in an engine's.
const MAX_PLACE: usize = 80;

/// Digits of a container's id that tell it from others, as the runtimes' own tools show it.
const CONTAINER_DIGITS: usize = 12;

/// What a look around found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub candidates: Vec<Candidate>,
    /// Engine processes whose network namespace we may not see.
    pub hidden: Vec<u32>,
    /// Engine processes beyond what is looked at.
    pub left_out: usize,
    /// Uids of pods that they are in.
    pub pods: BTreeSet<String>,
}

/// A process that looks like an engine, and the address where its page should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// `None` where only a pod's annotations tell of it.
    pub pid: Option<u32>,
    /// `None`: whichever recognises the page.
    pub dialect: Option<&'static Dialect>,
    pub access: Access,
    /// What the command line calls the model.
    pub model: Option<String>,
    /// Where it is, if that is another network namespace: its pod, its container.
    pub place: Option<String>,
    /// Its port, or its socket's name.
    pub at: String,
}

impl Candidate {
    /// What to call it: `vllm-8000`, and in another network namespace `POD.vllm-8000`.
    pub fn name(&self, dialect: &Dialect) -> String {
        let short = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        let place = self.place.as_ref().map(|place| short(place, MAX_PLACE) + ".").unwrap_or_default();
        let name = format!("{place}{}-{}", dialect.name, short(&self.at, MAX_PLACE / 4));
        name.replace(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)), "-")
    }

    /// Where pods say that their metrics are. A pod in which engines were found needs not to say so, and one that says so need not be an
    /// engine.
    pub fn annotated(pages: &[Page], found: &Found) -> Vec<Self> {
        let is_new = |page: &&Page| !found.pods.contains(&page.pod_uid);
        let candidate = |page: &Page| {
            let access = Access::plain(MetricsUrl::try_from(page.url.clone()).ok()?);
            let (place, at) = (Some(page.pod.clone()), page.port.to_string());
            Some(Self { pid: None, dialect: None, access, model: None, place, at })
        };
        pages.iter().filter(is_new).filter_map(candidate).take(MAX_CANDIDATES).collect()
    }
}

/// Looks at every process under `proc`, normally `/proc`; `logs` is where the kubelet names pods. What cannot be read is
/// passed over: processes end, and without privileges other users' descriptors are closed to us.
pub fn look(proc: &Path, logs: &Path) -> Found {
    let mut found = Found::default();
    let own_network = network(&proc.join("self"));
    let mut listening: BTreeMap<u64, BTreeMap<u64, SocketAddr>> = BTreeMap::new();
    let mut networks: BTreeMap<u64, usize> = BTreeMap::new();
    let mut known = HashSet::new();
    for pid in processes(proc) {
        let folder = proc.join(pid.to_string());
        let Ok(command_line) = read_head(&folder.join("cmdline")) else { continue };
        let arguments = arguments(&command_line);
        let Some(dialect) = DIALECTS.iter().copied().find(|dialect| is_run_by(&dialect.process, &arguments)) else {
            continue;
        };
        let Some(inode) = network(&folder) else {
            found.hidden.push(pid);
            continue;
        };
        let is_own = Some(inode) == own_network;
        let of_network = networks.entry(inode).or_default();
        if found.candidates.len() >= MAX_CANDIDATES || (!is_own && *of_network >= MAX_OF_NETWORK) {
            found.left_out += 1;
            continue;
        }
        let process = &dialect.process;
        let (access, at) = if let Some(path) = socket_path(process, &arguments) {
            let Some(access) = over_unix(&folder, path, process.path) else { continue };
            (access, path.rsplit('/').next().unwrap_or_default().trim_end_matches(".sock").to_owned())
        } else {
            let listening = listening.entry(inode).or_insert_with(|| listening_sockets(&folder));
            let addresses: Vec<SocketAddr> =
                sockets(&folder).iter().filter_map(|inode| listening.get(inode).copied()).collect();
            let Some(address) = page_address(process, &arguments, &addresses).map(reachable) else { continue };
            let Ok(url) = MetricsUrl::try_from(format!("http://{address}{}", process.path)) else { continue };
            let network = Network { path: folder.join("ns/net"), inode: Some(inode) };
            let way = if is_own { Way::Tcp } else { Way::TcpIn(network, address) };
            (Access { way, ..Access::plain(url) }, address.port().to_string())
        };
        // Workers inherit the socket of the process that opened it.
        if known.insert(access.to_string()) {
            *of_network += 1;
            let cgroup = fs::read(folder.join("cgroup")).ok().and_then(|file| Cgroup::parse(&file)).unwrap_or_default();
            let place = (!is_own).then(|| place(&cgroup, logs, inode));
            found.pods.extend(cgroup.pod_uid);
            let (pid, dialect, model) = (Some(pid), Some(dialect), model(process, &arguments));
            found.candidates.push(Candidate { pid, dialect, access, model, place, at });
        }
    }
    found
}

/// The network namespace that a process is in.
fn network(process: &Path) -> Option<u64> {
    let link = fs::read_link(process.join("ns/net")).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The pod that a process is in, else its container, else its network namespace.
fn place(cgroup: &Cgroup, logs: &Path, network: u64) -> String {
    // A user may name a cgroup below its session as it likes.
    let container = cgroup.container.as_ref().filter(|_| cgroup.is_contained());
    let id = container.map(|container| &*container.id);
    let pod =
        cgroup.pod_uid.as_ref().filter(|_| id.is_some()).and_then(|uid| Pod::find(logs, uid, id)).map(|pod| pod.name);
    let short = |id: &str| id.chars().take(CONTAINER_DIGITS).collect();
    pod.or_else(|| id.map(short)).unwrap_or_else(|| format!("net-{network}"))
}

/// The unix socket that the command line names. `--host` names one if it looks like one (llama.cpp, `server-http.cpp`).
fn socket_path<'a>(process: &Process, arguments: &'a [String]) -> Option<&'a str> {
    let named = process.socket_options.iter().find_map(|name| option(arguments, name));
    named.filter(|path| path.contains('/') || path.ends_with(".sock"))
}

/// As the process sees the path, if a socket is there.
fn over_unix(process: &Path, path: &str, page: &str) -> Option<Access> {
    let url = MetricsUrl::try_from(format!("http://localhost{page}")).ok()?;
    let base = if path.starts_with('/') { "root" } else { "cwd" };
    let within = Within { root: process.join(base), path: path.trim_start_matches('/').into(), socket: None };
    let (_, socket) = within.open().ok()?;
    Some(Access { way: Way::UnixIn(Within { socket: Some(socket), ..within }), ..Access::plain(url) })
}

/// A process may have as long a command line as it likes; an engine's is at its beginning.
fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(MOST_COMMAND_LINE).read_to_end(&mut head)?;
    Ok(head)
}

fn processes(proc: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// Whether this is an address of the network namespace that the file `/proc/PID/ns/net` stands for: `/proc/PID/net/fib_trie`, where an
/// address of its own is followed by `/32 host LOCAL`, and `if_inet6`.
pub fn has_address(network: &Path, ip: IpAddr) -> bool {
    let Some(process) = network.parent().and_then(Path::parent) else { return false };
    let read = |name: &str| fs::read_to_string(process.join("net").join(name)).unwrap_or_default();
    match ip {
        IpAddr::V4(ip) => {
            let (text, wanted) = (read("fib_trie"), format!("|-- {ip}"));
            let mut lines = text.lines().map(str::trim).peekable();
            std::iter::from_fn(|| lines.next().map(|line| (line, lines.peek().copied())))
                .any(|(line, next)| line == wanted && next.is_some_and(|next| next == "/32 host LOCAL"))
        }
        IpAddr::V6(ip) => {
            let wanted = ip.octets().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            read("if_inet6").lines().any(|line| line.starts_with(&wanted))
        }
    }
}

/// `cmdline` is NUL-terminated arguments; ours are only compared, so bytes that are not UTF-8 may be replaced.
fn arguments(command_line: &[u8]) -> Vec<String> {
    let text = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    text.split(|&byte| byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

fn is_run_by(process: &Process, arguments: &[String]) -> bool {
    let file_name = |argument: &str| argument.rsplit('/').next().unwrap_or_default().to_owned();
    process.commands.iter().any(|command| match command {
        Command::Program(program) => arguments.first().is_some_and(|first| file_name(first) == *program),
        Command::Subcommand(program, subcommand) => {
            arguments.windows(2).take(2).any(|pair| file_name(&pair[0]) == *program && pair[1] == *subcommand)
        }
        Command::Module(module) => arguments.windows(2).any(|pair| {
            let below = pair[1].strip_prefix(module);
            pair[0] == "-m" && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }),
    })
}

/// The value of `--option VALUE` or `--option=VALUE`.
fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.iter().enumerate().find_map(|(index, argument)| match argument.strip_prefix(name)? {
        "" => arguments.get(index + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    })
}

fn page_address(process: &Process, arguments: &[String], addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let named = process.port_options.iter().find_map(|name| option(arguments, name));
    let named = named.map_or(Some(process.default_port), |port| port.parse().ok());
    let at_port = addresses.iter().find(|address| Some(address.port()) == named);
    match (at_port, addresses) {
        (Some(address), _) | (None, [address]) => Some(*address),
        _ => None,
    }
}

/// A path or repository is shortened to its last part, a file's extension is dropped.
fn model(process: &Process, arguments: &[String]) -> Option<String> {
    let value = process.model_options.iter().find_map(|name| option(arguments, name))?;
    let name = value.rsplit('/').find(|part| !part.is_empty())?;
    Some(name.strip_suffix(".gguf").unwrap_or(name).to_owned())
}

/// A socket bound to every address is reached at loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The inodes of the sockets that a process holds.
fn sockets(process: &Path) -> Vec<u64> {
    let entries = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| socket_inode(&fs::read_link(entry.path()).ok()?.into_os_string())).collect()
}

/// `socket:[12345]`.
fn socket_inode(link: &OsString) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Address by inode, of the network namespace that the process is in.
fn listening_sockets(process: &Path) -> BTreeMap<u64, SocketAddr> {
    let tables = ["net/tcp", "net/tcp6"].map(|name| fs::read_to_string(process.join(name)).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().filter_map(listening_socket)).collect()
}

/// One line of `/proc/net/tcp` or `tcp6`; `None` for the heading and for sockets that do not listen.
fn listening_socket(line: &str) -> Option<(u64, SocketAddr)> {
    let mut fields = line.split_ascii_whitespace();
    let address = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == "0A").then_some((inode, socket_address(address)?))
}

/// `0100007F:1F90`: 32-bit words in the byte order of the machine, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| u32::from_str_radix(address.get(index * 8..index * 8 + 8)?, 16).ok();
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?.to_ne_bytes());
            }
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests;
