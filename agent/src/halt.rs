//! The stop, for threads that wait in system calls: a descriptor that ends.

use std::{
    io::{self, PipeReader, PipeWriter, pipe},
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::sync::watch;

/// What threads wait for; all clones wait for the same.
#[derive(Debug, Clone)]
pub struct Halt(Arc<PipeReader>);

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    Halted,
    /// There is something to read.
    Readable,
    /// The time is over.
    Late,
}

impl Halt {
    /// Halts once the other half is dropped.
    pub fn pair() -> io::Result<(PipeWriter, Self)> {
        let (reader, writer) = pipe()?;
        Ok((writer, Self(Arc::new(reader))))
    }

    /// Halts when `stop` turns true, or nobody can turn it any more. To be called in the runtime.
    pub fn at(mut stop: watch::Receiver<bool>) -> io::Result<Self> {
        let (writer, halt) = Self::pair()?;
        tokio::spawn(async move {
            let _ = stop.wait_for(|stop| *stop).await;
            drop(writer);
        });
        Ok(halt)
    }

    pub fn is_halted(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Sleeps so long, or until the halt; says whether it was that.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.wait_or(None, timeout) == Woken::Halted
    }

    /// Waits until there is something to read as well; in whole milliseconds, rounded up.
    pub fn wait_or(&self, other: Option<BorrowedFd<'_>>, timeout: Duration) -> Woken {
        let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
        // Without another one, this one twice.
        let mut fds = [watched(self.0.as_fd()), watched(other.unwrap_or(self.0.as_fd()))];
        let timeout = PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) | Ok(0) => Woken::Late,
            // Nothing can be waited for any more.
            Err(_) => Woken::Halted,
            Ok(_) if fds[0].any() == Some(true) => Woken::Halted,
            Ok(_) => Woken::Readable,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, thread, time::Instant};

    use super::*;

    #[test]
    fn a_wait_ends_with_its_time_with_something_to_read_and_with_the_halt() {
        let (writer, halt) = Halt::pair().unwrap();
        let (other, mut end) = pipe().unwrap();
        let wait = |timeout| halt.wait_or(Some(other.as_fd()), timeout);
        assert_eq!((wait(Duration::from_micros(1)), halt.is_halted()), (Woken::Late, false));
        end.write_all(b"x").unwrap();
        assert_eq!(wait(Duration::from_secs(60)), Woken::Readable);
        drop(writer);
        assert_eq!((wait(Duration::from_secs(60)), halt.is_halted()), (Woken::Halted, true));
    }

    #[test]
    fn a_thread_that_sleeps_is_woken_by_the_stop() {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let halt = runtime.block_on(async { Halt::at(stopped) }).unwrap();
        let began = Instant::now();
        let sleeper = thread::spawn(move || halt.wait(Duration::from_secs(600)));
        stop.send(true).unwrap();
        assert!(sleeper.join().unwrap());
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
