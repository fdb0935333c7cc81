//! The account of what was lost: everything that the kernel programs generated is received, or is told as lost.
//!
//! Each program numbers its records on each CPU. A hole in the numbers must be explained by the ring's own count; one that is
//! not is told as well, because then somebody miscounts. Whatever is lost becomes a [`Loss`] event within [`ACCOUNT_EVERY`].

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::maps::{HashMap as KernelMap, MapData};
use plumbline_ebpf::{
    program,
    record::{Bucket, BucketKey},
};
use tokio::time::MissedTickBehavior;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Counted, Probes, ProbesError};
use crate::{
    clock,
    event::{Event, Loss, Origin, What},
};

/// How often losses are looked for.
pub const ACCOUNT_EVERY: Duration = Duration::from_secs(1);

/// A cgroup that has told nothing for so long is forgotten.
const QUIET_NS: u64 = 60_000_000_000;

/// Numbers that never came, by program and CPU: written as the rings are drained.
#[derive(Debug, Default)]
pub struct Holes(Mutex<HashMap<(u32, u32), Numbers>>);

#[derive(Debug, Default, Clone, Copy)]
struct Numbers {
    next: u64,
    missing: u64,
}

impl Holes {
    /// A record came. Records of one program on one CPU come in the order of their numbers, but for some that come late.
    pub fn saw(&self, origin: Origin) {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = numbers.entry((origin.program, origin.cpu)).or_default();
        if origin.sequence >= numbers.next {
            numbers.missing += origin.sequence - numbers.next;
            numbers.next = origin.sequence + 1;
        } else {
            // A program took its number, was preempted by another of the same number, and came late.
            numbers.missing = numbers.missing.saturating_sub(1);
        }
    }

    /// How many are missing by now.
    pub fn missing(&self) -> Missing {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Missing(numbers.iter().map(|(at, numbers)| (*at, numbers.missing)).collect())
    }
}

/// Missing numbers at one moment. The ring's count that is to explain them must be read after it.
#[derive(Debug, Default)]
pub struct Missing(HashMap<(u32, u32), u64>);

impl Missing {
    fn of(&self, program: usize, cpu: usize) -> u64 {
        let at = (u32::try_from(program).unwrap_or(u32::MAX), u32::try_from(cpu).unwrap_or(u32::MAX));
        self.0.get(&at).copied().unwrap_or(0)
    }
}

/// Turns growing counters into loss events.
#[derive(Debug, Default)]
pub struct LossAccount {
    told: HashMap<(&'static str, usize, usize), u64>,
    recursion: HashMap<&'static str, u64>,
    suppressed: HashMap<(u64, u32), u64>,
}

impl LossAccount {
    /// What was lost since the last call. `missing` was taken before `counted`.
    pub fn settle(
        &mut self,
        missing: &Missing,
        counted: &[Vec<Counted>],
        recursion: &[(&'static str, u64)],
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for (number, cpus) in counted.iter().enumerate() {
            for (cpu, counted) in cpus.iter().enumerate() {
                let unexplained = missing.of(number, cpu).saturating_sub(counted.ring_full);
                for (place, now) in
                    [("ring", counted.ring_full), ("table", counted.table_full), ("sequence", unexplained)]
                {
                    let before = self.told.entry((place, number, cpu)).or_default();
                    if now > *before {
                        let what = program::NAMES[number].to_owned();
                        events.push(lost(place, what, u32::try_from(cpu).ok(), None, now - *before));
                        *before = now;
                    }
                }
            }
        }
        for &(name, misses) in recursion {
            let before = self.recursion.insert(name, misses).unwrap_or(0);
            if misses > before {
                events.push(lost("recursion", name.to_owned(), None, None, misses - before));
            }
        }
        events
    }

    /// What the rate of single cgroups held back since the last call.
    pub fn held_back(&mut self, buckets: Vec<(BucketKey, Bucket)>) -> Vec<Event> {
        let mut events = Vec::new();
        for (key, bucket) in buckets {
            let before = self.suppressed.insert((key.cgroup_id, key.program), bucket.suppressed).unwrap_or(0);
            if bucket.suppressed > before {
                let name = program::NAMES.get(key.program as usize).copied().unwrap_or("unknown");
                let count = bucket.suppressed - before;
                events.push(lost("rate", name.to_owned(), None, Some(key.cgroup_id), count));
            }
        }
        events
    }

    /// The cgroup's entry was taken out of the map: its count begins anew.
    fn forget(&mut self, key: BucketKey) {
        self.suppressed.remove(&(key.cgroup_id, key.program));
    }
}

type KeyWords = [u64; size_of::<BucketKey>() / 8];
type BucketWords = [u64; size_of::<Bucket>() / 8];

impl Probes {
    /// What each cgroup has told and what was held back; those that have been quiet are taken out once they are told.
    pub fn held_back(&mut self, account: &mut LossAccount) -> Result<Vec<Event>, ProbesError> {
        const NAME: &str = "BUCKETS";
        let map = self.ebpf.map_mut(NAME).ok_or(ProbesError::NoMap(NAME))?;
        let error = |error| ProbesError::Map(NAME, Box::new(error));
        let mut map: KernelMap<&mut MapData, KeyWords, BucketWords> = KernelMap::try_from(map).map_err(error)?;
        let entries: Vec<(BucketKey, Bucket)> = map
            .iter()
            .filter_map(Result::ok)
            .filter_map(|(key, bucket)| {
                let key = BucketKey::read_from_bytes(key.as_bytes()).ok()?;
                Some((key, Bucket::read_from_bytes(bucket.as_bytes()).ok()?))
            })
            .collect();
        let events = account.held_back(entries.clone());
        let now_boot_ns = clock::boot_ns();
        for (key, _) in entries.iter().filter(|(_, one)| now_boot_ns.saturating_sub(one.window_boot_ns) > QUIET_NS) {
            let words: KeyWords = super::reads::words(key);
            if map.remove(&words).is_ok() {
                account.forget(*key);
            }
        }
        Ok(events)
    }
}

/// A loss as an event.
pub(super) fn lost(place: &'static str, what: String, cpu: Option<u32>, cgroup_id: Option<u64>, count: u64) -> Event {
    let what = What::Loss(Loss { place, what, cpu, cgroup_id, count });
    Event { boot_ns: clock::boot_ns(), origin: None, task: None, what }
}

/// A ticker for [`LossAccount::settle`].
pub fn account_ticker() -> tokio::time::Interval {
    let mut ticker = tokio::time::interval(ACCOUNT_EVERY);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Place, program, CPU and count of each loss.
    fn told(events: Vec<Event>) -> Vec<(&'static str, String, Option<u32>, u64)> {
        let loss = |event: Event| match event.what {
            What::Loss(loss) => (loss.place, loss.what, loss.cpu, loss.count),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(loss).collect()
    }

    fn counted(ring_full: u64) -> Vec<Vec<Counted>> {
        vec![vec![Counted::default(), Counted { generated: 100, ring_full, table_full: 0 }]]
    }

    #[test]
    fn only_what_was_lost_since_the_last_account_is_told() {
        let (mut account, holes) = (LossAccount::default(), Holes::default());
        let mut settle =
            |ring_full, recursion: &[_]| told(account.settle(&holes.missing(), &counted(ring_full), recursion));
        assert_eq!(settle(3, &[]), [("ring", "file_open".into(), Some(1), 3)]);
        assert_eq!(settle(3, &[]), []);
        assert_eq!(settle(5, &[("exec", 0)]), [("ring", "file_open".into(), Some(1), 2)]);
        assert_eq!(settle(5, &[("exec", 2)]), [("recursion", "exec".into(), None, 2)]);
    }

    #[test]
    fn a_hole_that_the_ring_does_not_explain_is_told() {
        let (mut account, holes) = (LossAccount::default(), Holes::default());
        let saw = |sequence| holes.saw(Origin { generation: 1, program: program::FILE_OPEN, cpu: 1, sequence });
        [0, 1, 5, 3].into_iter().for_each(saw);
        // Two are missing, the ring lost them.
        assert_eq!(
            told(account.settle(&holes.missing(), &counted(2), &[])),
            [("ring", "file_open".into(), Some(1), 2)]
        );
        saw(9);
        // Three more are missing, and the ring knows of one.
        assert_eq!(
            told(account.settle(&holes.missing(), &counted(3), &[])),
            [("ring", "file_open".into(), Some(1), 1), ("sequence", "file_open".into(), Some(1), 2)]
        );
        assert_eq!(told(account.settle(&holes.missing(), &counted(3), &[])), []);
    }

    #[test]
    fn what_a_rate_held_back_is_told_once_per_cgroup() {
        let mut account = LossAccount::default();
        let key = BucketKey { cgroup_id: 7, program: program::TCP_CONNECT, reserved: 0 };
        let bucket = |suppressed| vec![(key, Bucket { suppressed, ..Bucket::default() })];
        assert_eq!(told(account.held_back(bucket(4))), [("rate", "tcp_connect".into(), None, 4)]);
        assert_eq!(told(account.held_back(bucket(4))), []);
        account.forget(key);
        assert_eq!(told(account.held_back(bucket(1))), [("rate", "tcp_connect".into(), None, 1)]);
    }
}
