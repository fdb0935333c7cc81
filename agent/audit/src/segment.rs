//! Segment files: their names, their header, and opening one for reading.
//!
//! Layout (`docs/audit-format.md`): eight magic bytes, the header frame, a checkpoint of the tree before the first
//! record (so that a segment stands on its own), then records and checkpoints. Writing is in `writer`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::checkpoint::parse_size;
use crate::frame::{FrameError, Frames, Kind};
use crate::key::VerifierKey;
use crate::merkle::{Frontier, Hash};

/// The first bytes of a segment: a name, and the version of the layout.
pub const MAGIC: [u8; 8] = *b"PLUMBLN\x02";
const NO_EPOCH: &str = "none";
const TITLE: &str = "plumbline audit segment v2";

/// What a segment says of itself and of all records before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The log's name.
    pub origin: String,
    /// The node's key, which signs every checkpoint.
    pub key: VerifierKey,
    /// The key that signs beside it; none only before the first record.
    pub epoch: Option<EpochKey>,
    /// The leaf hash of the record before the first; [`Hash::ZERO`] where there is none.
    pub prev: Hash,
    /// The tree before the first record; its size is the sequence number of the first record.
    pub tree: Frontier,
}

/// An epoch as a verifier knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochKey {
    pub number: u64,
    pub key: VerifierKey,
    /// No more records than this are ever unsigned.
    pub max_unsigned: u64,
}

impl EpochKey {
    fn to_text(&self) -> String {
        format!("{} {} {}", self.number, self.max_unsigned, self.key)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (number, max_unsigned) = (parse_size(parts.next()?)?, parse_size(parts.next()?)?);
        Some(EpochKey { number, max_unsigned, key: parts.next()?.parse().ok()? })
    }
}

/// The name of the key of an epoch.
pub fn epoch_key_name(origin: &str, number: u64) -> String {
    format!("{origin}/e{number}")
}

#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("expected the magic bytes of a segment, found {}", .found.escape_ascii())]
    Magic { found: Vec<u8> },
    #[error("expected layout version {expected} of a segment, found version {found}: another version of this program wrote it", expected = MAGIC[7])]
    Version { found: u8 },
    #[error("expected a segment header, found a frame of kind {found:?}")]
    Kind { found: Option<Kind> },
    #[error("expected `{expected}` in line {line} of the segment header")]
    Header { line: usize, expected: &'static str },
    #[error("expected a segment header in its one canonical form: its root does not fit its subtrees")]
    Canonical,
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Header {
    pub fn first_seq(&self) -> u64 {
        self.tree.size()
    }

    pub fn to_text(&self) -> String {
        let Header { origin, key, epoch, prev, tree } = self;
        let epoch = epoch.as_ref().map_or_else(|| NO_EPOCH.to_owned(), EpochKey::to_text);
        let (size, root) = (tree.size(), tree.root().to_base64());
        let mut text = format!("{TITLE}\norigin {origin}\nkey {key}\nepoch {epoch}\n");
        text += &format!("first_seq {size}\nprev {prev}\nroot {root}\n");
        for subtree in tree.subtrees() {
            text += &format!("subtree {}\n", subtree.to_base64());
        }
        text
    }

    pub fn parse(payload: &[u8]) -> Result<Self, SegmentError> {
        let text = str::from_utf8(payload).map_err(|_| SegmentError::Header { line: 1, expected: TITLE })?;
        let mut lines = Lines { rest: text.split_terminator('\n'), line: 0 };
        lines
            .take("", TITLE)
            .filter(|rest| rest.is_empty())
            .ok_or(SegmentError::Header { line: 1, expected: TITLE })?;
        let origin = lines.value("origin ", |text| (!text.is_empty()).then(|| text.to_owned()))?;
        let key = lines.value("key ", |text| text.parse().ok())?;
        let epoch = lines.value("epoch ", |text| match text {
            NO_EPOCH => Some(None),
            text => EpochKey::parse(text).map(Some),
        })?;
        let first_seq = lines.value("first_seq ", parse_size)?;
        let prev = lines.value("prev ", Hash::from_hex)?;
        lines.value("root ", Hash::from_base64)?;
        let subtrees = (0..first_seq.count_ones()).map(|_| lines.value("subtree ", Hash::from_base64));
        let subtrees = subtrees.collect::<Result<Vec<_>, _>>()?;
        let tree = Frontier::from_parts(first_seq, subtrees).expect("one subtree was read for each bit of the size");
        let header = Header { origin, key, epoch, prev, tree };
        // One comparison stands for the root, the missing or extra lines, and every other spelling of a value.
        if header.to_text() == text { Ok(header) } else { Err(SegmentError::Canonical) }
    }
}

struct Lines<'a> {
    rest: std::str::SplitTerminator<'a, char>,
    line: usize,
}

impl<'a> Lines<'a> {
    fn take(&mut self, key: &str, title: &str) -> Option<&'a str> {
        self.line += 1;
        self.rest.next()?.strip_prefix(key)?.strip_prefix(title)
    }

    fn value<T>(&mut self, key: &'static str, parse: impl Fn(&'a str) -> Option<T>) -> Result<T, SegmentError> {
        let value = self.take(key, "").and_then(parse);
        value.ok_or(SegmentError::Header { line: self.line, expected: key })
    }
}

/// A segment file in a log directory, by the sequence number in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPath {
    pub first_seq: u64,
    pub path: PathBuf,
}

impl SegmentPath {
    pub fn new(dir: &Path, first_seq: u64) -> Self {
        SegmentPath { first_seq, path: dir.join(file_name(first_seq)) }
    }
}

/// Twenty digits: names sort as numbers do.
pub fn file_name(first_seq: u64) -> String {
    format!("segment-{first_seq:020}.plog")
}

/// The segments of a log in order. Other files in the directory are not its business.
pub fn list(dir: &Path) -> io::Result<Vec<SegmentPath>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".plog"));
        if let Some(first_seq) = digits.and_then(|digits| digits.parse().ok())
            && name.to_str() == Some(&file_name(first_seq))
        {
            segments.push(SegmentPath { first_seq, path: entry.path() });
        }
    }
    segments.sort_by_key(|segment| segment.first_seq);
    Ok(segments)
}

/// The frames of a segment file.
pub type SegmentFrames = Frames<File>;

/// Opens a segment, reads its header, and stands before the frame after it; reads no further than `end`.
pub fn open(path: &Path, end: u64) -> Result<(Header, SegmentFrames), SegmentError> {
    let mut reader = File::open(path).map_err(FrameError::Io)?;
    let mut magic = Vec::new();
    reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(FrameError::Io)?;
    if let [name @ .., found] = magic.as_slice()
        && *found != MAGIC[7]
        && *name == MAGIC[..7]
    {
        return Err(SegmentError::Version { found: *found });
    }
    if magic != MAGIC {
        return Err(SegmentError::Magic { found: magic });
    }
    let mut frames = Frames::new(reader, MAGIC.len() as u64, end);
    let header = match frames.next_frame()? {
        Some(frame) if frame.kind == Kind::Header => Header::parse(frame.payload)?,
        frame => return Err(SegmentError::Kind { found: frame.map(|frame| frame.kind) }),
    };
    Ok((header, frames))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;
    use crate::merkle::leaf_hash;
    use proptest::prelude::*;

    fn header(records: u64) -> Header {
        let key = |name: &str| SigningKey::from_seed(name, &[1; 32]).unwrap().verifier().clone();
        let epoch = EpochKey { number: 7, max_unsigned: 1024, key: key("log.example/a/e7") };
        let tree: Frontier = (0..records).map(|n| leaf_hash(&n.to_le_bytes())).collect();
        let prev = if records == 0 { Hash::ZERO } else { leaf_hash(&(records - 1).to_le_bytes()) };
        Header {
            origin: "log.example/a".into(),
            key: key("log.example/a"),
            epoch: (records > 0).then_some(epoch),
            prev,
            tree,
        }
    }

    #[track_caller]
    fn check_refused(text: &str, expect: &str) {
        assert_eq!(Header::parse(text.as_bytes()).unwrap_err().to_string(), expect);
    }

    #[test]
    fn malformed_headers_say_which_line_is_wrong() {
        let good = header(3).to_text();
        check_refused("", "expected `plumbline audit segment v2` in line 1 of the segment header");
        check_refused(
            &good.replace(" v2", " v3"),
            "expected `plumbline audit segment v2` in line 1 of the segment header",
        );
        check_refused(
            &good.replace("first_seq 3", "first_seq 03"),
            "expected `first_seq ` in line 5 of the segment header",
        );
        check_refused(
            &good.replace("first_seq 3", "first_seq 7"),
            "expected `subtree ` in line 10 of the segment header",
        );
        check_refused(&good.replace("epoch 7", "epoch x"), "expected `epoch ` in line 4 of the segment header");
        let canonical = "expected a segment header in its one canonical form: its root does not fit its subtrees";
        check_refused(&good.replace(&header(3).tree.root().to_base64(), &Hash::ZERO.to_base64()), canonical);
        check_refused(&format!("{good}more\n"), canonical);
        check_refused(good.trim_end(), canonical);
    }

    proptest! {
        #[test]
        fn a_header_reads_back(records in 0u64..200) {
            let header = header(records);
            prop_assert_eq!(Header::parse(header.to_text().as_bytes()).unwrap(), header);
        }

        #[test]
        fn no_bytes_make_the_header_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), at in 0usize..400) {
            let mut near = header(5).to_text().into_bytes();
            let at = at.min(near.len());
            near.splice(at..at, bytes);
            let _ = Header::parse(&near);
        }
    }
}
