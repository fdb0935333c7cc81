//! The name servers that a process is configured to ask: resolv.conf(5) as its own mount namespace has it.
//!
//! Who may write that file chooses whom to ask: a container's root is one. `dns.resolvers` in the configuration says it for
//! all instead.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    event::{NetNs, Task},
    identity::procfs::Processes,
};

/// Files are read anew when they are this old.
const REFRESH_NS: u64 = 30_000_000_000;

/// Name spaces whose servers are remembered; when there are more, all are asked for anew.
const MAX_REMEMBERED: usize = 256;

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
    given: Option<Vec<IpAddr>>,
    found: HashMap<(u32, NetNs), Found>,
}

#[derive(Debug)]
struct Found {
    boot_ns: u64,
    servers: Vec<IpAddr>,
}

impl Resolvers {
    pub fn new(given: Option<Vec<IpAddr>>) -> Self {
        Self { given, found: HashMap::new() }
    }

    /// Whether the task is configured to ask `server`; `None` where nobody can say.
    pub fn has(
        &mut self,
        server: IpAddr,
        task: &Task,
        net_ns: NetNs,
        now_boot_ns: u64,
        proc: &dyn Processes,
    ) -> Option<bool> {
        if let Some(given) = &self.given {
            return Some(given.contains(&server));
        }
        let key = (task.namespaces.mnt, net_ns);
        let is_fresh = |found: &Found| now_boot_ns.saturating_sub(found.boot_ns) < REFRESH_NS;
        if !self.found.get(&key).is_some_and(is_fresh) {
            if self.found.len() >= MAX_REMEMBERED {
                self.found.clear();
            }
            // A process that is gone says nothing: what was known before still holds.
            let before = self.found.remove(&key).map(|found| found.servers);
            // Nothing is not remembered: the next process may live longer.
            let servers = servers(task, proc).or(before)?;
            self.found.insert(key, Found { boot_ns: now_boot_ns, servers });
        }
        self.found.get(&key).map(|found| found.servers.contains(&server))
    }
}

/// What the task's files say, or its parent's, which outlives it: both are asked only while they are in that mount namespace.
fn servers(task: &Task, proc: &dyn Processes) -> Option<Vec<IpAddr>> {
    let read = |pid, path| match proc.read_below(pid, task.namespaces.mnt, path) {
        Ok(bytes) => Some(bytes),
        // Without the file this machine is asked (resolv.conf(5)).
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    };
    let (pid, bytes) = [task.pid, task.ppid].into_iter().find_map(|pid| Some((pid, read(pid, RESOLV_CONF)?)))?;
    let mut servers = parse(&bytes);
    if servers.is_empty() {
        servers = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
    }
    if servers.iter().any(|server| RESOLVED_STUBS.contains(server)) {
        servers.extend(RESOLVED_STUBS);
        servers.extend(parse(&read(pid, RESOLVED_UPSTREAM)?));
    }
    Some(servers)
}

/// The addresses behind `nameserver`; a scope (`%eth0`) is left out.
fn parse(bytes: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(bytes);
    let server = |line: &str| {
        let address = line.strip_prefix("nameserver")?.strip_prefix([' ', '\t'])?.split_ascii_whitespace().next()?;
        Some(address.split('%').next()?.parse::<IpAddr>().ok()?.to_canonical())
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
