//! Reading records by cursor, in order, from any sequence number, also while the log is being written.
//!
//! Memory is one read buffer and one record, whatever the size of the log. The reader checks CRCs, which find
//! accidents; proofs are the verifier's. It yields what was appended, which need not be durable yet: a reader that
//! must not see a record that a power failure could still take back stops at the size of the last checkpoint.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::frame::{FrameError, Kind};
use crate::segment::{self, SegmentError, SegmentFrames, SegmentPath};

/// One record: its place in the log and its exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    pub bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("there is no audit log in {}", dir.display())]
    NotALog { dir: PathBuf },
    #[error("record {wanted} is no longer in the log, which begins with record {first}")]
    Gone { wanted: u64, first: u64 },
    #[error("the log is damaged at {}, offset {offset}", path.display())]
    Damaged { path: PathBuf, offset: u64, source: SegmentError },
}

/// An iterator over records that can be asked again after its end: `None` means "nothing more yet".
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    segment: SegmentPath,
    frames: SegmentFrames,
    /// The record after the last one read.
    seq: u64,
    /// The first record wanted.
    from: u64,
}

impl Reader {
    /// A cursor before record `from`, which need not exist yet.
    pub fn from_seq(dir: &Path, from: u64) -> Result<Reader, ReadError> {
        let segments = segment::list(dir).map_err(|source| ReadError::Io { path: dir.to_owned(), source })?;
        let first = segments.first().ok_or_else(|| ReadError::NotALog { dir: dir.to_owned() })?.first_seq;
        let segment = segments.into_iter().rev().find(|segment| segment.first_seq <= from);
        let segment = segment.ok_or(ReadError::Gone { wanted: from, first })?;
        let frames = open(&segment.path)?;
        Ok(Reader { dir: dir.to_owned(), seq: segment.first_seq, segment, frames, from })
    }

    /// The sequence number of the record that comes next.
    pub fn next_seq(&self) -> u64 {
        self.seq.max(self.from)
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) if frame.kind == Kind::Record => {
                    let seq = self.seq;
                    self.seq += 1;
                    if seq >= self.from {
                        return Ok(Some(Entry { seq, bytes: frame.payload.to_vec() }));
                    }
                }
                // Records without their bytes are passed over: the entries' numbers tell.
                Ok(Some(frame)) if frame.kind == Kind::Pruned => self.seq += frame.payload.len() as u64 / 32,
                Ok(Some(_)) => {}
                Ok(None) => {
                    if !self.go_on(true)? {
                        return Ok(None);
                    }
                }
                Err(FrameError::Torn { bytes }) => {
                    if !self.go_on(false)? {
                        return Ok(None);
                    }
                    if self.frames.end() == self.frames.offset() + bytes {
                        return Err(ReadError::damaged(
                            &self.segment.path,
                            self.frames.offset(),
                            FrameError::Torn { bytes }.into(),
                        ));
                    }
                }
                Err(error) => return Err(ReadError::damaged(&self.segment.path, self.frames.offset(), error.into())),
            }
        }
    }

    /// At the end of what was there: is there more by now? A segment is complete before the next one exists, so the
    /// next is looked for first and the length of this one second.
    fn go_on(&mut self, whole: bool) -> Result<bool, ReadError> {
        let path = &self.segment.path;
        let next = SegmentPath::new(&self.dir, self.seq);
        let followed = self.seq > self.segment.first_seq && next.path.exists();
        let len = fs::metadata(path).map_err(|source| ReadError::Io { path: path.clone(), source })?.len();
        let grown = len != self.frames.end();
        if grown || !whole {
            // By its name: after a failed flush the writer puts a new file in its place, with the same bytes up to here.
            let io = |source| ReadError::Io { path: path.clone(), source };
            let file = File::open(path).map_err(io)?;
            self.frames.go_on_in(file, len).map_err(io)?;
        } else if followed {
            self.frames = open(&next.path)?;
            self.segment = next;
        }
        Ok(grown || followed)
    }
}

impl Iterator for Reader {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}

fn open(path: &Path) -> Result<SegmentFrames, ReadError> {
    let len = fs::metadata(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?.len();
    let (_, frames) = segment::open(path, len).map_err(|error| ReadError::damaged(path, 0, error))?;
    Ok(frames)
}

impl ReadError {
    pub(crate) fn damaged(path: &Path, offset: u64, source: SegmentError) -> Self {
        match source {
            SegmentError::Frame(FrameError::Io(source)) => ReadError::Io { path: path.to_owned(), source },
            source => ReadError::Damaged { path: path.to_owned(), offset, source },
        }
    }
}
