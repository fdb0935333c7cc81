//! A worker that was started: its process, its frames, its orders.

use std::{
    io::{self, BufReader},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    clock,
    gpu::{
        release::ReleaseFiles,
        wire::{self, Frame, Order, Rhythm},
    },
};

/// Frames that wait for the keeper. The worker waits when it is full, which ages its samples and nothing else.
pub const QUEUE_FRAMES: usize = 256;

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
    frames: Receiver<Frame>,
    orders: UnixStream,
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
        let orders = ours.try_clone()?;
        let mut child = Command::new(&program.path)
            .arg("gpu-worker")
            .arg("--library")
            .arg(&program.library)
            .args(["--light-ms", &rhythm.light_ms.to_string(), "--full-ms", &rhythm.full_ms.to_string()])
            .envs(variables.iter().copied())
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout)
            .spawn()?;
        let (out, frames) = mpsc::sync_channel(QUEUE_FRAMES);
        if let Err(error) = thread::Builder::new().name("gpu-frames".to_owned()).spawn(move || read(ours, &out)) {
            // Nobody would hear it.
            let _ = child.kill().and_then(|()| child.wait());
            return Err(error.into());
        }
        Ok(Self { child, frames, orders, started: Instant::now() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn next(&self, timeout: Duration) -> Next {
        match self.frames.recv_timeout(timeout) {
            Ok(frame) => Next::Frame(frame),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// The next frame; `None` when none came in time, or none will.
    pub fn frame(&self, timeout: Duration) -> Option<Frame> {
        self.frames.recv_timeout(timeout).ok()
    }

    /// A worker that does not read its orders is noticed by its silence.
    pub fn order(&mut self, order: Order) {
        let _ = self.orders.set_write_timeout(Some(Duration::from_millis(100)));
        let _ = wire::write(&mut self.orders, &order);
    }

    /// Kills it. One that is stuck in the driver does not end before the driver lets it.
    pub fn kill(mut self) -> Ending {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.orders.shutdown(std::net::Shutdown::Both);
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

fn read(socket: UnixStream, out: &SyncSender<Frame>) {
    let (mut socket, mut line) = (BufReader::new(socket), Vec::new());
    loop {
        match wire::read(&mut socket, &mut line) {
            Ok(Some(frame)) => {
                if out.send(frame).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the gpu worker says what nobody understands");
                return;
            }
        }
    }
}
