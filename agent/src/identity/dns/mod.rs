//! Addresses → the names that they were asked for by, as the processes of one network namespace were told.
//!
//! A name counts when a process asked for it, and a server answered that the connecting process is configured to ask. It is a
//! claim of that server's, not of the address: many names share an address, so names may alert and excuse, and never deny. Names of
//! records beside the question's own chain count for nothing.

pub mod message;
pub mod resolvers;
mod table;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use self::{
    message::{Message, Unread},
    resolvers::Resolvers,
    table::{Names, Namespace},
};
use super::{Who, procfs::Processes};
use crate::event::{Connect, ConnectEnd, Direction, DnsMessage, NetNs, Task};

/// Network namespaces whose names are kept; beyond it those with few names leave first, the one that asked least lately before
/// the others.
pub const MAX_NAMESPACES: usize = 1024;

/// Names of addresses, in all; beyond it the namespace with the most gives up some.
pub const MAX_NAMES: usize = 32_768;

/// Where DNS is spoken encrypted: over TLS (RFC 7858) and QUIC (RFC 9250).
const ENCRYPTED_PORT: u16 = 853;

/// Where it is spoken over HTTPS (RFC 8484), of those that are widely known.
const ENCRYPTED_NAMES: [&str; 6] = [
    "dns.google",
    "cloudflare-dns.com",
    "mozilla.cloudflare-dns.com",
    "one.one.one.one",
    "dns.quad9.net",
    "doh.opendns.com",
];

/// What is known of the address that a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// A configured server gave it for these names, and the answer still holds.
    Matched,
    /// The same, but the answer had run out.
    Stale,
    /// It was given for these names by a server that the process is not configured to ask, or unasked.
    Untrusted,
    /// No name was seen.
    #[default]
    None,
    /// No name was seen, and processes of this network namespace ask where nobody can read along.
    Encrypted,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Stale => "stale",
            Self::Untrusted => "untrusted",
            Self::None => "none",
            Self::Encrypted => "encrypted",
        }
    }
}

/// An address's names, as far as they are of the same state: the latest told first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    pub state: State,
    pub names: Vec<Known>,
}

impl Resolved {
    /// The names that count.
    pub fn matched(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter(|_| self.state == State::Matched).map(|known| &*known.told.name)
    }
}

/// One name of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub told: Arc<Told>,
    /// Why it does not count, as the process sees it that is asked about.
    pub doubt: Option<Doubt>,
    /// When it was told first, …
    pub first_boot_ns: u64,
    /// … and how long the last answer holds, the grace included.
    pub until_boot_ns: u64,
}

/// What an answer said, of whatever address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// As it was asked for.
    pub name: String,
    /// What it was an alias of, link by link.
    pub aliases: Vec<String>,
    pub server: SocketAddr,
    /// `None` where no question was seen.
    pub asked_by: Option<Arc<Who>>,
}

/// Why a name does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// No question for it was seen.
    Unasked,
    /// The server is none that the process is configured to ask.
    NotConfigured,
    /// Whom the process is configured to ask could not be read.
    Unknown,
}

impl Doubt {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::NotConfigured => "not_configured",
            Self::Unknown => "resolvers_unknown",
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Question,
    Answer,
    Doubtful(Doubt),
    Unread(Unread),
    /// It was not where the kernel looked for it.
    Absent,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Answer => "answer",
            Self::Doubtful(doubt) => doubt.as_str(),
            Self::Unread(Unread::Malformed) => "malformed",
            Self::Unread(Unread::Partial) => "partial",
            Self::Unread(Unread::Other) => "other",
            Self::Absent => "absent",
        }
    }
}

/// Names of addresses, by network namespace.
#[derive(Debug, Default)]
pub struct Dns {
    resolvers: Resolvers,
    namespaces: HashMap<NetNs, Namespace>,
    names: usize,
    /// Names that still held and had to make room.
    forgotten: u64,
    /// Messages since the start, by what became of them.
    outcomes: HashMap<&'static str, u64>,
}

impl Dns {
    pub fn new(resolvers: Resolvers) -> Self {
        Self { resolvers, ..Self::default() }
    }

    /// Messages since the start, by what became of them.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.outcomes.iter().map(|(outcome, count)| (*outcome, *count))
    }

    /// Names of addresses that are known.
    pub fn len(&self) -> usize {
        self.names
    }

    pub fn is_empty(&self) -> bool {
        self.names == 0
    }

    /// Names that still held and were forgotten since this was asked last.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    /// Learns from a message that `who` sent or took.
    pub fn take(&mut self, message: &DnsMessage, task: &Task, who: Who, boot_ns: u64, proc: &dyn Processes) -> Outcome {
        let outcome = self.learn(message, task, who, boot_ns, proc);
        self.count(outcome.as_str(), 1);
        outcome
    }

    fn count(&mut self, outcome: &'static str, more: u64) {
        *self.outcomes.entry(outcome).or_default() += more;
    }

    fn learn(&mut self, message: &DnsMessage, task: &Task, who: Who, boot_ns: u64, proc: &dyn Processes) -> Outcome {
        if message.bytes.is_empty() {
            return Outcome::Absent;
        }
        let read = match Message::read(message) {
            Ok(read) => read,
            Err(unread) => return Outcome::Unread(unread),
        };
        match (message.direction, read.is_answer) {
            (Direction::Sent, false) => {
                let namespace = self.namespace(message.net_ns, boot_ns);
                let given_up = namespace.ask(&read.question, message.server, Arc::new(who), boot_ns);
                if given_up > 0 {
                    self.count("given_up", given_up);
                }
                // Asked now, while the process lives; its answer names addresses to whoever is configured like it.
                match self.doubt(message.server.ip(), task, boot_ns, proc) {
                    None => Outcome::Question,
                    Some(doubt) => Outcome::Doubtful(doubt),
                }
            }
            (Direction::Received, true) => self.answered(message, read, boot_ns),
            // A server of its own on port 53, talking to another.
            _ => Outcome::Unread(Unread::Other),
        }
    }

    fn answered(&mut self, message: &DnsMessage, read: Message<'_>, boot_ns: u64) -> Outcome {
        let namespace = self.namespaces.get(&message.net_ns);
        let asked_by = namespace.and_then(|one| one.asked(&read.question, message.server, boot_ns));
        let answer = match read.answer() {
            Ok(answer) => answer,
            Err(unread) => return Outcome::Unread(unread),
        };
        let outcome = if asked_by.is_some() { Outcome::Answer } else { Outcome::Doubtful(Doubt::Unasked) };
        let addresses = answer.addresses.clone();
        let names = Names::of(read.question.name, answer, message.server, asked_by, boot_ns);
        for address in addresses {
            self.change(message.net_ns, boot_ns, |namespace| namespace.learn(address, &names, boot_ns));
        }
        if self.names > MAX_NAMES {
            let largest = self.namespaces.iter().max_by_key(|(_, namespace)| namespace.len()).map(|(key, _)| *key);
            if let Some(net_ns) = largest {
                self.change(net_ns, boot_ns, |namespace| namespace.make_room(boot_ns));
            }
        }
        outcome
    }

    fn doubt(&mut self, server: IpAddr, task: &Task, boot_ns: u64, proc: &dyn Processes) -> Option<Doubt> {
        match self.resolvers.has(server, task, boot_ns, proc) {
            Some(true) => None,
            Some(false) => Some(Doubt::NotConfigured),
            None => Some(Doubt::Unknown),
        }
    }

    /// What the address of a connection that begins was asked for by, as its process may believe.
    pub fn of_begin(&mut self, connect: &Connect, task: &Task, boot_ns: u64, proc: &dyn Processes) -> Resolved {
        self.note_encrypted(connect, boot_ns);
        self.at((connect.net_ns, connect.address, connect.port), task, boot_ns, proc)
    }

    /// The same of a connection that ended, as of its begin.
    pub fn of_end(&mut self, end: &ConnectEnd, task: &Task, boot_ns: u64, proc: &dyn Processes) -> Resolved {
        let begin_boot_ns = boot_ns.saturating_sub(end.duration_ns);
        self.at((end.net_ns, end.address, end.port), task, begin_boot_ns, proc)
    }

    fn at(
        &mut self,
        (net_ns, address, port): (NetNs, IpAddr, u16),
        task: &Task,
        boot_ns: u64,
        proc: &dyn Processes,
    ) -> Resolved {
        let Some(namespace) = self.namespaces.get(&net_ns) else {
            let state = if port == ENCRYPTED_PORT { State::Encrypted } else { State::None };
            return Resolved { state, names: Vec::new() };
        };
        let asks_encrypted = port == ENCRYPTED_PORT || namespace.asks_encrypted(boot_ns);
        let mut known: Vec<Known> = namespace.told(address, boot_ns).cloned().collect();
        // Another process may be configured to believe another server.
        for one in &mut known {
            one.doubt = one.doubt.or_else(|| self.doubt(one.told.server.ip(), task, boot_ns, proc));
        }
        let state = |known: &Known| match known.doubt {
            None if known.until_boot_ns >= boot_ns => State::Matched,
            None => State::Stale,
            Some(_) => State::Untrusted,
        };
        for wanted in [State::Matched, State::Stale, State::Untrusted] {
            if known.iter().any(|one| state(one) == wanted) {
                known.retain(|one| state(one) == wanted);
                return Resolved { state: wanted, names: known };
            }
        }
        Resolved { state: if asks_encrypted { State::Encrypted } else { State::None }, names: Vec::new() }
    }

    fn note_encrypted(&mut self, connect: &Connect, boot_ns: u64) {
        let Some(namespace) = self.namespaces.get_mut(&connect.net_ns) else { return };
        let is_known = |known: &Known| ENCRYPTED_NAMES.contains(&&*known.told.name);
        let by_name = connect.port == 443 && namespace.told(connect.address, boot_ns).any(is_known);
        if connect.port == ENCRYPTED_PORT || by_name {
            namespace.note_encrypted(boot_ns);
        }
    }

    fn namespace(&mut self, net_ns: NetNs, boot_ns: u64) -> &mut Namespace {
        if self.namespaces.len() >= MAX_NAMESPACES && !self.namespaces.contains_key(&net_ns) {
            let worth = |one: &Namespace| (one.len().min(4), one.last_boot_ns());
            let idle = self.namespaces.iter().min_by_key(|(_, one)| worth(one)).map(|(key, _)| *key);
            if let Some(namespace) = idle.and_then(|key| self.namespaces.remove(&key)) {
                self.names = self.names.saturating_sub(namespace.len());
                self.forgotten += namespace.holding(boot_ns);
            }
        }
        let namespace = self.namespaces.entry(net_ns).or_default();
        namespace.touch(boot_ns);
        namespace
    }

    /// Changes what one namespace knows, and keeps count.
    fn change(&mut self, net_ns: NetNs, boot_ns: u64, change: impl FnOnce(&mut Namespace) -> u64) {
        let namespace = self.namespace(net_ns, boot_ns);
        let before = namespace.len();
        let forgotten = change(namespace);
        let after = namespace.len();
        self.names = (self.names + after).saturating_sub(before);
        self.forgotten += forgotten;
    }
}

#[cfg(test)]
mod tests;
