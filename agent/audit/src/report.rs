//! What verifying found, for people and for programs.

use std::fmt;

use serde::Serialize;

/// The answer, and where it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "finding", rename_all = "lowercase")]
pub enum Verdict {
    /// Every record is the one that was written, in its place, and none says that events were lost.
    Intact,
    /// As intact, but some records declare that events were lost.
    Incomplete,
    /// Something is not as it was written.
    Tampered(Finding),
    /// The log is signed with a key that is not trusted.
    Untrusted(Finding),
}

/// One place in the log, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub file: String,
    pub offset: u64,
    /// The record at the place, or the one that would follow.
    pub seq: u64,
    /// What was expected and what was found.
    pub what: String,
}

/// The result of a verification. The counts cover what comes before the finding, if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub verdict: Verdict,
    pub origin: Option<String>,
    /// The key of the last segment.
    pub key: Option<String>,
    pub segments: u64,
    pub records: u64,
    pub checkpoints: u64,
    /// Records that the last checkpoint signs.
    pub signed_records: u64,
    /// Records after it, not yet signed: they could still be changed unnoticed.
    pub unsigned_records: u64,
    /// The root that the last checkpoint signs, in base64.
    pub root: Option<String>,
    /// Bytes of an unfinished frame at the very end: normal while a writer runs and after a crash.
    pub torn_bytes: u64,
    /// Records that declare that events were lost, or may have been.
    pub declared_gaps: u64,
    /// Records whose bytes were removed, as other records declare; their hashes are proved.
    pub pruned_records: u64,
    /// Epoch keys that signed.
    pub epochs: u64,
    /// Epochs that only the node's key vouches for, because a process began with them.
    pub epochs_by_node: u64,
}

impl Report {
    pub(crate) fn new() -> Self {
        Report {
            verdict: Verdict::Intact,
            origin: None,
            key: None,
            segments: 0,
            records: 0,
            checkpoints: 0,
            signed_records: 0,
            unsigned_records: 0,
            root: None,
            torn_bytes: 0,
            declared_gaps: 0,
            pruned_records: 0,
            epochs: 0,
            epochs_by_node: 0,
        }
    }

    /// Adds the counts of the next segment.
    pub(crate) fn add(&mut self, next: &Report) {
        self.origin = next.origin.clone().or_else(|| self.origin.take());
        self.key = next.key.clone().or_else(|| self.key.take());
        self.segments += next.segments;
        self.records += next.records;
        self.checkpoints += next.checkpoints;
        if next.root.is_some() {
            self.signed_records = next.signed_records;
            self.root.clone_from(&next.root);
        }
        self.unsigned_records = next.unsigned_records;
        self.torn_bytes = next.torn_bytes;
        self.declared_gaps += next.declared_gaps;
        self.pruned_records += next.pruned_records;
        self.epochs += next.epochs;
        self.epochs_by_node += next.epochs_by_node;
    }

    /// The process exit code that says this verdict; 4 is left for questions that could not be answered.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Intact => 0,
            Verdict::Tampered(_) => 1,
            Verdict::Incomplete => 2,
            Verdict::Untrusted(_) => 3,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { records, checkpoints, segments, .. } = self;
        let counts = format!(
            "{}, {}, {}",
            count(*records, "record"),
            count(*checkpoints, "checkpoint"),
            count(*segments, "segment")
        );
        match &self.verdict {
            Verdict::Intact => writeln!(f, "intact: {counts}")?,
            Verdict::Incomplete => writeln!(f, "intact but incomplete, as it declares itself: {counts}")?,
            Verdict::Tampered(finding) => {
                writeln!(f, "TAMPERED at {finding}\n  verified    {counts} before this place")?;
            }
            Verdict::Untrusted(finding) => {
                writeln!(f, "UNTRUSTED KEY at {finding}\n  verified    {counts} before this place")?;
            }
        }
        if let Some(origin) = &self.origin {
            writeln!(f, "  log         {}", origin.escape_debug())?;
        }
        if let Some(key) = &self.key {
            writeln!(f, "  key         {}", key.escape_debug())?;
        }
        if let Some(root) = &self.root {
            writeln!(f, "  signed      the first {}, root {root}", count(self.signed_records, "record"))?;
        }
        if self.epochs > 0 {
            let epochs = count(self.epochs, "epoch key");
            writeln!(f, "  epochs      {epochs}, {} of them vouched for by the node's key alone", self.epochs_by_node)?;
        }
        if self.unsigned_records > 0 {
            let unsigned = count(self.unsigned_records, "record");
            writeln!(f, "  not signed  {unsigned} after the last checkpoint: not yet signed, so not yet proved")?;
        }
        if self.torn_bytes > 0 {
            let bytes = count(self.torn_bytes, "byte");
            writeln!(f, "  unfinished  {bytes} of a frame at the end: normal while a writer runs or after a crash")?;
        }
        if self.declared_gaps > 0 {
            writeln!(f, "  gaps        declared by {}", count(self.declared_gaps, "record"))?;
        }
        if self.pruned_records > 0 {
            let pruned = count(self.pruned_records, "record");
            writeln!(f, "  pruned      the bytes of {pruned}, as the log declares; their hashes are proved")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, offset {}, record seq {}: {}", self.file, self.offset, self.seq, self.what)
    }
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
