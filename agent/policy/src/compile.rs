//! Rules that deny, in the form by which the kernel decides: sets of clauses that are looked up and intersected.
//!
//! A rule is a word of 64 bits. Its low [`POSITIVE_BITS`] bits say whom it speaks of, one bit for each pair of an entry of
//! the policy's `subject` and one of the rule's own; the others are its exceptions. Each fact of an event (where, by which
//! program, by which user, and what was opened or connected to) has a [`Clauses`]: of each rule the bits that this fact does not rule
//! out. What all facts leave are the clauses that hold, and the rule denies where a low one is left and no other: see
//! [`Denials::denied`]. So a decision costs a handful of lookups, whatever the number of rules.
//!
//! The same decision, made by asking each rule, is [`crate::PolicySet::decide`]; a property test holds the two together,
//! and the kernel's with them.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use globset::{Candidate, GlobSet, GlobSetBuilder};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::facts::{Facts, Object, Protocol, Subject};
use crate::fields::has_port;
use crate::object::When;
use crate::object::connect::ConnectRule;
use crate::pattern::{self, is_plain};
use crate::policy::{Effect, Exception, Mode, Policy, Rule};
use crate::set::PolicySet;
use crate::subject::{Part, Selector};

/// Bits of a word that say whom the rule speaks of; a rule of more pairs of subjects takes several words.
pub const POSITIVE_BITS: u32 = 16;

/// The exceptions that a rule that denies can have: the other bits.
pub const MAX_EXCEPTIONS: usize = 64 - POSITIVE_BITS as usize;

/// Words in all.
pub const MAX_WORDS: usize = 4096;

const POSITIVE: u64 = (1 << POSITIVE_BITS) - 1;

/// Every rule that denies, of the policies that enforce.
#[derive(Debug, Default)]
pub struct Denials {
    words: Vec<Word>,
    /// Each selector once, however many rules have it.
    selectors: Vec<Selector>,
    /// The watched directories of all words, and the word of each glob.
    watched: GlobSet,
    of_glob: Vec<usize>,
}

#[derive(Debug)]
struct Word {
    policy: Arc<Policy>,
    rule: usize,
    /// Pairs of entries of `subject`, as places in `selectors`: all that are there must hold.
    pairs: Vec<[Option<usize>; 2]>,
    /// The subject of each exception.
    except: Vec<usize>,
}

impl Word {
    fn rule(&self) -> &Rule {
        &self.policy.rules[self.rule]
    }
}

/// The clauses that one fact does not rule out: a word per word of the rules, without the zeros at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Clauses(Vec<u64>);

impl Clauses {
    /// The words in order; those that are missing are 0.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}

/// More is denied than the kernel has room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the rules that deny make {words} words of clauses, and there is room for {MAX_WORDS}: let fewer policies enforce"
)]
pub struct TooManyDenials {
    pub words: usize,
}

impl PolicySet {
    /// The rules that deny.
    pub fn denials(&self) -> Result<Denials, TooManyDenials> {
        let mut denials = Denials::default();
        let mut places: HashMap<Selector, usize> = HashMap::new();
        let mut place = |selector: &Selector, selectors: &mut Vec<Selector>| {
            *places.entry(selector.clone()).or_insert_with(|| {
                selectors.push(selector.clone());
                selectors.len() - 1
            })
        };
        for policy in self.policies().iter().filter(|policy| policy.mode == Mode::Enforce) {
            for (number, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.effect == Effect::Deny) {
                let mut entries = |level: &[Selector]| -> Vec<Option<usize>> {
                    match level {
                        [] => vec![None],
                        some => some.iter().map(|one| Some(place(one, &mut denials.selectors))).collect(),
                    }
                };
                let (of_policy, of_rule) = (entries(&policy.subjects), entries(&rule.subjects));
                let pairs: Vec<_> =
                    of_policy.iter().flat_map(|one| of_rule.iter().map(move |other| [*one, *other])).collect();
                let except: Vec<usize> =
                    rule.except.iter().map(|exception| place(&exception.who, &mut denials.selectors)).collect();
                for pairs in pairs.chunks(POSITIVE_BITS as usize) {
                    denials.words.push(Word {
                        policy: Arc::clone(policy),
                        rule: number,
                        pairs: pairs.to_vec(),
                        except: except.clone(),
                    });
                }
            }
        }
        if denials.words.len() > MAX_WORDS {
            return Err(TooManyDenials { words: denials.words.len() });
        }
        denials.index();
        Ok(denials)
    }
}

impl Denials {
    fn index(&mut self) {
        let mut set = GlobSetBuilder::new();
        for (number, word) in self.words.iter().enumerate() {
            let When::File(file) = &word.rule().when else { continue };
            for glob in file.watched.patterns().iter().filter_map(|text| pattern::glob(text).ok()) {
                set.add(glob);
                self.of_glob.push(number);
            }
        }
        // Too large for one set: then each rule is asked.
        self.watched = set.build().unwrap_or_else(|_| {
            self.of_glob.clear();
            GlobSet::empty()
        });
    }

    /// Nothing is denied.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether opens are denied.
    pub fn of_opens(&self) -> bool {
        self.words.iter().any(|word| matches!(word.rule().when, When::File(_)))
    }

    /// Whether connections are denied.
    pub fn of_connections(&self) -> bool {
        self.words.iter().any(|word| matches!(word.rule().when, When::Connect(_)))
    }

    /// The policy and the rule of a word.
    pub fn rule(&self, word: usize) -> Option<(&str, &str)> {
        let word = self.words.get(word)?;
        Some((&word.policy.name, &word.rule().name))
    }

    /// The first word that denies an event of which these facts are known; all five kinds of facts, or the four of files.
    pub fn denied(&self, facts: &[&Clauses]) -> Option<usize> {
        (0..self.words.len()).find(|&number| {
            let left = facts.iter().fold(u64::MAX, |left, fact| left & fact.0.get(number).copied().unwrap_or(0));
            left & POSITIVE != 0 && left & !POSITIVE == 0
        })
    }

    /// Of a process's cgroup, container and pod.
    pub fn by_place(&self, subject: &Subject<'_>) -> Clauses {
        self.by_subject(&[*subject], Part::Place)
    }

    /// Of the file that a process runs, by every path that it is known to be run by: a rule speaks of it by any of them, and
    /// an exception excuses it by all of them, because which of the hard links was taken is not told by an inode.
    pub fn by_program(&self, paths: &[&[u8]]) -> Clauses {
        let by_path: Vec<Subject<'_>> =
            paths.iter().map(|path| Subject { exe: Some(path), ..Subject::default() }).collect();
        match by_path.as_slice() {
            [] => self.by_subject(&[Subject::default()], Part::Program),
            known => self.by_subject(known, Part::Program),
        }
    }

    /// Of a user.
    pub fn by_user(&self, uid: Option<u32>, user: Option<&str>) -> Clauses {
        self.by_subject(&[Subject { uid, user, ..Subject::default() }], Part::User)
    }

    fn by_subject(&self, subjects: &[Subject<'_>], part: Part) -> Clauses {
        let facts = subjects.iter().map(|subject| Facts { subject: *subject, object: Object::Socket { family: "" } });
        let facts: Vec<Facts<'_>> = facts.collect();
        // By any of the facts, and by all of them.
        let holds: Vec<(bool, bool)> = self
            .selectors
            .iter()
            .map(|selector| {
                let mut told = facts.iter().map(|facts| selector.admits_by(part, facts));
                let first = told.next().unwrap_or_default();
                told.fold((first, first), |(any, all), one| (any || one, all && one))
            })
            .collect();
        self.clauses(
            |word| bits(word.pairs.iter().map(|pair| pair.iter().flatten().all(|&place| holds[place].0))),
            |word| bits(word.except.iter().map(|&place| holds[place].1)),
        )
    }

    /// Of a file, by every path by which policies named the watched directories above it.
    pub fn by_directory(&self, watched: &[&[u8]]) -> Clauses {
        let mut is_above = vec![false; self.words.len()];
        if self.of_glob.is_empty() {
            for (above, word) in is_above.iter_mut().zip(&self.words) {
                let When::File(file) = &word.rule().when else { continue };
                *above = watched.iter().any(|path| file.watched.contains(path));
            }
        }
        for path in watched {
            for glob in self.watched.matches_candidate(&Candidate::from_bytes(path)) {
                if let Some(above) = self.of_glob.get(glob).and_then(|&number| is_above.get_mut(number)) {
                    *above = true;
                }
            }
        }
        let mut is_above = is_above.into_iter();
        self.clauses(
            |_| if is_above.next() == Some(true) { POSITIVE } else { 0 },
            // Ports and networks excuse no open.
            |word| bits(word.rule().except.iter().map(|one| one.to.is_none() && one.port.is_none())),
        )
    }

    /// Of an address, by the smallest of [`Denials::networks`] that it lies in.
    pub fn by_network(&self, network: IpNet) -> Clauses {
        let is_to = |rule: &ConnectRule| {
            rule.to.as_ref().is_none_or(|to| to.cover(&network))
                && !rule.not_to.as_ref().is_some_and(|not_to| not_to.cover(&network))
        };
        let excuses = |one: &Exception| one.to.as_ref().is_none_or(|to| to.cover(&network));
        self.by_connection(is_to, excuses)
    }

    /// Of a protocol and a port, by any of those of one of [`Denials::ports`].
    pub fn by_port(&self, protocol: Protocol, port: u16) -> Clauses {
        let is_to = |rule: &ConnectRule| {
            rule.protocols.contains(&protocol) && rule.ports.as_ref().is_none_or(|ports| has_port(ports, port))
        };
        let excuses = |one: &Exception| one.port.as_ref().is_none_or(|ports| has_port(ports, port));
        self.by_connection(is_to, excuses)
    }

    fn by_connection(&self, is_to: impl Fn(&ConnectRule) -> bool, excuses: impl Fn(&Exception) -> bool) -> Clauses {
        self.clauses(
            |word| match &word.rule().when {
                When::Connect(rule) if is_to(rule) => POSITIVE,
                _ => 0,
            },
            |word| bits(word.rule().except.iter().map(&excuses)),
        )
    }

    /// Puts the words together; of one that speaks of nobody, exceptions do not matter.
    fn clauses(&self, mut positive: impl FnMut(&Word) -> u64, except: impl Fn(&Word) -> u64) -> Clauses {
        let mut words: Vec<u64> = self
            .words
            .iter()
            .map(|word| match positive(word) & (u64::MAX >> (64 - word.pairs.len())) {
                0 => 0,
                low => low | except(word) << POSITIVE_BITS,
            })
            .collect();
        let used = words.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        words.truncate(used);
        Clauses(words)
    }

    /// Every network that a rule names, and those of all addresses: whatever two addresses have the same smallest one of
    /// them are the same to all rules.
    pub fn networks(&self) -> Vec<IpNet> {
        let of_rules = self.words.iter().flat_map(|word| {
            let named = match &word.rule().when {
                When::Connect(rule) => [rule.to.as_ref(), rule.not_to.as_ref()],
                _ => [None, None],
            };
            let excused = word.rule().except.iter().filter_map(|exception| exception.to.as_ref());
            named.into_iter().flatten().chain(excused).flat_map(|destinations| destinations.networks())
        });
        let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let mut networks: Vec<IpNet> = all.into_iter().chain(of_rules.copied()).collect();
        networks.sort();
        networks.dedup();
        networks
    }

    /// All ports, in ranges within which no rule tells two apart.
    pub fn ports(&self) -> Vec<RangeInclusive<u16>> {
        let named = self.words.iter().flat_map(|word| {
            let of_rule = match &word.rule().when {
                When::Connect(rule) => rule.ports.as_ref(),
                _ => None,
            };
            of_rule.into_iter().chain(word.rule().except.iter().filter_map(|one| one.port.as_ref())).flatten()
        });
        let mut begins: Vec<u16> =
            named.flat_map(|range| [Some(*range.start()), range.end().checked_add(1)]).flatten().chain([0]).collect();
        begins.sort_unstable();
        begins.dedup();
        let ends = begins.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        begins.iter().zip(ends).map(|(&begin, end)| begin..=end).collect()
    }

    /// The users that rules tell apart from others: numbers, and names.
    pub fn users(&self) -> (Vec<u32>, Vec<&str>) {
        let mut uids: Vec<u32> = self.selectors.iter().flat_map(|one| one.uid.iter().flatten().copied()).collect();
        let mut names: Vec<&str> =
            self.selectors.iter().flat_map(|one| one.user.iter().flatten().map(String::as_str)).collect();
        uids.sort_unstable();
        uids.dedup();
        names.sort_unstable();
        names.dedup();
        (uids, names)
    }

    /// Executables that rules name by a whole path.
    pub fn programs(&self) -> Vec<&str> {
        let patterns = self.selectors.iter().filter_map(|one| one.exe.as_ref()).flat_map(|exe| exe.patterns());
        let mut plain: Vec<&str> = patterns.map(String::as_str).filter(|pattern| is_plain(pattern)).collect();
        plain.sort_unstable();
        plain.dedup();
        plain
    }
}

/// The first truth is the lowest bit.
fn bits(truths: impl Iterator<Item = bool>) -> u64 {
    truths.take(64).enumerate().fold(0, |bits, (at, truth)| bits | u64::from(truth) << at)
}
