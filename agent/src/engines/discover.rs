//! Which processes of this node are engines, and where they listen.
//!
//! A process is told by its command line (`dialect::Process`), its sockets by `/proc/PID/fd` and the listening ones
//! by `/proc/net/tcp` and `tcp6` (layout: `Documentation/networking/proc_net_tcp.rst`). An engine also listens where
//! its own parts meet, and bytes of ours could disturb that: only the port that the command line names (or the
//! engine's default) is a candidate, or the single port where there is just one. A candidate is an engine only once
//! a dialect recognises its page; that is the caller's part.
//!
//! Not covered: processes in another network namespace. They are counted, so that their absence is not silent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::config::MetricsUrl;
use super::dialect::{Command, DIALECTS, Dialect, Process};

/// What a look around found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub candidates: Vec<Candidate>,
    /// Engine processes in another network namespace.
    pub elsewhere: Vec<u32>,
}

/// A process that looks like an engine, and the address where its page should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub pid: u32,
    pub dialect: &'static Dialect,
    pub url: MetricsUrl,
    /// What the command line calls the model.
    pub model: Option<String>,
}

/// Looks at every process under `proc`, normally `/proc`. What cannot be read is passed over: processes end, and
/// without privileges other users' descriptors are closed to us.
pub fn look(proc: &Path) -> Found {
    let mut found = Found::default();
    let own_network = fs::read_link(proc.join("self/ns/net")).ok();
    let mut listening: Option<BTreeMap<u64, SocketAddr>> = None;
    for pid in processes(proc) {
        let folder = proc.join(pid.to_string());
        let Ok(command_line) = fs::read(folder.join("cmdline")) else { continue };
        let arguments = arguments(&command_line);
        let Some(dialect) = DIALECTS.iter().copied().find(|dialect| is_run_by(&dialect.process, &arguments)) else {
            continue;
        };
        if fs::read_link(folder.join("ns/net")).ok() != own_network {
            found.elsewhere.push(pid);
            continue;
        }
        let listening = listening.get_or_insert_with(|| listening_sockets(proc));
        let addresses: Vec<SocketAddr> =
            sockets(&folder).iter().filter_map(|inode| listening.get(inode).copied()).collect();
        let Some(url) = page_address(&dialect.process, &arguments, &addresses)
            .and_then(|address| url(address, dialect.process.path))
        else {
            continue;
        };
        // Workers inherit the socket of the process that opened it.
        if !found.candidates.iter().any(|other| other.url == url) {
            found.candidates.push(Candidate { pid, dialect, url, model: model(&dialect.process, &arguments) });
        }
    }
    found
}

fn processes(proc: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
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
fn url(address: SocketAddr, path: &str) -> Option<MetricsUrl> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}{path}", SocketAddr::new(ip, address.port())).try_into().ok()
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

/// Address by inode, of our own network namespace.
fn listening_sockets(proc: &Path) -> BTreeMap<u64, SocketAddr> {
    let tables = ["self/net/tcp", "self/net/tcp6"].map(|name| fs::read_to_string(proc.join(name)).unwrap_or_default());
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
