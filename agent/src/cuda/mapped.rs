//! Who has just mapped code of a library, as the kernel tells: a record of each mapping of code (`PERF_RECORD_MMAP2`, perf_event_open(2)), of
//! all processes, in a ring for each CPU. So a library is looked at within moments of being loaded, and not at the next look around.
//!
//! A ring that is full, or a CPU that comes later, loses nothing but time: what is mapped is found by looking at all processes as well.

use std::{collections::HashSet, io};

use aya::util::online_cpus;
use perf_event::{Builder, Sampler, data::Record, events::Software};

use super::libraries::kind;

/// Of each ring: 16 KiB, about a hundred records.
const PAGES: usize = 4;

/// Records that are taken from a ring at a time.
const MOST_RECORDS: usize = 4096;

/// Files that have been told of since the last look around.
const MOST_FILES: usize = 1024;

/// A file as the kernel names it there: device, inode and its generation.
type File = (u32, u32, u64, u64);

pub struct Mapped {
    rings: Vec<Sampler>,
    told: HashSet<File>,
}

impl Mapped {
    /// From now on.
    pub fn open() -> io::Result<Self> {
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        let rings = cpus.into_iter().filter_map(|cpu| usize::try_from(cpu).ok()).map(|cpu| {
            let mut builder = Builder::new(Software::DUMMY);
            builder.any_pid().one_cpu(cpu).mmap(true).mmap2(true).enabled(true);
            builder.build()?.sampled(PAGES)
        });
        Ok(Self { rings: rings.collect::<io::Result<_>>()?, told: HashSet::new() })
    }

    /// Whether a library was mapped that has not been told of before.
    pub fn has_news(&mut self) -> bool {
        let mut has_news = false;
        for ring in &mut self.rings {
            for _ in 0..MOST_RECORDS {
                let Some(record) = ring.next_record() else { break };
                let Ok(Record::Mmap2(mapping)) = record.parse_record() else { continue };
                let (Some(_), Some(inode)) = (kind(&mapping.filename), mapping.ino()) else { continue };
                let [major, minor] = [mapping.maj(), mapping.min()].map(Option::unwrap_or_default);
                let file = (major, minor, inode, mapping.ino_generation().unwrap_or_default());
                has_news |= self.told.len() < MOST_FILES && self.told.insert(file);
            }
        }
        has_news
    }

    /// Tells again of all: what is attached has changed.
    pub fn forget(&mut self) {
        self.told.clear();
    }
}
