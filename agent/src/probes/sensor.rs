//! The sensor role: drains the rings and accounts for what was lost on the way.
//!
//! A full channel to the core makes the drain wait, so that loss happens in one place only, the kernel's ring, where
//! it is counted per program and CPU (`loss`).
#![expect(unsafe_code, reason = "kernel edge: the runtime must trust the ring's file descriptor")]

use std::{
    io,
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use super::{
    Probes, ProbesError,
    canary::Proof,
    decode::{Decoded, decode},
    loss::{Holes, lost},
    reads::ReadsTable,
    watch::Enrolled,
};
use crate::{
    clock,
    event::{Event, What},
    identity::procfs::{Processes as _, Procfs},
    message::Message,
};

/// Records taken from each ring at a time: bounds what is held here.
const BATCH: usize = 4096;

/// A record is handed over when it is this old. What a process did before can then be read, whichever ring it is in.
const SETTLE: Duration = Duration::from_millis(1);

/// How often the table of reads is looked through for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the sensor tells what is not for the core.
#[derive(Debug, Clone)]
pub struct Taps {
    /// Answers to the daemon's own enrolling opens.
    pub enrolled: std_mpsc::Sender<Enrolled>,
    pub canary: Arc<Proof>,
    pub holes: Arc<Holes>,
}

impl Taps {
    pub fn new(enrolled: std_mpsc::Sender<Enrolled>) -> Self {
        Self { enrolled, canary: Arc::default(), holes: Arc::default() }
    }
}

/// Drains the rings until `stop` turns true; the task ends when all that was in them then is handed over.
pub fn start(
    probes: &mut Probes,
    out: &mpsc::Sender<Message>,
    taps: &Taps,
    stop: &watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ProbesError> {
    let lifecycle = probes.take_ring("LIFECYCLE")?;
    let events = probes.take_ring("EVENTS")?;
    let names = probes.take_ring("NAMES")?;
    let reads = ReadsTable::take(probes, Arc::clone(&taps.canary))?;
    let taken = Taken { held: Vec::new(), reads, taps: taps.clone(), pid_namespace: pid_namespace() };
    let (out, stop) = (out.clone(), stop.clone());
    Ok(tokio::spawn(async move {
        if let Err(error) = drain([lifecycle, names, events], taken, &out, stop).await {
            tracing::error!(%error, "the rings can no longer be read");
        }
    }))
}

/// Records taken from the rings and not handed over yet, and what they are completed with.
#[derive(Debug)]
struct Taken {
    held: Vec<Event>,
    reads: ReadsTable,
    taps: Taps,
    /// The daemon's own, as in `/proc/self/ns/pid`.
    pid_namespace: u32,
}

/// Hands over the records of all rings in the order of their time, so that an open is explained by the exec before it and
/// not by the one after it, and an address by the answer that named it.
async fn drain(
    rings: [RingBuf<MapData>; 3],
    mut taken: Taken,
    out: &mpsc::Sender<Message>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let [lifecycle, names, events] = rings;
    let (mut lifecycle, mut names, mut events) = (readable(lifecycle)?, readable(names)?, readable(events)?);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    while !stopping {
        // Cleared before the rings are looked at, so that what comes meanwhile makes them ready again.
        tokio::select! {
            ready = lifecycle.readable_mut() => ready?.clear_ready(),
            ready = names.readable_mut() => ready?.clear_ready(),
            ready = events.readable_mut() => ready?.clear_ready(),
            () = tokio::time::sleep(SETTLE), if !taken.held.is_empty() => {}
            _ = look.tick() => taken.look(),
            _ = stop.wait_for(|&stop| stop) => stopping = true,
        }
        loop {
            let settle_ns = if stopping { 0 } else { u64::try_from(SETTLE.as_nanos()).unwrap_or(0) };
            let settled = clock::boot_ns().saturating_sub(settle_ns);
            // Of the same instant, the lifecycle record explains the event.
            let all_taken =
                taken.take(lifecycle.get_mut()) & taken.take(names.get_mut()) & taken.take(events.get_mut());
            if stopping && all_taken {
                let rest = taken.reads.rest(clock::boot_ns());
                taken.held.extend(rest);
            }
            let held = &mut taken.held;
            held.sort_by_key(|event| event.boot_ns);
            // What is left in a ring may be older than the youngest that was taken.
            let ready = if !all_taken {
                held.len() / 2
            } else if stopping {
                held.len()
            } else {
                held.partition_point(|event| event.boot_ns <= settled)
            };
            for event in held.drain(..ready) {
                if out.send(Message::Event(Box::new(event))).await.is_err() {
                    return Ok(());
                }
            }
            if all_taken {
                break;
            }
        }
    }
    Ok(())
}

/// The daemon's own pid namespace; 0, which none has, where `/proc` does not say.
pub fn pid_namespace() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self/ns/pid").ok().and_then(|meta| u32::try_from(meta.ino()).ok()).unwrap_or(0)
}

fn readable(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: a ring buffer owns its map's file descriptor, returns the same one every time, and closes it when dropped.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

impl Taken {
    /// Decodes up to [`BATCH`] records; says whether the ring was seen empty.
    fn take(&mut self, ring: &mut RingBuf<MapData>) -> bool {
        for _ in 0..BATCH {
            let Some(item) = ring.next() else { return true };
            match decode(&item) {
                Ok((origin, decoded)) => {
                    self.taps.holes.saw(origin);
                    self.keep(decoded);
                }
                Err(error) => {
                    tracing::warn!(%error, "a kernel record could not be decoded");
                    self.held.push(lost("decode", error.to_string(), None, None, 1));
                }
            }
        }
        false
    }

    fn keep(&mut self, decoded: Decoded) {
        match decoded {
            Decoded::Event(event) if self.taps.canary.takes(&event) || self.concerns_nobody(&event) => {}
            Decoded::Event(mut event) => {
                self.reads.name(&mut event);
                self.held.push(event);
            }
            Decoded::Closed { task, key, boot_ns } => {
                self.held.extend(self.reads.closed(task.pid, task.start_boot_ns, key, boot_ns));
            }
            Decoded::Exited { event, has_read } => {
                // What it has read stands before its end.
                if let (true, Some(task)) = (has_read, &event.task) {
                    self.held.extend(self.reads.exited(task.pid, task.start_boot_ns, event.boot_ns));
                }
                self.taps.canary.takes(&event);
                self.held.push(event);
            }
            Decoded::Enrolled { tid, key, path } => {
                // The answer of a page fault has no name.
                if !path.is_empty() {
                    self.reads.found(key, path.clone());
                }
                // The receiver lives as long as the daemon; without it nobody asks.
                let _ = self.taps.enrolled.send(Enrolled { tid, key, path });
            }
        }
    }

    /// A reach into memory of a process that has read nothing, and is not this one. A number of another pid namespace could be anyone's.
    fn concerns_nobody(&mut self, event: &Event) -> bool {
        match (&event.what, &event.task) {
            (What::MemoryAccess(access), Some(task)) => {
                let own = access.target_pid == task.pid || access.target_pid == task.tid;
                let named_here = task.namespaces.pid == self.pid_namespace;
                (own && named_here)
                    || (named_here
                        && access.target_start_boot_ns.is_none()
                        && access.target_pid != std::process::id()
                        && !self.reads.has_read(access.target_pid, event.boot_ns))
            }
            _ => false,
        }
    }

    /// Takes from the table of reads what is due by time.
    fn look(&mut self) {
        let proc = Procfs::default();
        let is_alive = |pid, start_boot_ns| proc.look(pid, start_boot_ns).is_some();
        self.held.extend(self.reads.due(clock::boot_ns(), is_alive));
    }
}
