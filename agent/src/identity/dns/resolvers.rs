//! The name servers that a process is configured to ask: resolv.conf(5) as it sees that file itself.
//!
//! Who may write that file chooses whom to ask: a container's root is one. `dns.resolvers` in the configuration says it for
//! all instead.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{event::Task, identity::procfs::Processes};

/// Files are read anew when they are this old; …
const REFRESH_NS: u64 = 30 * SECOND_NS;

/// … those that could not be read are tried again after this.
const RETRY_NS: u64 = 5 * SECOND_NS;

const SECOND_NS: u64 = 1_000_000_000;

/// The core waits for files so long in a second, and no longer, whoever lays them out.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// Views whose servers are remembered; beyond it the one that was read least lately leaves.
const MAX_REMEMBERED: usize = 1024;

/// Processes whose views are remembered; when there are more, all are looked at anew.
const MAX_VIEWS: usize = 16_384;

const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Servers that are taken from one file.
const MAX_SERVERS: usize = 16;

const RESOLV_CONF: &str = "etc/resolv.conf";

/// Where systemd-resolved says whom it asks itself (systemd-resolved.service(8)).
const RESOLVED_UPSTREAM: &str = "run/systemd/resolve/resolv.conf";

/// Where systemd-resolved listens.
const RESOLVED_STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Whom processes are configured to ask.
#[derive(Debug, Default)]
pub struct Resolvers {
    /// Those of the configuration, for all processes.
    given: Option<Vec<IpNet>>,
    found: HashMap<View, Found>,
    /// What processes saw that may be gone by now.
    views: HashMap<(u32, u64), View>,
    /// Time spent waiting for files in this second.
    waited: Duration,
    second: u64,
}

/// What a process sees of the file system: its mount namespace and its root there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    pub mnt_ns: u32,
    pub root_dev: u64,
    pub root_ino: u64,
}

#[derive(Debug)]
struct Found {
    boot_ns: u64,
    /// `None` where the files could not be read.
    servers: Option<Vec<IpAddr>>,
}

impl Resolvers {
    pub fn new(given: Option<Vec<IpNet>>) -> Self {
        Self { given, ..Self::default() }
    }

    /// Whether the task is configured to ask `server`; `None` where nobody can say.
    pub fn has(&mut self, server: IpAddr, task: &Task, now_boot_ns: u64, proc: &dyn Processes) -> Option<bool> {
        if let Some(given) = &self.given {
            return Some(given.iter().any(|network| network.contains(&server)));
        }
        let process = (task.pid, task.start_boot_ns);
        let mnt_ns = task.namespaces.mnt;
        let own = proc.view(task.pid, mnt_ns);
        if let Some(view) = own {
            if self.views.len() >= MAX_VIEWS {
                self.views.clear();
            }
            self.views.insert(process, view);
        }
        // Its parent outlives it, and most often sees the same.
        let parents = proc.view(task.ppid, mnt_ns);
        let view = own.or_else(|| self.views.get(&process).copied()).or(parents)?;
        let readers: Vec<u32> = [(own, task.pid), (parents, task.ppid)]
            .into_iter()
            .filter(|(seen, _)| *seen == Some(view))
            .map(|(_, pid)| pid)
            .collect();
        self.refresh(view, &readers, now_boot_ns, proc);
        self.found.get(&view)?.servers.as_ref().map(|servers| servers.contains(&server))
    }

    /// Reads the files of `view` again when it is time, and there is time.
    fn refresh(&mut self, view: View, readers: &[u32], now_boot_ns: u64, proc: &dyn Processes) {
        let is_fresh = |found: &Found| {
            let age_ns = now_boot_ns.saturating_sub(found.boot_ns);
            age_ns < if found.servers.is_some() { REFRESH_NS } else { RETRY_NS }
        };
        if self.found.get(&view).is_some_and(is_fresh) {
            return;
        }
        // Never back: the ends of connections are judged as of their begins.
        if now_boot_ns / SECOND_NS > self.second {
            (self.second, self.waited) = (now_boot_ns / SECOND_NS, Duration::ZERO);
        }
        if self.waited >= MAX_WAIT {
            return;
        }
        let begun = Instant::now();
        let servers = readers.iter().find_map(|pid| servers(*pid, view, proc));
        self.waited += begun.elapsed();
        // Of those that are gone meanwhile nothing is learnt.
        if servers.is_none() && readers.iter().all(|pid| proc.view(*pid, view.mnt_ns) != Some(view)) {
            return;
        }
        if self.found.len() >= MAX_REMEMBERED && !self.found.contains_key(&view) {
            let oldest = self.found.iter().min_by_key(|(_, found)| found.boot_ns).map(|(view, _)| *view);
            oldest.and_then(|view| self.found.remove(&view));
        }
        // What could not be read again is as it was.
        let before = self.found.remove(&view).and_then(|found| found.servers);
        self.found.insert(view, Found { boot_ns: now_boot_ns, servers: servers.or(before) });
    }
}

fn servers(pid: u32, view: View, proc: &dyn Processes) -> Option<Vec<IpAddr>> {
    let read = |path| match proc.read_below(pid, view, path) {
        Ok(bytes) => Some(parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    };
    let mut servers = read(RESOLV_CONF)?;
    // Without any, this machine is asked (resolv.conf(5)).
    if servers.is_empty() {
        servers = LOCALHOST.to_vec();
    }
    if servers.iter().any(|server| RESOLVED_STUBS.contains(server)) {
        servers.extend(RESOLVED_STUBS);
        servers.extend(read(RESOLVED_UPSTREAM)?);
    }
    Some(servers)
}

/// The addresses behind `nameserver`; a scope (`%eth0`) is left out.
fn parse(bytes: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(bytes);
    let server = |line: &str| {
        let address = line.strip_prefix("nameserver")?.strip_prefix([' ', '\t'])?.split_ascii_whitespace().next()?;
        let address = address.split('%').next()?.parse::<IpAddr>().ok()?.to_canonical();
        // To the C library no address is this machine's.
        Some(if address.is_unspecified() { LOCALHOST[usize::from(address.is_ipv6())] } else { address })
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &[u8], expect: &[&str]) {
        let expect: Vec<IpAddr> = expect.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(parse(file), expect);
    }

    #[test]
    fn servers_are_what_stands_behind_nameserver() {
        check(
            b"# made by hand\nsearch example.org\nnameserver 10.0.0.53\nnameserver\tfe80::1%eth0\n",
            &["10.0.0.53", "fe80::1"],
        );
        check(b"nameserver ::ffff:10.0.0.53 # mapped\n", &["10.0.0.53"]);
        check(b"nameserver 0.0.0.0\nnameserver ::\n", &["127.0.0.1", "::1"]);
    }

    #[test]
    fn what_is_no_server_is_passed_over() {
        check(
            b"nameservers 10.0.0.1\nnameserver\nnameserver ten\n;nameserver 10.0.0.2\n\xff\xfe\n options ndots:5\n",
            &[],
        );
        check(&b"nameserver 10.0.0.1\n".repeat(100), &["10.0.0.1"; MAX_SERVERS]);
    }
}
