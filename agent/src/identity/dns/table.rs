//! One network namespace: the questions that wait for an answer, and the names that answers gave to addresses.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    Doubt, Known, Told, Who,
    message::{Answer, Question},
};

/// Questions that wait; beyond it the oldest is given up, which is counted.
const MAX_QUESTIONS: usize = 2048;

/// How long an answer is waited for; resolvers give up after half of it.
const ANSWER_WITHIN_NS: u64 = 30_000_000_000;

/// Names of addresses; beyond it some leave, as [`Namespace::make_room`] says.
const MAX_NAMES: usize = 8192;

/// Names of one address; beyond it the one that runs out first leaves.
const MAX_NAMES_OF_ONE: usize = 8;

/// Bytes of aliases that are kept of one answer.
const MAX_ALIAS_BYTES: usize = 512;

/// A name holds so much longer than its answer says: programs resolve first and connect later.
const GRACE_NS: u64 = 60_000_000_000;

/// Whoever asked encrypted does so for this long.
const ENCRYPTED_FOR_NS: u64 = 3_600_000_000_000;

const SECOND_NS: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub struct Namespace {
    /// By a keyed hash of question and server: a name takes no room here.
    questions: HashMap<u64, Asked>,
    hasher: RandomState,
    /// When each was asked, the oldest first.
    order: VecDeque<(u64, u64)>,
    addresses: HashMap<IpAddr, Vec<Known>>,
    /// Of all addresses.
    names: usize,
    last_boot_ns: u64,
    encrypted_boot_ns: Option<u64>,
}

#[derive(Debug)]
struct Asked {
    boot_ns: u64,
    by: Arc<Who>,
}

/// An answer to be attached to its addresses.
#[derive(Debug)]
pub struct Names(Known);

impl Names {
    /// The answer that `name` stands for; `asked_by` is `None` where no question for it was seen.
    pub fn of(name: String, read: Answer, server: SocketAddr, asked_by: Option<Arc<Who>>, boot_ns: u64) -> Self {
        let ttl_ns = u64::from(read.ttl_seconds) * SECOND_NS;
        let mut bytes = 0;
        let aliases = read.aliases.into_iter().take_while(|alias| {
            bytes += alias.len();
            bytes <= MAX_ALIAS_BYTES
        });
        let doubt = asked_by.is_none().then_some(Doubt::Unasked);
        Self(Known {
            told: Arc::new(Told { name, aliases: aliases.collect(), server, asked_by }),
            doubt,
            first_boot_ns: boot_ns,
            until_boot_ns: boot_ns.saturating_add(ttl_ns).saturating_add(GRACE_NS),
        })
    }
}

impl Namespace {
    pub fn touch(&mut self, boot_ns: u64) {
        self.last_boot_ns = self.last_boot_ns.max(boot_ns);
    }

    pub fn last_boot_ns(&self) -> u64 {
        self.last_boot_ns
    }

    pub fn len(&self) -> usize {
        self.names
    }

    /// Names that hold.
    pub fn holding(&self, boot_ns: u64) -> u64 {
        holding(self.addresses.values().flatten(), boot_ns)
    }

    pub fn note_encrypted(&mut self, boot_ns: u64) {
        self.encrypted_boot_ns = Some(boot_ns);
    }

    pub fn asks_encrypted(&self, boot_ns: u64) -> bool {
        self.encrypted_boot_ns.is_some_and(|asked| asked <= boot_ns && boot_ns - asked < ENCRYPTED_FOR_NS)
    }

    fn key(&self, question: &Question, server: SocketAddr) -> u64 {
        self.hasher.hash_one((question, server))
    }

    /// Remembers a question; how many had to be given up for it.
    pub fn ask(&mut self, question: &Question, server: SocketAddr, by: Arc<Who>, boot_ns: u64) -> u64 {
        let mut given_up = 0;
        while let Some((asked_boot_ns, key)) = self.order.front().copied() {
            let is_old = boot_ns.saturating_sub(asked_boot_ns) > ANSWER_WITHIN_NS;
            if !is_old && self.order.len() < MAX_QUESTIONS {
                break;
            }
            self.order.pop_front();
            // It may have been asked again since.
            if self.questions.get(&key).is_some_and(|asked| asked.boot_ns == asked_boot_ns) {
                self.questions.remove(&key);
                given_up += u64::from(!is_old);
            }
        }
        let key = self.key(question, server);
        self.order.push_back((boot_ns, key));
        self.questions.insert(key, Asked { boot_ns, by });
        given_up
    }

    /// Who asked this question of this server. It may be answered more than once: datagrams are repeated.
    pub fn asked(&self, question: &Question, server: SocketAddr, boot_ns: u64) -> Option<Arc<Who>> {
        let asked = self.questions.get(&self.key(question, server))?;
        (boot_ns.saturating_sub(asked.boot_ns) <= ANSWER_WITHIN_NS).then(|| Arc::clone(&asked.by))
    }

    /// Attaches an answer to one of its addresses; how many names that held were forgotten for it.
    pub fn learn(&mut self, address: IpAddr, names: &Names, boot_ns: u64) -> u64 {
        let Names(new) = names;
        let mut forgotten = 0;
        let is_certain = new.doubt.is_none();
        if self.names >= MAX_NAMES {
            // What nobody asked for takes the place of nothing.
            if !is_certain {
                return 0;
            }
            forgotten += self.make_room(boot_ns);
        }
        // One server takes nothing from what another said.
        let is_same = |one: &Known| (&one.told.name, one.told.server) == (&new.told.name, new.told.server);
        let known = self.addresses.entry(address).or_default();
        let before = known.len();
        let first_boot_ns = match known.iter().position(is_same) {
            Some(at) if !is_certain && known[at].doubt.is_none() => return forgotten,
            Some(at) => {
                let before = known.remove(at);
                // Between the end of an answer and the next there was none.
                let holds_on = before.until_boot_ns >= boot_ns && before.doubt.is_none() == is_certain;
                if holds_on { before.first_boot_ns } else { new.first_boot_ns }
            }
            None if !is_certain && known.len() >= MAX_NAMES_OF_ONE => return forgotten,
            None => new.first_boot_ns,
        };
        known.insert(0, Known { first_boot_ns, ..new.clone() });
        if known.len() > MAX_NAMES_OF_ONE {
            let others = known.iter().enumerate().skip(1);
            if let Some((at, _)) = others.min_by_key(|(_, one)| worth(one)) {
                forgotten += holding([&known.remove(at)], boot_ns);
            }
        }
        self.names = (self.names + known.len()).saturating_sub(before);
        forgotten
    }

    /// Forgets a sixteenth of the addresses: those that have doubtful names only first, then those whose names run out first.
    /// How many of the names held.
    pub fn make_room(&mut self, boot_ns: u64) -> u64 {
        let mut by_worth: Vec<_> = self
            .addresses
            .iter()
            .map(|(address, known)| (known.iter().map(worth).max().unwrap_or_default(), *address))
            .collect();
        by_worth.sort_unstable();
        let mut forgotten = 0;
        for (_, address) in by_worth.iter().take(by_worth.len().div_ceil(16)) {
            let names = self.addresses.remove(address).unwrap_or_default();
            self.names = self.names.saturating_sub(names.len());
            forgotten += holding(&names, boot_ns);
        }
        forgotten
    }

    /// What had been told of the address by that time, the latest first.
    pub fn told(&self, address: IpAddr, boot_ns: u64) -> impl Iterator<Item = &Known> {
        self.addresses.get(&address).into_iter().flatten().filter(move |one| one.first_boot_ns <= boot_ns)
    }
}

/// What leaves first is worth least.
fn worth(known: &Known) -> (bool, u64) {
    (known.doubt.is_none(), known.until_boot_ns)
}

/// Those that still hold and are in no doubt.
fn holding<'a>(known: impl IntoIterator<Item = &'a Known>, boot_ns: u64) -> u64 {
    known.into_iter().filter(|one| one.doubt.is_none() && one.until_boot_ns >= boot_ns).fold(0, |count, _| count + 1)
}
