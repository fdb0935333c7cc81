//! Rules that deny, in the form by which the kernel decides: sets of clauses that are looked up and intersected.
//!
//! A lane is one way in which a rule applies: one entry of the policy's `subject` with one of the rule's own. Its lowest bit is
//! that it does; each other bit is one of the rule's exceptions. Each fact of an event (where, by which program, by which
//! user, and what was opened or connected to) has a [`Clauses`]: of each lane the bits that this fact does not rule out. What all
//! facts leave are the clauses that hold, and a lane denies where its lowest bit is left and no other: where it is 1. So a
//! decision costs a handful of lookups, whatever the number of rules. Lanes are a byte wide, eight to a word; those of rules with
//! many exceptions have a word of their own.
//!
//! The same decision, made by asking each rule, is [`crate::PolicySet::decide`]; a property test holds the two together,
//! and the kernel's with them.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::destination::Destinations;
use crate::facts::{Facts, Object, Protocol, Subject};
use crate::fields::has_port;
use crate::index::{Index, Place};
use crate::object::When;
use crate::object::connect::ConnectRule;
use crate::pattern::{Globs, is_plain};
use crate::policy::{Effect, Exception, Mode, Policy, Rule};
use crate::ports::prefixes;
use crate::set::PolicySet;
use crate::subject::{Part, Selector};

/// Lanes of a byte.
pub const MAX_NARROW: usize = 2048;

/// Lanes of a word.
pub const MAX_WIDE: usize = 128;

/// Users that rules tell apart: half of the kernel's table, which holds two generations at a time.
pub const MAX_USERS: usize = 2047;

/// The same of networks.
pub const MAX_NETWORKS: usize = 65_536;

/// The same of ports, as [`prefixes`] of each protocol.
pub const MAX_PORTS: usize = 65_536;

/// The exceptions that a rule that denies can have.
pub const MAX_EXCEPTIONS: usize = 63;

/// Narrow lanes of a word.
const LANES: usize = 8;

/// Words of narrow lanes, before those of wide ones.
pub const NARROW_WORDS: usize = MAX_NARROW / LANES;

/// Those that a narrow lane has bits for.
const NARROW_EXCEPTIONS: usize = 7;

/// Every rule that denies, of the policies that enforce.
#[derive(Debug, Default)]
pub struct Denials {
    narrow: Vec<Lane>,
    wide: Vec<Lane>,
    /// Each selector once, however many rules have it.
    selectors: Vec<Selector>,
    /// Finds the rules of a directory, and the lanes of each rule.
    index: Arc<Index>,
    of_rule: HashMap<Place, Vec<usize>>,
}

/// One way in which a rule applies.
#[derive(Debug)]
struct Lane {
    policy: Arc<Policy>,
    rule: usize,
    /// An entry of the policy's `subject` and one of the rule's, as places in `selectors`; both must hold, where given.
    who: [Option<usize>; 2],
    /// The subject of each exception.
    except: Vec<usize>,
}

impl Lane {
    fn rule(&self) -> &Rule {
        &self.policy.rules[self.rule]
    }
}

/// The clauses that one fact does not rule out: words that are not 0, by their numbers, in order. The first [`NARROW_WORDS`]
/// have eight narrow lanes each, the first in the lowest byte; each of the others is a wide one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Clauses(Vec<(u16, u64)>);

impl Clauses {
    pub fn words(&self) -> &[(u16, u64)] {
        &self.0
    }

    /// The lanes of which anything is left.
    pub fn lanes(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(|(number, word)| match usize::from(*number).checked_sub(NARROW_WORDS) {
            None => {
                let lanes = word.to_le_bytes().into_iter().enumerate().filter(|(_, bits)| *bits != 0);
                lanes.map(|(lane, _)| usize::from(*number) * LANES + lane).collect::<Vec<_>>()
            }
            Some(wide) => vec![MAX_NARROW + wide],
        })
    }

    /// Nothing is left: whatever the other facts, no rule denies.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    fn word(&self, number: u16) -> u64 {
        self.0.binary_search_by_key(&number, |(number, _)| *number).map_or(0, |at| self.0[at].1)
    }

    /// Lanes come in order.
    fn push(&mut self, lane: usize, bits: u64) {
        if bits == 0 {
            return;
        }
        let (number, bits) = match lane.checked_sub(MAX_NARROW) {
            // A narrow lane has no more bits than a byte.
            None => (lane / LANES, u64::from(bits.to_le_bytes()[0]) << (8 * (lane % LANES))),
            Some(wide) => (NARROW_WORDS + wide, bits),
        };
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        match self.0.last_mut() {
            Some((last, word)) if *last == number => *word |= bits,
            _ => self.0.push((number, bits)),
        }
    }
}

/// More is denied than the kernel has room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooManyDenials {
    #[error(
        "the rules that deny apply in {narrow} ways with up to {NARROW_EXCEPTIONS} exceptions and in {wide} with more, and the \
         kernel takes {MAX_NARROW} and {MAX_WIDE}: let fewer policies enforce"
    )]
    Ways { narrow: usize, wide: usize },
    #[error("the rules that deny name {found} {what}, and the kernel takes {most}: let fewer policies enforce")]
    Named { what: &'static str, found: usize, most: usize },
}

impl PolicySet {
    /// The rules that deny, found once.
    pub fn denials(&self) -> Result<Arc<Denials>, TooManyDenials> {
        let compile = || Denials::of(self.policies(), Arc::clone(&self.index)).map(Arc::new);
        self.denials.get_or_init(compile).clone()
    }
}

impl Denials {
    pub(crate) fn of<'p>(policies: &'p [Arc<Policy>], index: Arc<Index>) -> Result<Self, TooManyDenials> {
        let mut denials = Self { index, ..Self::default() };
        #[expect(clippy::mutable_key_type, reason = "globs are hashed and compared by their patterns, which stay")]
        let mut places: HashMap<&Selector, usize> = HashMap::new();
        let mut place = |selector, selectors: &mut Vec<Selector>| {
            *places.entry(selector).or_insert_with(|| {
                selectors.push(selector.clone());
                selectors.len() - 1
            })
        };
        let enforcing = policies.iter().enumerate().filter(|(_, policy)| policy.mode == Mode::Enforce);
        for (policy_number, policy) in enforcing {
            for (number, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.effect == Effect::Deny) {
                let mut entries = |level: &'p [Selector]| -> Vec<Option<usize>> {
                    match level {
                        [] => vec![None],
                        some => some.iter().map(|one| Some(place(one, &mut denials.selectors))).collect(),
                    }
                };
                let (of_policy, of_rule) = (entries(&policy.subjects), entries(&rule.subjects));
                let except: Vec<usize> =
                    rule.except.iter().map(|exception| place(&exception.who, &mut denials.selectors)).collect();
                let lanes = if except.len() <= NARROW_EXCEPTIONS { &mut denials.narrow } else { &mut denials.wide };
                let first = lanes.len();
                for who in of_policy.iter().flat_map(|one| of_rule.iter().map(move |other| [*one, *other])) {
                    lanes.push(Lane { policy: Arc::clone(policy), rule: number, who, except: except.clone() });
                }
                let before = if except.len() <= NARROW_EXCEPTIONS { 0 } else { MAX_NARROW };
                denials.of_rule.insert((policy_number, number), (before + first..before + lanes.len()).collect());
            }
        }
        let (narrow, wide) = (denials.narrow.len(), denials.wide.len());
        if narrow > MAX_NARROW || wide > MAX_WIDE {
            return Err(TooManyDenials::Ways { narrow, wide });
        }
        let (uids, names) = denials.users();
        for (what, found, most) in [
            ("users", uids.len() + names.len(), MAX_USERS),
            ("networks", denials.networks().len(), MAX_NETWORKS),
            ("runs of ports", 2 * denials.ports().iter().map(|range| prefixes(range).len()).sum::<usize>(), MAX_PORTS),
        ] {
            if found > most {
                return Err(TooManyDenials::Named { what, found, most });
            }
        }
        Ok(denials)
    }

    /// All of them with their numbers, the narrow ones first; the wide ones are counted on after [`MAX_NARROW`].
    fn lanes(&self) -> impl Iterator<Item = (usize, &Lane)> {
        self.narrow.iter().enumerate().chain(self.wide.iter().enumerate().map(|(at, lane)| (MAX_NARROW + at, lane)))
    }

    fn lane(&self, number: usize) -> Option<&Lane> {
        match number.checked_sub(MAX_NARROW) {
            None => self.narrow.get(number),
            Some(wide) => self.wide.get(wide),
        }
    }

    /// Nothing is denied.
    pub fn is_empty(&self) -> bool {
        self.narrow.is_empty() && self.wide.is_empty()
    }

    /// Whether opens are denied.
    pub fn of_opens(&self) -> bool {
        self.lanes().any(|(_, lane)| matches!(lane.rule().when, When::File(_)))
    }

    /// Whether connections are denied.
    pub fn of_connections(&self) -> bool {
        self.lanes().any(|(_, lane)| matches!(lane.rule().when, When::Connect(_)))
    }

    /// The policy and the rule of a lane.
    pub fn rule(&self, lane: usize) -> Option<(&str, &str)> {
        self.lane(lane).map(|lane| (&*lane.policy.name, &*lane.rule().name))
    }

    /// The first lane that denies an event of which these facts are known; all five kinds of facts, or the four of files.
    pub fn denied(&self, facts: &[&Clauses]) -> Option<usize> {
        let (first, others) = facts.split_first()?;
        first.words().iter().find_map(|(number, word)| {
            let left = others.iter().fold(*word, |left, fact| left & fact.word(*number));
            match usize::from(*number).checked_sub(NARROW_WORDS) {
                None => {
                    let lane = left.to_le_bytes().iter().position(|lane| *lane == 1)?;
                    Some(usize::from(*number) * LANES + lane)
                }
                Some(wide) => (left == 1).then_some(MAX_NARROW + wide),
            }
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
        let mut holds = vec![(true, true); self.selectors.len()];
        for (holds, selector) in holds.iter_mut().zip(&self.selectors).filter(|(_, selector)| selector.asks(part)) {
            let mut told = facts.iter().map(|facts| selector.admits_by(part, facts));
            let first = told.next().unwrap_or_default();
            *holds = told.fold((first, first), |(any, all), one| (any || one, all && one));
        }
        self.clauses(
            |lane| lane.who.iter().flatten().all(|&place| holds[place].0),
            |lane| bits(lane.except.iter().map(|&place| holds[place].1)),
        )
    }

    /// Of a file, by every path by which policies named the watched directories above it.
    pub fn by_directory(&self, watched: &[&[u8]]) -> Clauses {
        let of_directory = |lane: &Lane| match &lane.rule().when {
            When::File(file) => watched.iter().any(|path| file.watched.contains(path)),
            _ => false,
        };
        let found: Option<Vec<Vec<Place>>> = watched.iter().map(|path| self.index.watching(path)).collect();
        let mut lanes: Vec<usize> = match found {
            Some(rules) => {
                rules.iter().flatten().filter_map(|rule| self.of_rule.get(rule)).flatten().copied().collect()
            }
            // Too many for an index: then each rule is asked.
            None => self.lanes().filter(|(_, lane)| of_directory(lane)).map(|(number, _)| number).collect(),
        };
        lanes.sort_unstable();
        lanes.dedup();
        let mut clauses = Clauses::default();
        for (number, lane) in lanes.into_iter().filter_map(|number| Some((number, self.lane(number)?))) {
            // Ports and networks excuse no open.
            let except = bits(lane.rule().except.iter().map(|one| one.to.is_none() && one.port.is_none()));
            clauses.push(number, 1 | except << 1);
        }
        clauses
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
            |lane| match &lane.rule().when {
                When::Connect(rule) => is_to(rule),
                _ => false,
            },
            |lane| bits(lane.rule().except.iter().map(&excuses)),
        )
    }

    /// Puts the lanes together; of one that does not apply, exceptions do not matter.
    fn clauses(&self, applies: impl Fn(&Lane) -> bool, except: impl Fn(&Lane) -> u64) -> Clauses {
        let mut clauses = Clauses::default();
        for (number, lane) in self.lanes().filter(|(_, lane)| applies(lane)) {
            clauses.push(number, 1 | except(lane) << 1);
        }
        clauses
    }

    /// Every network that a rule names, and those of all addresses: whatever two addresses have the same smallest one of
    /// them are the same to all rules.
    pub fn networks(&self) -> Vec<IpNet> {
        let of_rules = self.lanes().flat_map(|(_, lane)| {
            let named = match &lane.rule().when {
                When::Connect(rule) => [rule.to.as_ref(), rule.not_to.as_ref()],
                _ => [None, None],
            };
            let excused = lane.rule().except.iter().filter_map(|exception| exception.to.as_ref());
            named.into_iter().flatten().chain(excused).flat_map(Destinations::networks)
        });
        let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let mut networks: Vec<IpNet> = all.into_iter().chain(of_rules.copied()).collect();
        networks.sort();
        networks.dedup();
        networks
    }

    /// All ports, in ranges within which no rule tells two apart.
    pub fn ports(&self) -> Vec<RangeInclusive<u16>> {
        let named = self.lanes().flat_map(|(_, lane)| {
            let of_rule = match &lane.rule().when {
                When::Connect(rule) => rule.ports.as_ref(),
                _ => None,
            };
            of_rule.into_iter().chain(lane.rule().except.iter().filter_map(|one| one.port.as_ref())).flatten()
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
        let patterns = self.selectors.iter().filter_map(|one| one.exe.as_ref()).flat_map(Globs::patterns);
        let mut plain: Vec<&str> = patterns.map(String::as_str).filter(|pattern| is_plain(pattern)).collect();
        plain.sort_unstable();
        plain.dedup();
        plain
    }
}

/// The first truth is the lowest bit.
fn bits(truths: impl Iterator<Item = bool>) -> u64 {
    truths.take(MAX_EXCEPTIONS).enumerate().fold(0, |bits, (at, truth)| bits | u64::from(truth) << at)
}
