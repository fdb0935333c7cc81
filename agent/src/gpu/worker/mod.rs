//! The process that alone opens NVML: `plumbline gpu-worker`, which the daemon starts and may kill at any time.
//!
//! A getter may block in the driver for good when a GPU is sick. So each GPU has a thread of its own, nobody waits for one,
//! and the process lives as long as one opening of NVML: a driver that was loaded anew, or a GPU that came back from a
//! reset, is seen by the next process. It ends with its socket, and with the daemon.

mod events;
mod rounds;

use std::{
    io::BufReader,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    nvml::Session,
    wire::{self, Frame, Order, Rhythm},
};
use crate::{core::chain, own};

/// How often the worker tells what it costs.
const COST_EVERY: Duration = Duration::from_secs(5);

/// What the threads share.
struct Bench {
    /// Threads write whole frames, one after the other.
    line: Mutex<UnixStream>,
    rhythm: Mutex<Rhythm>,
    rhythm_changed: Condvar,
    /// CPU time that passed in rounds of questions.
    library_cpu_ns: AtomicU64,
}

/// Runs until the socket, which is the standard input, ends.
pub fn main(library: &Path, rhythm: Rhythm) -> ExitCode {
    // A daemon that was killed closes the socket too; this ends a worker that is stuck in a write as well.
    let parent_ended = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let (Ok(socket), Ok(())) = (socket, parent_ended) else {
        eprintln!("plumbline: the GPU worker is started by the daemon, with a socket as its standard input");
        return ExitCode::FAILURE;
    };
    let Ok(orders) = socket.try_clone() else { return ExitCode::FAILURE };
    let bench = Arc::new(Bench {
        line: Mutex::new(socket),
        rhythm: Mutex::new(rhythm),
        rhythm_changed: Condvar::new(),
        library_cpu_ns: AtomicU64::new(0),
    });
    match Session::open(library) {
        Ok(session) => bench.start(&session),
        Err(error) => {
            bench.say(&Frame::Absent { reason: chain(&error) });
            return ExitCode::SUCCESS;
        }
    }
    let (mut orders, mut line) = (BufReader::new(orders), Vec::new());
    while let Ok(Some(order)) = wire::read(&mut orders, &mut line) {
        match order {
            Order::Ask(rhythm) => {
                *bench.rhythm.lock().unwrap_or_else(PoisonError::into_inner) = rhythm;
                bench.rhythm_changed.notify_all();
            }
        }
    }
    end()
}

/// Ends at once, whatever a thread or the library's own clean-up is stuck in.
fn end() -> ! {
    loop {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        thread::sleep(Duration::from_secs(1));
    }
}

impl Bench {
    fn start(self: &Arc<Self>, session: &Session) {
        let Session { driver, is_simulated, count, .. } = session.clone();
        self.say(&Frame::Open { driver, is_simulated, count });
        for index in 0..count {
            let (bench, session) = (Arc::clone(self), session.clone());
            let work = move || rounds::run(&bench, &session, index);
            if thread::Builder::new().name(format!("gpu-{index}")).spawn(work).is_err() {
                end();
            }
        }
        let bench = Arc::clone(self);
        let tell_cost = move || loop {
            thread::sleep(COST_EVERY);
            if let Some(cost) = own::own_cost() {
                bench.say(&Frame::Cost {
                    cpu_seconds: cost.cpu_seconds,
                    library_cpu_seconds: Duration::from_nanos(bench.library_cpu_ns.load(Ordering::Relaxed))
                        .as_secs_f64(),
                    resident_bytes: cost.resident_bytes,
                });
            }
        };
        // Without it the worker works all the same.
        let _ = thread::Builder::new().name("cost".to_owned()).spawn(tell_cost);
    }

    /// Nobody listens any more: the end.
    fn say(&self, frame: &Frame) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if wire::write(&mut *line, frame).is_err() {
            end();
        }
    }
}
