//! Who has just mapped code of a library, as the kernel tells: a record of each mapping of code (`PERF_RECORD_MMAP2`, perf_event_open(2)), of
//! all processes, in a ring for each CPU. So a library is looked at within moments of being loaded, and not at the next look around.
//!
//! A ring that is full, or a CPU that comes later, loses nothing but time: what is mapped is found by looking at all processes as well.

use std::{collections::HashSet, io};

use aya::util::online_cpus;
use perf_event::{Builder, Sampler, data::Record, events::Software};

use super::libraries::kind;

/// Of each ring: some two hundred records.
const BYTES: usize = 32 << 10;

/// Records that are taken from a ring at a time.
const MOST_RECORDS: usize = 4096;

/// Files that have been told of since the last look around.
const MOST_FILES: usize = 1024;

/// A file as the kernel names it there, device, inode and its generation, and who maps it.
type File = (u32, u32, u64, u64, u32);

pub struct Mapped {
    rings: Vec<Sampler>,
    told: HashSet<File>,
    has_lost: bool,
}

impl Mapped {
    /// From now on.
    pub fn open() -> io::Result<Self> {
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        let rings = cpus.into_iter().filter_map(|cpu| usize::try_from(cpu).ok()).map(|cpu| {
            let mut builder = Builder::new(Software::DUMMY);
            builder.any_pid().one_cpu(cpu).mmap(true).mmap2(true).enabled(true);
            builder.build()?.sampled(BYTES)
        });
        Ok(Self { rings: rings.collect::<io::Result<_>>()?, told: HashSet::new(), has_lost: false })
    }

    /// Processes that have mapped a library, and were not told of before for it.
    pub fn news(&mut self) -> HashSet<u32> {
        let mut news = HashSet::new();
        for ring in &mut self.rings {
            for _ in 0..MOST_RECORDS {
                let Some(record) = ring.next_record() else { break };
                let mapping = match record.parse_record() {
                    Ok(Record::Mmap2(mapping)) => mapping,
                    Ok(Record::Lost(_)) => {
                        self.has_lost = true;
                        continue;
                    }
                    _ => continue,
                };
                let (Some(_), Some(inode)) = (kind(&mapping.filename), mapping.ino()) else { continue };
                let [major, minor] = [mapping.maj(), mapping.min()].map(Option::unwrap_or_default);
                let file = (major, minor, inode, mapping.ino_generation().unwrap_or_default(), mapping.pid);
                if self.told.len() < MOST_FILES && self.told.insert(file) {
                    news.insert(mapping.pid);
                }
            }
        }
        news
    }

    /// At a look around: everything is told anew. Whether anything was lost since the last one.
    pub fn forget(&mut self) -> bool {
        self.told.clear();
        std::mem::take(&mut self.has_lost)
    }
}
