//! Writing one segment file: frames go to its end whole or not at all.
//!
//! A write that fails (a full disk) is undone by cutting the file back to its last whole frame, so that a later write
//! can succeed. Whether and when to write a checkpoint, to flush or to change the segment is decided in `log`.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
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
    /// The length up to the last whole frame, which is where the file is cut back to.
    len: u64,
    buffer: Vec<u8>,
    #[cfg(test)]
    pub(crate) fault: Option<Fault>,
}

/// What became of a frame that could not be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The file is as it was before.
    Undone(io::Error),
    /// A part of the frame may be in the file, and cutting it off failed too.
    Stuck { write: io::Error, undo: io::Error },
}

/// A fault to strike at the next write, as a full or failing disk would.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) written_bytes: usize,
    pub(crate) undo_fails: bool,
}

impl SegmentWriter {
    /// Creates a segment, complete with header and opening checkpoint, or nothing at all.
    pub(crate) fn create(dir: &Path, header: &Header, opening: &SignedCheckpoint) -> io::Result<Self> {
        let SegmentPath { first_seq, path } = SegmentPath::new(dir, header.first_seq());
        let mut bytes = MAGIC.to_vec();
        frame::encode(Kind::Header, header.to_text().as_bytes(), &mut bytes);
        frame::encode(Kind::Checkpoint, opening.note.as_bytes(), &mut bytes);
        let file = files::replace(&path, &bytes)?;
        Ok(Self::new(path, first_seq, file, bytes.len() as u64))
    }

    /// Goes on with a segment whose whole frames end at `len`, cutting off what follows.
    pub(crate) fn reopen(segment: SegmentPath, len: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(&segment.path)?;
        if file.metadata()?.len() != len {
            file.set_len(len)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(len))?;
        Ok(Self::new(segment.path, segment.first_seq, file, len))
    }

    fn new(path: PathBuf, first_seq: u64, file: File, len: u64) -> Self {
        SegmentWriter {
            path,
            first_seq,
            file,
            len,
            buffer: Vec::new(),
            #[cfg(test)]
            fault: None,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn append(&mut self, kind: Kind, payload: &[u8]) -> Result<(), WriteError> {
        self.buffer.clear();
        frame::encode(kind, payload, &mut self.buffer);
        match self.write_buffer() {
            Ok(()) => {
                self.len += self.buffer.len() as u64;
                Ok(())
            }
            Err(write) => match self.cut_back() {
                Ok(()) => Err(WriteError::Undone(write)),
                Err(undo) => Err(WriteError::Stuck { write, undo }),
            },
        }
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Fault { written_bytes, .. }) = self.fault {
            self.file.write_all(&self.buffer[..written_bytes.min(self.buffer.len())])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(&self.buffer)
    }

    fn cut_back(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Fault { undo_fails: true, .. }) = self.fault {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
