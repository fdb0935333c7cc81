//! The table of reads: what each process has taken of which watched file, told when a file is let go, when a process
//! ends, and while it goes on.
//!
//! The kernel programs add up; this reads. Figures grow from a process's first touch to its end, so nothing is lost between
//! two readings, and a record of an interval that never arrives is made up for by the next.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use aya::maps::{HashMap as KernelMap, MapData};
use plumbline_ebpf::{
    program,
    record::{ProcessKey, ReadKey, Reads},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Probes, ProbesError, canary::Proof, decode};
use crate::{
    clock,
    event::{Coverage, Event, FileKey, FileRead, Told, What},
};

/// While a process goes on reading, its figures are told this often.
pub const INTERVAL_NS: u64 = 10_000_000_000;

/// A process whose entry has not changed for so long is looked for: its exit may have been lost.
const FORGOTTEN_NS: u64 = 60_000_000_000;

/// Names kept of files: as many as the kernel's map `FILES` holds.
const MAX_NAMES: usize = 16_384;

/// Ended processes remembered, because records of the two rings come in turn.
const MAX_ENDED: usize = 256;

type KeyWords = [u64; size_of::<ReadKey>() / 8];
type ReadsWords = [u64; size_of::<Reads>() / 8];
type ProcessWords = [u64; size_of::<ProcessKey>() / 8];

/// The table, and what has been told of it.
#[derive(Debug)]
pub struct ReadsTable {
    reads: KernelMap<MapData, KeyWords, ReadsWords>,
    readers: KernelMap<MapData, ProcessWords, u32>,
    /// The figures that were told last, and when that was.
    told: HashMap<KeyWords, (Figures, u64)>,
    names: HashMap<FileKey, Vec<u8>>,
    counts: Counts,
    /// Processes that had entries and ended lately, and when.
    ended: VecDeque<(u32, u64)>,
    canary: Arc<Proof>,
    /// Processes with entries, and when that was looked at.
    readers_seen: (HashSet<u32>, u64),
}

/// Read, faulted, written, and slices touched: what makes an entry worth telling again.
type Figures = (u64, u64, u64, Coverage);

fn figures(entry: &Reads) -> Figures {
    (entry.bytes_read, entry.bytes_faulted, entry.bytes_written, Coverage::of_slices(&entry.coverage))
}

/// Which figures an attached hook counts.
#[derive(Debug, Clone, Copy)]
struct Counts {
    reads: bool,
    faults: bool,
}

impl ReadsTable {
    /// Takes the maps out; this can be done once.
    pub(super) fn take(probes: &mut Probes, canary: Arc<Proof>) -> Result<Self, ProbesError> {
        let attached =
            |number| probes.verdicts.iter().any(|one| one.hook.program == number && one.attached().is_some());
        let counts = Counts { reads: attached(program::FILE_READ), faults: attached(program::FILE_FAULT) };
        Ok(Self {
            reads: take_map(probes, "READS")?,
            readers: take_map(probes, "READERS")?,
            told: HashMap::new(),
            names: HashMap::new(),
            counts,
            ended: VecDeque::new(),
            canary,
            readers_seen: (HashSet::new(), 0),
        })
    }

    /// The file was found below a watched directory under this name.
    pub fn found(&mut self, key: FileKey, path: Vec<u8>) {
        if self.names.len() < MAX_NAMES || self.names.contains_key(&key) {
            self.names.insert(key, path);
        }
    }

    /// Learns names from opens, and tells the event the name that it does not know.
    pub fn name(&mut self, event: &mut Event) {
        match &mut event.what {
            What::FileOpen(open) if !open.path_truncated => match self.names.get(&open.key) {
                Some(name) if *name != open.path => open.known_as = Some(name.clone()),
                Some(_) => {}
                None => self.found(open.key, open.path.clone()),
            },
            What::FileChange(change) => change.known_as = self.names.get(&change.key).cloned(),
            _ => {}
        }
    }

    /// What this process has taken of the file that it let go, unless that was told.
    pub fn closed(&mut self, pid: u32, start_boot_ns: u64, file: FileKey, now_boot_ns: u64) -> Option<Event> {
        self.canary.takes_close(pid, file);
        let file = plumbline_ebpf::record::FileId { ino: file.ino, dev: file.dev, reserved: 0 };
        let key = words(&ReadKey { file, start_boot_ns, pid, reserved: 0 });
        self.tell(&key, Told::Close, now_boot_ns)
    }

    /// Whether a process of this number had read watched files at that moment. One look at the table answers for all moments
    /// before it: whoever asks often must not make the drain look each time.
    pub fn has_read(&mut self, pid: u32, boot_ns: u64) -> bool {
        let (_, seen_boot_ns) = self.readers_seen;
        if boot_ns > seen_boot_ns {
            let now_boot_ns = clock::boot_ns();
            let keys = self.keys(|_| true).into_iter().filter_map(|key| ReadKey::read_from_bytes(key.as_bytes()).ok());
            self.readers_seen = (keys.map(|key| key.pid).collect(), now_boot_ns);
        }
        let ended_after = |(ended, ended_boot_ns): &(u32, u64)| *ended == pid && *ended_boot_ns >= boot_ns;
        self.readers_seen.0.contains(&pid) || self.ended.iter().any(ended_after)
    }

    /// All that the process has taken; the table forgets it.
    pub fn exited(&mut self, pid: u32, start_boot_ns: u64, now_boot_ns: u64) -> Vec<Event> {
        let keys = self.keys(|key| key.pid == pid && key.start_boot_ns == start_boot_ns);
        let events = keys.iter().filter_map(|key| self.tell(key, Told::Exit, now_boot_ns)).collect();
        for key in keys {
            self.forget(&key);
        }
        if self.ended.len() == MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back((pid, now_boot_ns));
        events
    }

    /// What has changed and was not told for [`INTERVAL_NS`], and the last of processes that ended unseen.
    pub fn due(&mut self, now_boot_ns: u64, is_alive: impl Fn(u32, u64) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        for key in self.keys(|_| true) {
            let Some(entry) = self.entry(&key) else { continue };
            let silent_ns = now_boot_ns.saturating_sub(entry.last_boot_ns);
            let process = ReadKey::read_from_bytes(key.as_bytes()).unwrap_or_default();
            if silent_ns > FORGOTTEN_NS && !is_alive(process.pid, process.start_boot_ns) {
                events.extend(self.tell(&key, Told::Exit, now_boot_ns));
                self.forget(&key);
                continue;
            }
            // Until it is told, an entry waits from its first touch on.
            let since = self.told.get(&key).map_or(entry.header.boot_ns, |(_, told_boot_ns)| *told_boot_ns);
            if now_boot_ns.saturating_sub(since) >= INTERVAL_NS {
                events.extend(self.tell(&key, Told::Interval, now_boot_ns));
            }
        }
        events
    }

    /// All that was not told.
    pub fn rest(&mut self, now_boot_ns: u64) -> Vec<Event> {
        let keys = self.keys(|_| true);
        keys.iter().filter_map(|key| self.tell(key, Told::Stop, now_boot_ns)).collect()
    }

    /// The entry as an event, if it has changed since it was told last.
    fn tell(&mut self, key: &KeyWords, told: Told, now_boot_ns: u64) -> Option<Event> {
        let entry = self.entry(key)?;
        let figures = figures(&entry);
        if self.told.get(key).is_some_and(|(told, _)| *told == figures) {
            return None;
        }
        let ReadKey { file, pid, .. } = ReadKey::read_from_bytes(key.as_bytes()).ok()?;
        if self.canary.takes_reads(pid, FileKey { dev: file.dev, ino: file.ino, generation: 0 }, &entry) {
            self.forget(key);
            return None;
        }
        self.told.insert(*key, (figures, now_boot_ns));
        let file = FileKey { dev: file.dev, ino: file.ino, generation: entry.watched.generation };
        let counted = |counts: bool, bytes: u64| counts.then_some(bytes);
        let read = FileRead {
            path: self.names.get(&file).cloned(),
            key: file,
            watched: FileKey { dev: entry.watched.watched_dev, ino: entry.watched.watched_ino, generation: 0 },
            size_bytes: entry.size_bytes,
            bytes_read: counted(self.counts.reads, entry.bytes_read),
            bytes_faulted: counted(self.counts.faults, entry.bytes_faulted),
            bytes_written: counted(self.counts.reads, entry.bytes_written),
            coverage: Coverage::of_slices(&entry.coverage),
            first_boot_ns: entry.header.boot_ns,
            last_boot_ns: entry.last_boot_ns,
            told,
        };
        let task = Some(decode::task(&entry.header));
        Some(Event { boot_ns: now_boot_ns, origin: None, task, what: What::FileRead(read) })
    }

    fn entry(&self, key: &KeyWords) -> Option<Reads> {
        let words = self.reads.get(key, 0).ok()?;
        let entry = Reads::read_from_bytes(words.as_bytes()).ok()?;
        // A program may be filling it this moment.
        (entry.header.boot_ns != 0 && entry.last_boot_ns != 0).then_some(entry)
    }

    fn keys(&self, wanted: impl Fn(&ReadKey) -> bool) -> Vec<KeyWords> {
        // A key that is removed while they are read makes the kernel begin anew: the same key may come twice.
        let mut seen = HashSet::new();
        let keys = self.reads.keys().filter_map(Result::ok);
        keys.filter(|key| ReadKey::read_from_bytes(key.as_bytes()).is_ok_and(|key| wanted(&key)))
            .filter(|key| seen.insert(*key))
            .collect()
    }

    /// Errors mean that it is gone already.
    fn forget(&mut self, key: &KeyWords) {
        let _ = self.reads.remove(key);
        self.told.remove(key);
        if let Ok(ReadKey { start_boot_ns, pid, .. }) = ReadKey::read_from_bytes(key.as_bytes()) {
            let _ = self.readers.remove(&words(&ProcessKey { start_boot_ns, pid, reserved: 0 }));
        }
    }
}

fn take_map<K: aya::Pod, V: aya::Pod>(
    probes: &mut Probes,
    name: &'static str,
) -> Result<KernelMap<MapData, K, V>, ProbesError> {
    let map = probes.ebpf.take_map(name).ok_or(ProbesError::NoMap(name))?;
    KernelMap::try_from(map).map_err(|error| ProbesError::Map(name, Box::new(error)))
}

/// A key as the words that aya's maps take.
pub(super) fn words<K: zerocopy::IntoBytes + zerocopy::Immutable, const N: usize>(key: &K) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(key.as_bytes().chunks_exact(8)) {
        *word = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    words
}
