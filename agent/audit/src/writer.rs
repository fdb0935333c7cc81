//! Writing one segment file: frames are collected and go to its end together, and are kept until they are durable.
//!
//! A write that stops half way (a full disk) goes on from there at the next attempt. After a flush that failed, the
//! kernel may hold pages clean that never reached the disk, so flushing again proves nothing: the file is written anew,
//! from what was durable and what was kept. Whether and when to write a checkpoint, to commit or to change the segment
//! is decided in `log`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::checkpoint::SignedCheckpoint;
use crate::files;
use crate::frame::{self, Kind};
use crate::segment::{Header, MAGIC, SegmentPath};

#[derive(Debug)]
pub(crate) struct SegmentWriter {
    pub(crate) path: PathBuf,
    pub(crate) first_seq: u64,
    file: File,
    /// The length up to which the file is known to be durable.
    durable: u64,
    /// What comes after it.
    pending: Vec<u8>,
    /// How much of `pending` is in the file.
    written: usize,
    /// A flush failed: what the file holds beyond `durable` is not to be trusted.
    suspect: bool,
    #[cfg(test)]
    pub(crate) fault: Option<Fault>,
}

/// A fault to strike at the next commit, as a full or failing disk would.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The disk takes so many bytes and no more.
    Full { written_bytes: usize },
    /// Bytes are taken and lost.
    FlushFails,
}

impl SegmentWriter {
    /// Creates a segment, complete with header and opening checkpoint, or nothing at all.
    pub(crate) fn create(dir: &Path, header: &Header, opening: &SignedCheckpoint) -> io::Result<Self> {
        let SegmentPath { first_seq, path } = SegmentPath::new(dir, header.first_seq());
        let mut bytes = MAGIC.to_vec();
        frame::encode(Kind::Header, header.to_text().as_bytes(), &mut bytes);
        frame::encode(Kind::Checkpoint, opening.note.as_bytes(), &mut bytes);
        let file = files::replace(&path, &bytes).inspect_err(|_| {
            // A segment that the log does not go on in must not be there: the next attempt may begin at another record.
            let _ = std::fs::remove_file(&path);
        })?;
        Ok(Self::new(path, first_seq, file, bytes.len() as u64))
    }

    /// Goes on with a segment whose whole frames end at `len`, cutting off what follows, and makes it durable.
    pub(crate) fn reopen(segment: SegmentPath, len: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(&segment.path)?;
        if file.metadata()?.len() != len {
            file.set_len(len)?;
        }
        file.sync_all()?;
        file.seek(SeekFrom::Start(len))?;
        Ok(Self::new(segment.path, segment.first_seq, file, len))
    }

    fn new(path: PathBuf, first_seq: u64, file: File, durable: u64) -> Self {
        SegmentWriter {
            path,
            first_seq,
            file,
            durable,
            pending: Vec::new(),
            written: 0,
            suspect: false,
            #[cfg(test)]
            fault: None,
        }
    }

    /// The length that the file has once everything is committed.
    pub(crate) fn len(&self) -> u64 {
        self.durable + self.pending.len() as u64
    }

    /// Bytes that are not durable.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn push(&mut self, kind: Kind, payload: &[u8]) {
        frame::encode(kind, payload, &mut self.pending);
    }

    /// Pushes the record that `write` appends, and shows it. On an error nothing is pushed.
    pub(crate) fn push_record<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<&[u8], E> {
        let payload = frame::encode_with(Kind::Record, &mut self.pending, write)?;
        Ok(&self.pending[payload])
    }

    /// Makes everything pushed durable. On an error nothing is lost, and the next attempt goes on.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.suspect {
            self.rewrite()?;
        } else {
            self.write_pending()?;
            self.sync().inspect_err(|_| self.suspect = true)?;
        }
        self.durable += self.pending.len() as u64;
        self.pending.clear();
        self.written = 0;
        Ok(())
    }

    fn write_pending(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Fault::Full { written_bytes }) = self.fault {
            let to = (self.written + written_bytes).min(self.pending.len());
            self.file.write_all(&self.pending[self.written..to])?;
            self.written = to;
            return Err(io::ErrorKind::StorageFull.into());
        }
        while self.written < self.pending.len() {
            match self.file.write(&self.pending[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Fault::FlushFails) = self.fault {
            self.file.set_len(self.durable)?;
            return Err(io::Error::other("input/output error"));
        }
        self.file.sync_data()
    }

    /// Writes the segment anew beside itself, from what is durable and what is pending, and puts it in its place.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut durable = File::open(&self.path)?.take(self.durable);
        let file = files::replace_with(&self.path, |file| {
            if io::copy(&mut durable, file)? != self.durable {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(&self.pending)
        })?;
        self.file = file;
        self.suspect = false;
        Ok(())
    }
}
