//! Questions to file systems, some of which never answer: one in user space, one on a server that is gone. Such a one costs a
//! thread, and not the daemon.

use std::{
    io,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Threads that wait for file systems that do not answer; beyond it nobody is asked.
const MAX_WAITING: usize = 8;

/// Who asks.
#[derive(Debug)]
pub struct Patience {
    wait: Duration,
    waiting: AtomicUsize,
}

impl Patience {
    /// An answer is waited for so long.
    pub const fn new(wait: Duration) -> Self {
        Self { wait, waiting: AtomicUsize::new(0) }
    }

    /// The answer, if it comes in time.
    pub fn ask<T: Send + 'static>(&'static self, question: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let done = || self.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            done();
            return Err(io::Error::other("too many file systems do not answer"));
        }
        let (told, answer) = mpsc::sync_channel(1);
        let asking = thread::Builder::new().name("patience".to_owned()).spawn(move || {
            // Nobody listens any more when it took too long.
            let _ = told.send(question());
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = asking {
            done();
            return Err(error);
        }
        answer.recv_timeout(self.wait).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_not_waited_for_and_is_not_asked_for_ever() {
        static PATIENCE: Patience = Patience::new(Duration::from_millis(20));
        assert_eq!(PATIENCE.ask(|| 7).unwrap(), 7);
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Arc::new(std::sync::Mutex::new(held));
        for _ in 0..MAX_WAITING {
            let held = std::sync::Arc::clone(&held);
            assert!(PATIENCE.ask(move || drop(held.lock().map(|held| held.recv()))).is_err());
        }
        assert!(PATIENCE.ask(|| 7).unwrap_err().to_string().contains("too many"));
        drop(release);
        // Those who were waited for have an end after all.
        assert!((0..1000).any(|_| {
            thread::sleep(Duration::from_millis(5));
            PATIENCE.ask(|| 7).is_ok()
        }));
    }
}
