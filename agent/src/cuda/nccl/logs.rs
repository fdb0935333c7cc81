//! NCCL's warnings out of the files in which its log ends up, or out of journald: told once for each process and place, and counted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use plumbline_policy::Severity;

use super::{journal::Journal, warning::Warning};
use crate::{
    event::Finding,
    series::{Point, nccl},
};

/// Files that are followed at a time.
const MOST_FILES: usize = 4096;

/// Of a file, in one look; and how far it may be ahead before what lies between is skipped.
const MOST_BYTES: usize = 1 << 20;
const MOST_AHEAD: u64 = 16 << 20;

/// What is told in one look, and is remembered as told; what is beyond is counted.
const MOST_FINDINGS: usize = 16;
const MOST_TOLD: usize = 4096;

/// Places in NCCL's source that are counted one by one.
const MOST_PLACES: usize = 64;

/// The place of all others.
const OTHER: &str = "other";

#[derive(Debug, Default)]
pub struct Logs {
    patterns: Vec<String>,
    journal: Option<Journal>,
    files: HashMap<(u64, u64), Followed>,
    /// What was there at the first look is read from its end.
    has_looked: bool,
    told: HashSet<(String, u32, String)>,
    counts: BTreeMap<String, u64>,
    skipped_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Followed {
    offset: u64,
    /// Within a line that is longer than what is read at a time.
    is_within: bool,
}

impl Logs {
    pub fn of(patterns: &[String], journal: Option<&Path>) -> Self {
        Self { patterns: patterns.to_vec(), journal: journal.map(Journal::of), ..Self::default() }
    }

    /// What was written since the last look.
    pub fn look(&mut self) -> Vec<Finding> {
        let paths: Vec<PathBuf> = self
            .patterns
            .iter()
            .filter_map(|pattern| glob::glob(pattern).ok())
            .flatten()
            .filter_map(Result::ok)
            .take(MOST_FILES)
            .collect();
        let mut now = HashMap::new();
        let mut findings = Vec::new();
        for path in paths {
            // A file that cannot be read now may be at the next look.
            let Ok((file, key, bytes)) = open(&path) else { continue };
            let fresh = Followed { offset: if self.has_looked { 0 } else { bytes }, is_within: false };
            // Two names of one file are one.
            let mut followed = match now.get(&key) {
                Some(_) => continue,
                None => self.files.get(&key).copied().unwrap_or(fresh),
            };
            // As those are that are cut off and written anew.
            if followed.offset > bytes {
                followed = Followed::default();
            }
            if bytes - followed.offset > MOST_AHEAD {
                let offset = bytes - MOST_BYTES as u64;
                self.skipped_bytes += offset - followed.offset;
                followed = Followed { offset, is_within: true };
            }
            if followed.offset < bytes {
                let _ = self.read(&file, &mut followed, &mut findings);
            }
            now.insert(key, followed);
        }
        self.files = now;
        self.has_looked = true;
        let journal = self.journal.as_mut().map(Journal::look).unwrap_or_default();
        for warning in journal.split(|&byte| byte == b'\n').filter_map(Warning::of) {
            findings.extend(self.observe(warning, findings.len()));
        }
        findings
    }

    /// Whole lines; what is behind the last of them waits until it is one.
    fn read(&mut self, file: &File, followed: &mut Followed, findings: &mut Vec<Finding>) -> io::Result<()> {
        let mut buffer = vec![0; MOST_BYTES];
        let bytes = file.read_at(&mut buffer, followed.offset)?;
        let read = &buffer[..bytes];
        let Some(end) = memchr::memrchr(b'\n', read) else {
            if bytes == MOST_BYTES {
                followed.is_within = true;
                followed.offset += bytes as u64;
                self.skipped_bytes += bytes as u64;
            }
            return Ok(());
        };
        followed.offset += end as u64 + 1;
        let mut lines = read[..end].split(|&byte| byte == b'\n');
        if std::mem::take(&mut followed.is_within) {
            lines.next();
        }
        for warning in lines.filter_map(Warning::of) {
            findings.extend(self.observe(warning, findings.len()));
        }
        Ok(())
    }

    fn observe(&mut self, warning: Warning, findings: usize) -> Option<Finding> {
        let Warning { host, pid, device, place, message } = warning;
        let is_known = self.counts.contains_key(&place);
        let counted = if is_known || self.counts.len() < MOST_PLACES { place.clone() } else { OTHER.to_owned() };
        *self.counts.entry(counted).or_default() += 1;
        let text = format!("NCCL in process {pid} of {host}, on its device {device}: {message} ({place})");
        let is_told =
            findings >= MOST_FINDINGS || self.told.len() >= MOST_TOLD || !self.told.insert((host, pid, place));
        // The process is of a namespace that the line does not say.
        (!is_told).then(|| Finding::new("nccl.warning", Severity::Medium, "node".to_owned(), text))
    }

    pub fn are_followed(&self) -> bool {
        !self.patterns.is_empty() || self.journal.is_some()
    }

    /// Nothing where nobody wants to know.
    pub fn points(&self) -> Vec<Point> {
        if !self.are_followed() {
            return Vec::new();
        }
        #[expect(clippy::cast_precision_loss, reason = "counts and bytes")]
        let float = |number: u64| number as f64;
        let counts =
            self.counts.iter().map(|(place, count)| Point::new(&nccl::WARNINGS_TOTAL, &[place], float(*count)));
        let own = [
            Point::new(&nccl::LOG_FILES, &[], float(self.files.len() as u64)),
            Point::new(
                &nccl::LOG_JOURNAL,
                &[],
                f64::from(u8::from(self.journal.as_ref().is_some_and(Journal::is_followed))),
            ),
            Point::new(&nccl::LOG_SKIPPED_BYTES_TOTAL, &[], float(self.skipped_bytes)),
        ];
        counts.chain(own).collect()
    }
}

/// A regular file, its device and inode, and its size. A pipe of that name is not waited for.
fn open(path: &Path) -> io::Result<(File, (u64, u64), u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((file, (metadata.dev(), metadata.ino()), metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn line(pid: u32, place: &str) -> String {
        format!("gpu-7:{pid}:{pid} [0] {place} NCCL WARN no more\n")
    }

    fn append(path: &Path, text: &str) {
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn told(logs: &mut Logs) -> Vec<String> {
        logs.look().into_iter().map(|finding| finding.text).collect()
    }

    fn counts(logs: &Logs) -> Vec<(&str, u64)> {
        logs.counts.iter().map(|(place, count)| (place.as_str(), *count)).collect()
    }

    fn of(pid: u32, place: &str) -> String {
        format!("NCCL in process {pid} of gpu-7, on its device 0: no more ({place})")
    }

    #[test]
    fn what_is_written_from_now_on_is_told_once_for_each_process_and_place_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.log");
        append(&path, &line(1, "old.cc:1"));
        let mut logs = Logs::of(&[directory.path().join("*.log").display().to_string()], None);
        assert!(told(&mut logs).is_empty());
        append(&path, &(line(1, "a.cc:1") + &line(1, "a.cc:1") + "an engine's own\n" + &line(2, "a.cc:1")));
        assert_eq!(told(&mut logs), [of(1, "a.cc:1"), of(2, "a.cc:1")]);
        // Half a line is none yet.
        let next = line(3, "b.cc:1");
        append(&path, &next[..20]);
        assert!(told(&mut logs).is_empty());
        append(&path, &next[20..]);
        assert_eq!(told(&mut logs), [of(3, "b.cc:1")]);
        // Another file, from its beginning.
        append(&directory.path().join("two.log"), &line(4, "a.cc:1"));
        assert_eq!(told(&mut logs), [of(4, "a.cc:1")]);
        assert_eq!(counts(&logs), [("a.cc:1", 4), ("b.cc:1", 1)]);
    }

    #[test]
    fn a_file_that_is_renamed_goes_on_and_one_that_is_cut_off_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one.log");
        let mut logs = Logs::of(&[directory.path().join("one.log*").display().to_string()], None);
        assert!(told(&mut logs).is_empty());
        append(&path, &line(1, "a.cc:1"));
        assert_eq!(told(&mut logs).len(), 1);
        fs::rename(&path, directory.path().join("one.log.1")).unwrap();
        append(&path, &line(2, "a.cc:1"));
        assert_eq!(told(&mut logs), [of(2, "a.cc:1")]);
        fs::write(&path, "").unwrap();
        assert!(told(&mut logs).is_empty());
        append(&path, &line(3, "a.cc:1"));
        assert_eq!(told(&mut logs), [of(3, "a.cc:1")]);
    }

    #[test]
    fn what_is_no_file_is_not_waited_for_and_what_is_too_long_is_counted_as_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe.log");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let mut logs = Logs::of(&[directory.path().join("*.log").display().to_string()], None);
        assert!(told(&mut logs).is_empty());
        let path = directory.path().join("one.log");
        append(&path, &("x".repeat(MOST_BYTES) + &line(1, "a.cc:1") + &line(2, "a.cc:1")));
        assert!(told(&mut logs).is_empty());
        assert_eq!(told(&mut logs), [of(2, "a.cc:1")]);
        assert_eq!(logs.skipped_bytes, MOST_BYTES as u64);
        fs::write(&path, vec![b'\n'; usize::try_from(MOST_AHEAD).unwrap() + 2 * MOST_BYTES]).unwrap();
        told(&mut logs);
        assert!(logs.skipped_bytes > MOST_AHEAD);
    }

    #[test]
    fn a_flood_is_counted_and_tells_a_few() {
        let directory = tempfile::tempdir().unwrap();
        let mut logs = Logs::of(&[directory.path().join("*.log").display().to_string()], None);
        assert!(told(&mut logs).is_empty());
        let flood: String = (0..200).map(|number| line(number, &format!("a.cc:{number}"))).collect();
        append(&directory.path().join("one.log"), &flood);
        assert_eq!(told(&mut logs).len(), MOST_FINDINGS);
        assert_eq!(logs.counts.len(), MOST_PLACES + 1);
        assert_eq!((logs.counts[OTHER], logs.counts.values().sum::<u64>()), (136, 200));
    }
}
