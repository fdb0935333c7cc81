//! Every record as a line of a file, for a collector that tails files (Vector, Fluent Bit, Filebeat).
//!
//! A line is the record's exact bytes and a line break. The file is flushed before the cursor moves, so a crash makes a line
//! appear twice and never not at all; a line that was being written is cut off at the next start. Files are rotated by
//! size: `PATH`, `PATH.1`, … Deleting the last of them deletes no evidence: that is the log.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use plumbline_audit::reader::Entry;

use super::sink::{Rejected, Sink, SinkError};
use crate::config::JsonlConfig;

#[derive(Debug)]
pub(super) struct Jsonl {
    config: JsonlConfig,
    file: Option<File>,
}

impl Jsonl {
    pub(super) fn new(config: &JsonlConfig) -> Self {
        Self { config: config.clone(), file: None }
    }

    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            lines.extend_from_slice(&entry.bytes);
            lines.push(b'\n');
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.config)?,
        };
        let len = file.seek(SeekFrom::End(0))?;
        if len > 0 && len + lines.len() as u64 > self.config.rotate_mib << 20 {
            drop(file);
            self.rotate()?;
            file = open(&self.config)?;
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        // Kept only when all went well: after an error the file is opened anew, and half a line cut off.
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.config.keep_files).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.config.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.config.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

/// Opens the file for appending, whole lines only.
fn open(config: &JsonlConfig) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&config.path)?;
    let len = file.metadata()?.len();
    let mut end = len;
    let mut byte = [0];
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        end -= 1;
    }
    if end < len {
        file.set_len(end)?;
    }
    Ok(file)
}

impl Sink for Jsonl {
    const NAME: &'static str = "jsonl";
    const CURSOR: &'static str = "jsonl";

    async fn send(&mut self, entries: &[Entry]) -> Result<Option<Rejected>, SinkError> {
        let path = self.config.path.display().to_string();
        self.write(entries).map_err(|source| SinkError::Write { path, source })?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(texts: &[&str]) -> Vec<Entry> {
        texts.iter().map(|text| Entry { seq: 0, bytes: text.as_bytes().to_vec() }).collect()
    }

    #[test]
    fn lines_are_the_records_and_half_a_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let config = JsonlConfig { path: dir.path().join("audit.jsonl"), rotate_mib: 1, keep_files: 2 };
        Jsonl::new(&config).write(&entries(&["{1}", "{2}"])).unwrap();
        let mut file = OpenOptions::new().append(true).open(&config.path).unwrap();
        file.write_all(b"{half").unwrap();
        Jsonl::new(&config).write(&entries(&["{3}"])).unwrap();
        assert_eq!(fs::read_to_string(&config.path).unwrap(), "{1}\n{2}\n{3}\n");
    }

    #[test]
    fn a_full_file_is_rotated_and_the_last_one_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let config = JsonlConfig { path: dir.path().join("audit.jsonl"), rotate_mib: 1, keep_files: 2 };
        let mut sink = Jsonl::new(&config);
        for letter in ["a", "b", "c", "d"] {
            sink.write(&entries(&[&letter.repeat(700 << 10)])).unwrap();
        }
        let first = |path: PathBuf| fs::read(path).ok().map(|bytes| bytes[0]);
        assert_eq!(first(config.path.clone()), Some(b'd'));
        assert_eq!((first(sink.numbered(1)), first(sink.numbered(2))), (Some(b'c'), Some(b'b')));
        assert_eq!(first(sink.numbered(3)), None);
    }
}
