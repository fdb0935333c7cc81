//! A copy of a log that ends with its published checkpoint: what is handed to a reviewer, also while the log is written.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::checkpoint::SignedCheckpoint;
use crate::frame::Kind;
use crate::log::CHECKPOINT_FILE;
use crate::reader::ReadError;
use crate::segment;

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the published checkpoint is not in the segments: verify the log")]
    NoCheckpoint,
}

/// Copies the segments as far as `signed` signs them, and the checkpoint, to the directory `out`.
pub fn copy_sealed(log_dir: &Path, signed: &SignedCheckpoint, out: &Path) -> Result<(), CopyError> {
    let writing = |path: &Path| {
        let path = path.to_owned();
        move |source| CopyError::Write { path, source }
    };
    fs::create_dir_all(out).map_err(writing(out))?;
    let listed = segment::list(log_dir).map_err(|source| ReadError::Io { path: log_dir.to_owned(), source })?;
    let wanted: Vec<_> = listed.into_iter().filter(|segment| segment.first_seq <= signed.checkpoint.size).collect();
    // A segment's opening repeats the checkpoint before it, so the last that holds the note may be almost empty.
    let mut end = None;
    let mut kept = wanted.len();
    for segment in wanted.iter().rev() {
        end = end_of_note(&segment.path, &signed.note)?;
        if end.is_some() {
            break;
        }
        kept -= 1;
    }
    let Some(end) = end else { return Err(CopyError::NoCheckpoint) };
    for (index, segment) in wanted[..kept].iter().enumerate() {
        let name = segment.path.file_name().unwrap_or_default();
        let target = out.join(name);
        let source =
            File::open(&segment.path).map_err(|source| ReadError::Io { path: segment.path.clone(), source })?;
        let bytes = if index + 1 == kept { end } else { u64::MAX };
        let copied = File::create(&target).and_then(|mut file| io::copy(&mut source.take(bytes), &mut file));
        copied.map_err(writing(&target))?;
    }
    let path = out.join(CHECKPOINT_FILE);
    fs::write(&path, &signed.note).map_err(writing(&path))
}

/// Where the first frame that is this note ends.
fn end_of_note(path: &Path, note: &str) -> Result<Option<u64>, ReadError> {
    let len = fs::metadata(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?.len();
    let (_, mut frames) = segment::open(path, len).map_err(|source| ReadError::damaged(path, 0, source))?;
    loop {
        let offset = frames.offset();
        match frames.next_frame() {
            Ok(Some(frame)) => {
                let is_checkpoint = matches!(frame.kind, Kind::Checkpoint | Kind::ClosingCheckpoint);
                if is_checkpoint && frame.payload == note.as_bytes() {
                    return Ok(Some(frames.offset()));
                }
            }
            Ok(None) | Err(crate::frame::FrameError::Torn { .. }) => return Ok(None),
            Err(error) => return Err(ReadError::damaged(path, offset, error.into())),
        }
    }
}
