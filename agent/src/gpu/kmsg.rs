//! The kernel's log as it grows: `/dev/kmsg`, one record a read (`Documentation/ABI/testing/dev-kmsg`).
//!
//! A record is `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];TEXT`, and lines that begin with a blank belong to the one before.
//! Whoever may write to `/dev/kmsg` can say anything there, but not in the kernel's name: a record of another facility than
//! 0 is not believed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

use super::{sxid::SxidLine, xid::XidLine};

/// Longer than the kernel's longest record (`CONSOLE_EXT_LOG_MAX`).
const RECORD_BYTES: usize = 16 << 10;

/// A line that tells of an error.
#[derive(Debug)]
pub enum Line {
    Xid(XidLine),
    Sxid(SxidLine),
}

impl Line {
    fn parse(line: &[u8]) -> Option<Self> {
        XidLine::parse(line).map(Self::Xid).or_else(|| SxidLine::parse(line).map(Self::Sxid))
    }
}

/// The log from now on.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    buffer: Vec<u8>,
    /// How often the kernel had thrown away what was not read yet.
    pub overruns: u64,
}

impl KernelLog {
    /// What was said before is old: nobody knows any more to whom it happened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        // A pipe has no end to go to, and nothing before it.
        let _ = file.seek(SeekFrom::End(0));
        Ok(Self { file, buffer: vec![0; RECORD_BYTES], overruns: 0 })
    }

    /// Errors that were told since the last call.
    pub fn errors(&mut self) -> io::Result<Vec<Line>> {
        let mut found = Vec::new();
        loop {
            match self.file.read(&mut self.buffer) {
                Ok(0) => return Ok(found),
                Ok(bytes) => {
                    let records = self.buffer.get(..bytes).unwrap_or_default().split(|byte| *byte == b'\n');
                    found.extend(records.filter_map(of_the_kernel).filter_map(Line::parse));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(found),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // EPIPE: the ring has gone over what was to be read next; reading goes on after it.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.overruns += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The text of a record that the kernel wrote.
fn of_the_kernel(record: &[u8]) -> Option<&[u8]> {
    let at = record.iter().position(|byte| *byte == b';')?;
    let (head, text) = record.split_at(at);
    let priority: u32 = std::str::from_utf8(head.split(|byte| *byte == b',').next()?).ok()?.parse().ok()?;
    let facility = priority >> 3;
    (facility == 0).then_some(text.get(1..)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    #[track_caller]
    fn check(record: &str, expect: Option<u32>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kmsg");
        fs::write(&path, "4,1,1,-;NVRM: Xid (PCI:0000:1b:00): 1, before\n").unwrap();
        let mut log = KernelLog::open(&path).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(record.as_bytes()).unwrap();
        let told = log.errors().unwrap().into_iter().next().map(|line| match line {
            Line::Xid(line) => line.xid,
            Line::Sxid(line) => line.sxid,
        });
        assert_eq!(told, expect, "{record}");
    }

    #[test]
    fn what_the_kernel_says_is_believed_and_nobody_else() {
        let line = "NVRM: Xid (PCI:0000:1b:00): 79, pid=7, name=x, GPU has fallen off the bus.";
        check(&format!("4,1234,5678901,-;{line}\n SUBSYSTEM=pci\n"), Some(79));
        check(&format!("4,1234,5678901,-,caller=T7;{line}\n"), Some(79));
        let of_switch = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 27 LTSSM Fault Up";
        check(&format!("3,1235,5678902,-;{of_switch}\n"), Some(20034));
        // Facility 1 is what the kernel gives to those who write into its log.
        check(&format!("12,1234,5678901,-;{line}\n"), None);
        check(&format!("{line}\n"), None);
        check(&format!("x,1;{line}\n"), None);
    }

    #[test]
    fn a_log_that_may_not_be_read_is_an_error() {
        assert!(KernelLog::open(Path::new("/nonexistent/kmsg")).is_err());
    }
}
