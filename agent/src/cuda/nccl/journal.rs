//! NCCL's warnings out of journald, whose files only its own reader can be trusted with: `journalctl` follows them, and is read here.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Read in one look, and kept of a line that has not ended.
const MOST_BYTES: usize = 1 << 20;

/// What ends is begun again after so long.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    following: Option<Following>,
    begun: Option<Instant>,
}

#[derive(Debug)]
struct Following {
    child: Child,
    out: ChildStdout,
    rest: Vec<u8>,
}

impl Journal {
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), following: None, begun: None }
    }

    pub const fn is_followed(&self) -> bool {
        self.following.is_some()
    }

    /// Whole lines that were written since the last look.
    pub fn look(&mut self) -> Vec<u8> {
        if self.following.is_none() && self.begun.is_none_or(|begun| begun.elapsed() >= AGAIN) {
            self.begun = Some(Instant::now());
            match Following::begin(&self.directory) {
                Ok(following) => self.following = Some(following),
                Err(error) => {
                    tracing::warn!(%error, "journald is not read for NCCL's warnings: `journalctl` cannot be started");
                }
            }
        }
        let Some(following) = &mut self.following else { return Vec::new() };
        let (lines, is_over) = following.read();
        if is_over && let Some(mut following) = self.following.take() {
            let status = following.end().map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(status, "`journalctl` ended; it is started again in {AGAIN:?}");
        }
        lines
    }
}

impl Following {
    fn begin(directory: &Path) -> io::Result<Self> {
        let mut command = Command::new("journalctl");
        command.args(["--follow", "--lines=0", "--output=cat", "--quiet", "--grep=NCCL WARN", "--case-sensitive=yes"]);
        command.arg("--directory").arg(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let Some(out) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let following = Self { child, out, rest: Vec::new() };
        fcntl_setfl(&following.out, fcntl_getfl(&following.out)? | OFlags::NONBLOCK)?;
        Ok(following)
    }

    /// What there is, up to the end of the last line; and whether there will be no more.
    fn read(&mut self) -> (Vec<u8>, bool) {
        let mut buffer = vec![0; 1 << 16];
        let mut is_over = false;
        while self.rest.len() < MOST_BYTES {
            match self.out.read(&mut buffer) {
                Ok(0) => is_over = true,
                Ok(bytes) => {
                    self.rest.extend_from_slice(&buffer[..bytes]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => is_over = error.kind() != io::ErrorKind::WouldBlock,
            }
            break;
        }
        let end = memchr::memrchr(b'\n', &self.rest).map_or(0, |end| end + 1);
        let mut lines = std::mem::take(&mut self.rest);
        self.rest = lines.split_off(end);
        if self.rest.len() >= MOST_BYTES {
            // No warning of NCCL's is a mebibyte.
            self.rest.clear();
        }
        (lines, is_over)
    }

    fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        let _ = self.child.kill();
        self.child.wait()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
