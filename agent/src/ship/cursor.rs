//! Where an exporter stands in the log: the sequence number of the first record that its receiver has not
//! acknowledged, in a file that is replaced whole.
//!
//! One line, `plumbline-cursor/v1 NUMBER`. It is written after the acknowledgement, so a crash in between makes the
//! exporter send once more, never once less.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::files;

/// What the line starts with: the format and its version.
const FORMAT: &str = "plumbline-cursor/v1 ";

#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
}

/// Why it is not known what was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    #[error("cannot read the cursor {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the cursor {} does not hold `{FORMAT}NUMBER`", path.display())]
    Format { path: PathBuf },
}

impl Cursor {
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The record to send first; 0 where nothing was ever acknowledged.
    pub fn read(&self) -> Result<u64, CursorError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(source) => return Err(CursorError::Read { path: self.path.clone(), source }),
        };
        let number = text.strip_prefix(FORMAT).and_then(|rest| rest.strip_suffix('\n')?.parse().ok());
        number.ok_or_else(|| CursorError::Format { path: self.path.clone() })
    }

    /// Durable when it returns.
    pub fn write(&self, next: u64) -> io::Result<()> {
        files::replace(&self.path, format!("{FORMAT}{next}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_written_is_the_beginning() {
        let scratch = tempfile::tempdir().unwrap();
        let cursor = Cursor::at(&scratch.path().join("cursor/otlp"));
        assert_eq!(cursor.read().unwrap(), 0);
        cursor.write(41).unwrap();
        cursor.write(42).unwrap();
        assert_eq!(cursor.read().unwrap(), 42);
    }

    #[test]
    fn anything_but_a_whole_cursor_is_an_error_and_not_a_number() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("otlp");
        for text in ["", "42\n", "plumbline-cursor/v1 4", "plumbline-cursor/v1 -4\n", "plumbline-cursor/v2 4\n"] {
            fs::write(&path, text).unwrap();
            assert!(Cursor::at(&path).read().is_err(), "{text:?}");
        }
    }
}
