//! How long records are kept: whole segments whose youngest record is too old are pruned, one at a time.
//!
//! Nothing is pruned that an exporter has not shipped. The default of 183 days is the six months that the EU's AI Act
//! (articles 19 and 26) asks for; fewer days need a reason in the configuration, which is recorded at each start.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use plumbline_audit::{Reader, prune::holds_bytes, record::Envelope, segment};

use crate::ship::cursor::Cursor;

/// How often it is asked whether something is due.
const ASK_EVERY: Duration = Duration::from_secs(10);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug)]
pub struct Retention {
    log_dir: PathBuf,
    /// Where each exporter stands.
    cursors: Vec<Cursor>,
    days: u64,
    asked: Option<Duration>,
    /// Segments that begin before this record were pruned already, or hold nothing to prune.
    done: u64,
}

impl Retention {
    pub fn new(log_dir: &Path, cursors: &[PathBuf], days: u64) -> Self {
        let cursors = cursors.iter().map(|path| Cursor::at(path)).collect();
        Self { log_dir: log_dir.to_owned(), cursors, days, asked: None, done: 0 }
    }

    /// The record up to which one more segment is to be pruned, and why. With `hurry` age does not matter, if it was
    /// shipped.
    pub fn due(&mut self, now: Duration, unix_ms: u64, hurry: bool) -> Option<(u64, String)> {
        if self.asked.is_some_and(|asked| now.saturating_sub(asked) < ASK_EVERY) {
            return None;
        }
        self.asked = Some(now);
        let due = self.next(unix_ms, hurry);
        due.inspect_err(|error| tracing::error!(%error, "what is due to be pruned is not known")).ok().flatten()
    }

    fn next(&mut self, unix_ms: u64, hurry: bool) -> io::Result<Option<(u64, String)>> {
        let segments = segment::list(&self.log_dir)?;
        for pair in segments.windows(2) {
            let end = pair[1].first_seq;
            if end <= self.done {
                continue;
            }
            if !holds_bytes(&pair[0].path)? {
                self.done = end;
                continue;
            }
            if end > self.shipped()? {
                return Ok(None);
            }
            // Both ends of the segment must be old: one record written while the clock was wrong proves nothing.
            let limit_ms = self.days * DAY_MS;
            let old = |time: Option<u64>| time.is_some_and(|time| unix_ms.saturating_sub(time) > limit_ms);
            if old(time_ms(&self.log_dir, pair[0].first_seq)?) && old(time_ms(&self.log_dir, end)?) {
                return Ok(Some((end, format!("older than {} days", self.days))));
            }
            let reason = "the disk is nearly full, and they were shipped".to_owned();
            return Ok((hurry && !self.cursors.is_empty()).then_some((end, reason)));
        }
        Ok(None)
    }

    /// How many records every exporter has shipped.
    fn shipped(&self) -> io::Result<u64> {
        self.cursors.iter().try_fold(u64::MAX, |least, cursor| {
            cursor.read().map(|shipped| least.min(shipped)).map_err(io::Error::other)
        })
    }
}

/// When the first record from `seq` on that still has its bytes was written.
fn time_ms(log_dir: &Path, seq: u64) -> io::Result<Option<u64>> {
    let entry =
        Reader::from_seq(log_dir, seq).map_err(io::Error::other)?.next().transpose().map_err(io::Error::other)?;
    Ok(entry.and_then(|entry| Envelope::parse(&entry.bytes).ok()?.time_ms()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumbline_audit::{Draft, Log, Options, SigningKey};
    use serde_json::json;

    const NOW_MS: u64 = 1_790_000_000_000;

    /// A log with three records a day for ten days, a segment a day, and today's.
    fn log(dir: &Path) -> Log {
        let options =
            Options { segment_bytes: 1, ..Options::new(SigningKey::from_seed("log.example/a", &[1; 32]).unwrap()) };
        let (mut log, _) = Log::open(dir, options).unwrap();
        for day in (0..10).rev() {
            for _ in 0..3 {
                let event = json!({"class_uid": 1001, "time": NOW_MS - day * DAY_MS});
                log.append(&Draft::new(event.as_object().unwrap().clone()).unwrap()).unwrap();
            }
            log.commit().unwrap();
        }
        log
    }

    /// What falls due at ten-second steps, each pruned.
    fn due(log: &mut Log, retention: &mut Retention, hurry: bool) -> Vec<u64> {
        let mut pruned = Vec::new();
        for step in 0..30 {
            if let Some((to, reason)) = retention.due(Duration::from_secs(step * 10), NOW_MS, hurry) {
                assert!(log.prune(to, &reason).unwrap().is_some());
                pruned.push(to);
            }
        }
        pruned
    }

    #[test]
    fn segments_whose_youngest_record_is_too_old_are_due_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path());
        let segments: Vec<u64> = segment::list(dir.path()).unwrap().iter().map(|segment| segment.first_seq).collect();
        let mut retention = Retention::new(dir.path(), &[], 5);
        // Days 9, 8 and 7 ago; what follows day 6 is five days old, and not older. The first segment holds only the epoch.
        let expect: Vec<u64> = segments[1..].iter().copied().filter(|first| *first <= 10 && *first > 1).collect();
        assert_eq!(due(&mut log, &mut retention, false), expect);
        assert!(due(&mut log, &mut Retention::new(dir.path(), &[], 183), false).is_empty());
    }

    #[test]
    fn what_an_exporter_has_not_shipped_is_kept_whatever_its_age() {
        let (dir, cursors) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut log = log(dir.path());
        let paths = ["otlp", "jsonl"].map(|name| cursors.path().join(name));
        // An exporter that never shipped anything keeps everything.
        assert!(due(&mut log, &mut Retention::new(dir.path(), &paths, 1), false).is_empty());
        Cursor::at(&paths[0]).write(5).unwrap();
        Cursor::at(&paths[1]).write(50).unwrap();
        // In a hurry, age does not matter, and shipping does.
        let mut hurried = Retention::new(dir.path(), &paths, 183);
        assert_eq!(due(&mut log, &mut hurried, true), [4]);
        assert!(due(&mut log, &mut Retention::new(dir.path(), &paths, 1), false).is_empty());
        // Without an exporter, nothing was shipped.
        assert!(due(&mut log, &mut Retention::new(dir.path(), &[], 183), true).is_empty());
    }
}
