//! A worker that was started: its process, its frames, its orders.

use std::{
    io::{self, BufReader},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    clock,
    gpu::{
        release::ReleaseFiles,
        wire::{self, Frame, Order, Rhythm},
    },
    halt::{Halt, Woken},
};

/// How the worker is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The daemon's own, as it runs: also when its file was replaced meanwhile.
    pub path: PathBuf,
    pub library: PathBuf,
}

/// Why no worker was started.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the GPUs are released; `plumbline gpu resume` takes them back")]
    Released,
    #[error(transparent)]
    System(#[from] io::Error),
}

#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its frames wait here. The worker waits when it is full, which ages its samples.
    socket: BufReader<UnixStream>,
    /// What has come of the next frame.
    line: Vec<u8>,
    pub started: Instant,
}

/// What came of waiting for a frame.
#[derive(Debug)]
pub enum Next {
    Frame(Frame),
    Nothing,
    /// The worker is gone, or says what nobody understands.
    End,
}

impl Running {
    pub fn start(program: &Program, rhythm: Rhythm, lock: Option<&ReleaseFiles>) -> Result<Self, StartError> {
        Self::start_with(program, rhythm, lock, &[])
    }

    /// The same, with variables of the environment.
    pub fn start_with(
        program: &Program,
        rhythm: Rhythm,
        lock: Option<&ReleaseFiles>,
        variables: &[(&str, &Path)],
    ) -> Result<Self, StartError> {
        let (ours, theirs) = UnixStream::pair()?;
        let stdout = match lock {
            None => Stdio::null(),
            Some(files) => {
                let held = files.hold()?;
                // Whoever releases writes first and asks for the lock then; so the other way round nobody misses the other.
                if files.holds(clock::unix_ns() / 1_000_000_000).is_some() {
                    return Err(StartError::Released);
                }
                Stdio::from(held)
            }
        };
        ours.set_nonblocking(true)?;
        let child = Command::new(&program.path)
            .arg("gpu-worker")
            .arg("--library")
            .arg(&program.library)
            .args(["--light-ms", &rhythm.light_ms.to_string(), "--full-ms", &rhythm.full_ms.to_string()])
            .envs(variables.iter().copied())
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout)
            .spawn()?;
        Ok(Self { child, socket: BufReader::new(ours), line: Vec::new(), started: Instant::now() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next frame, if it comes in time and before the halt.
    pub fn next(&mut self, halt: &Halt, timeout: Duration) -> Next {
        let deadline = Instant::now() + timeout;
        loop {
            match wire::read(&mut self.socket, &mut self.line) {
                Ok(Some(frame)) => return Next::Frame(frame),
                Ok(None) => return Next::End,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::error!(%error, "the gpu worker says what nobody understands");
                    return Next::End;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if halt.wait_or(Some(self.socket.get_ref().as_fd()), left) != Woken::Readable {
                return Next::Nothing;
            }
        }
    }

    /// A worker that does not read its orders is noticed by its silence.
    pub fn order(&mut self, order: Order) {
        let _ = wire::write(self.socket.get_mut(), &order);
    }

    /// Kills it. One that is stuck in the driver does not end before the driver lets it.
    pub fn kill(mut self) -> Ending {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.socket.get_ref().shutdown(std::net::Shutdown::Both);
        Ending { child: self.child, since: Instant::now() }
    }
}

/// A worker that was killed.
#[derive(Debug)]
pub struct Ending {
    child: Child,
    since: Instant,
}

impl Ending {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is gone, and nothing of it holds a device any more.
    pub fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn lasts(&self) -> Duration {
        self.since.elapsed()
    }
}
