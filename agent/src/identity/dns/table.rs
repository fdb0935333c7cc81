//! One network namespace: the questions that wait for an answer, and the names that answers gave to addresses.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    Doubt, Known, Resolved, State, Told, Who,
    message::{Message, Question},
};

/// Questions that wait; beyond it the oldest is given up.
const MAX_QUESTIONS: usize = 256;

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
    questions: HashMap<(Question, SocketAddr), Asked>,
    /// When each was asked, the oldest first.
    order: VecDeque<(u64, Question, SocketAddr)>,
    addresses: HashMap<IpAddr, Vec<Known>>,
    /// Of all addresses.
    names: usize,
    last_boot_ns: u64,
    encrypted_boot_ns: Option<u64>,
}

#[derive(Debug)]
struct Asked {
    boot_ns: u64,
    by: Who,
    doubt: Option<Doubt>,
}

/// An answer to be attached to its addresses.
#[derive(Debug)]
pub struct Names(Known);

impl Names {
    pub fn of(read: Message, server: SocketAddr, asked_by: Who, doubt: Option<Doubt>, boot_ns: u64) -> Self {
        let ttl_ns = u64::from(read.ttl_seconds) * SECOND_NS;
        let mut bytes = 0;
        let mut aliases = read.aliases;
        aliases.retain(|alias| {
            bytes += alias.len();
            bytes <= MAX_ALIAS_BYTES
        });
        Self(Known {
            told: Arc::new(Told { name: read.question.name, aliases, server, asked_by, doubt }),
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
        self.encrypted_boot_ns.is_some_and(|asked| boot_ns.saturating_sub(asked) < ENCRYPTED_FOR_NS)
    }

    pub fn ask(&mut self, question: Question, server: SocketAddr, by: Who, doubt: Option<Doubt>, boot_ns: u64) {
        while let Some((asked_boot_ns, ..)) = self.order.front()
            && (self.order.len() >= MAX_QUESTIONS || boot_ns.saturating_sub(*asked_boot_ns) > ANSWER_WITHIN_NS)
        {
            self.give_up_oldest();
        }
        self.order.push_back((boot_ns, question.clone(), server));
        self.questions.insert((question, server), Asked { boot_ns, by, doubt });
    }

    fn give_up_oldest(&mut self) {
        let Some((boot_ns, question, server)) = self.order.pop_front() else { return };
        let key = (question, server);
        // It may have been asked again since.
        if self.questions.get(&key).is_some_and(|asked| asked.boot_ns == boot_ns) {
            self.questions.remove(&key);
        }
    }

    /// Who asked this question of this server, and what is to be said against the server. A question is answered once, but may
    /// be asked, and answered, again.
    pub fn asked(&mut self, question: &Question, server: SocketAddr, boot_ns: u64) -> Option<(Who, Option<Doubt>)> {
        let asked = self.questions.get(&(question.clone(), server))?;
        (boot_ns.saturating_sub(asked.boot_ns) <= ANSWER_WITHIN_NS).then(|| (asked.by.clone(), asked.doubt))
    }

    /// Attaches an answer to one of its addresses; how many names that held were forgotten for it.
    pub fn learn(&mut self, address: IpAddr, names: &Names, boot_ns: u64) -> u64 {
        let Names(new) = names;
        let mut forgotten = 0;
        if self.names >= MAX_NAMES {
            forgotten += self.make_room(boot_ns);
        }
        let known = self.addresses.entry(address).or_default();
        let before = known.len();
        let first_boot_ns = match known.iter().position(|one| one.told.name == new.told.name) {
            // What a stranger says takes nothing from what a configured server said.
            Some(at) if new.told.doubt.is_some() && known[at].told.doubt.is_none() => return forgotten,
            Some(at) => {
                let before = known.remove(at);
                let as_certain = before.told.doubt.is_none() || new.told.doubt.is_some();
                if as_certain { before.first_boot_ns } else { new.first_boot_ns }
            }
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

    /// What was known of the address at that time.
    pub fn at(&self, address: IpAddr, boot_ns: u64) -> Resolved {
        let told = self.addresses.get(&address).into_iter().flatten().filter(|one| one.first_boot_ns <= boot_ns);
        let state = |known: &Known| match known.told.doubt {
            None if known.until_boot_ns >= boot_ns => State::Matched,
            None => State::Stale,
            Some(_) => State::Untrusted,
        };
        for wanted in [State::Matched, State::Stale, State::Untrusted] {
            let names: Vec<Known> = told.clone().filter(|one| state(one) == wanted).cloned().collect();
            if !names.is_empty() {
                return Resolved { state: wanted, names };
            }
        }
        Resolved::default()
    }
}

/// What leaves first is worth least.
fn worth(known: &Known) -> (bool, u64) {
    (known.told.doubt.is_none(), known.until_boot_ns)
}

/// Those that still hold and are in no doubt.
fn holding<'a>(known: impl IntoIterator<Item = &'a Known>, boot_ns: u64) -> u64 {
    known
        .into_iter()
        .filter(|one| one.told.doubt.is_none() && one.until_boot_ns >= boot_ns)
        .fold(0, |count, _| count + 1)
}
