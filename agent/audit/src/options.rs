//! How a log is kept: sizes, rhythms, keys.

use std::sync::Arc;
use std::time::Duration;

use crate::epoch::SeedSource;
use crate::key::{SigningKey, random_seed};
use crate::statement::{Keeper, PlainKeeper};

#[derive(Clone, Debug)]
pub struct Options {
    /// Signs the checkpoints; its name is the log's origin.
    pub key: SigningKey,
    /// A segment that has reached this size is followed by a new one.
    pub segment_bytes: u64,
    /// A checkpoint is written after so many records, …
    pub checkpoint_every_records: u64,
    /// … or after so much time, whichever is first, also when nothing happened.
    pub checkpoint_every: Duration,
    /// [`Log::tick`] commits when so many records wait, …
    pub commit_every_records: u64,
    /// … or the first of them has waited so long.
    pub commit_every: Duration,
    /// A new epoch key after so much time.
    pub epoch_every: Duration,
    /// While nothing can be written, so many bytes of records are kept in memory; then appending fails.
    pub backlog_bytes: usize,
    /// Where the secrets of epochs come from.
    pub seeds: SeedSource,
    /// Makes the events around the log's statements.
    pub keeper: Arc<dyn Keeper>,
}

impl Options {
    /// Segments of 64 MiB; a checkpoint every 1024 records or 10 seconds, a commit every 64 records or 50 milliseconds,
    /// a new epoch every 15 minutes.
    pub fn new(key: SigningKey) -> Self {
        Options {
            key,
            segment_bytes: 64 << 20,
            checkpoint_every_records: 1024,
            checkpoint_every: Duration::from_secs(10),
            commit_every_records: 64,
            commit_every: Duration::from_millis(50),
            epoch_every: Duration::from_secs(15 * 60),
            backlog_bytes: 4 << 20,
            seeds: |_| random_seed(),
            keeper: Arc::new(PlainKeeper),
        }
    }
}
