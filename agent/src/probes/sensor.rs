//! The sensor role: drains the rings and accounts for what was lost on the way.
//!
//! A full channel to the core makes the drain wait, so that loss happens in one place only, the kernel's ring, where
//! it is counted per program and CPU. Whatever is lost becomes a [`Loss`] event within [`ACCOUNT_EVERY`].
#![expect(unsafe_code, reason = "kernel edge: the runtime must trust the ring's file descriptor")]

use std::{
    collections::HashMap,
    io,
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use plumbline_ebpf::program;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use super::{
    Counted, Probes, ProbesError,
    canary::Proof,
    decode::{Decoded, decode},
    reads::ReadsTable,
    watch::Enrolled,
};
use crate::{
    clock,
    event::{Event, Loss, What},
    identity::procfs::{Processes as _, Procfs},
    message::Message,
};

/// How often losses are looked for.
pub const ACCOUNT_EVERY: Duration = Duration::from_secs(1);

/// Records taken from each ring at a time: bounds what is held here.
const BATCH: usize = 4096;

/// A record is handed over when it is this old. What a process did before can then be read, whichever ring it is in.
const SETTLE: Duration = Duration::from_millis(1);

/// How often the table of reads is looked through for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Drains both rings until `stop` turns true; the task ends when all that was in them then is handed over.
pub fn start(
    probes: &mut Probes,
    out: &mpsc::Sender<Message>,
    enrolled: &std_mpsc::Sender<Enrolled>,
    canary: &Arc<Proof>,
    stop: &watch::Receiver<bool>,
) -> Result<JoinHandle<()>, ProbesError> {
    let lifecycle = probes.take_ring("LIFECYCLE")?;
    let events = probes.take_ring("EVENTS")?;
    let taken = Taken {
        held: Vec::new(),
        reads: ReadsTable::take(probes, Arc::clone(canary))?,
        canary: Arc::clone(canary),
        enrolled: enrolled.clone(),
        pid_namespace: pid_namespace(),
    };
    let (out, stop) = (out.clone(), stop.clone());
    Ok(tokio::spawn(async move {
        if let Err(error) = drain(lifecycle, events, taken, &out, stop).await {
            tracing::error!(%error, "the rings can no longer be read");
        }
    }))
}

/// Records taken from the rings and not handed over yet, and what they are completed with.
#[derive(Debug)]
struct Taken {
    held: Vec<Event>,
    reads: ReadsTable,
    enrolled: std_mpsc::Sender<Enrolled>,
    canary: Arc<Proof>,
    /// The daemon's own, as in `/proc/self/ns/pid`.
    pid_namespace: u32,
}

/// Hands over the records of both rings in the order of their time, so that an open is explained by the exec before it
/// and not by the one after it.
async fn drain(
    lifecycle: RingBuf<MapData>,
    events: RingBuf<MapData>,
    mut taken: Taken,
    out: &mpsc::Sender<Message>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut lifecycle = readable(lifecycle)?;
    let mut events = readable(events)?;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    while !stopping {
        // Cleared before the rings are looked at, so that what comes meanwhile makes them ready again.
        tokio::select! {
            ready = lifecycle.readable_mut() => ready?.clear_ready(),
            ready = events.readable_mut() => ready?.clear_ready(),
            () = tokio::time::sleep(SETTLE), if !taken.held.is_empty() => {}
            _ = look.tick() => taken.look(),
            _ = stop.wait_for(|&stop| stop) => stopping = true,
        }
        loop {
            let settle_ns = if stopping { 0 } else { u64::try_from(SETTLE.as_nanos()).unwrap_or(0) };
            let settled = clock::boot_ns().saturating_sub(settle_ns);
            // Of the same instant, the lifecycle record explains the event.
            let all_taken = taken.take(lifecycle.get_mut()) & taken.take(events.get_mut());
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

/// 0, which no namespace has, where `/proc` does not say.
fn pid_namespace() -> u32 {
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
                Ok(decoded) => self.keep(decoded),
                Err(error) => {
                    tracing::warn!(%error, "a kernel record could not be decoded");
                    self.held.push(lost("decode", error.to_string(), None, 1));
                }
            }
        }
        false
    }

    fn keep(&mut self, decoded: Decoded) {
        match decoded {
            Decoded::Event(event) if self.canary.takes(&event) || self.concerns_nobody(&event) => {}
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
                self.canary.takes(&event);
                self.held.push(event);
            }
            Decoded::Enrolled { tid, key, path } => {
                // The answer of a page fault has no name.
                if !path.is_empty() {
                    self.reads.found(key, path.clone());
                }
                // The receiver lives as long as the daemon; without it nobody asks.
                let _ = self.enrolled.send(Enrolled { tid, key, path });
            }
        }
    }

    /// A reach into memory of a process that has read nothing. A number of another pid namespace could be anyone's.
    fn concerns_nobody(&self, event: &Event) -> bool {
        match (&event.what, &event.task) {
            (What::MemoryAccess(access), Some(task)) => {
                let own = access.target_pid == task.pid || access.target_pid == task.tid;
                let named_here = task.namespaces.pid == self.pid_namespace;
                own || (named_here
                    && access.target_start_boot_ns.is_none()
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

/// Turns the kernel's growing counters into loss events.
#[derive(Debug, Default)]
pub struct LossAccount {
    ring_full: HashMap<(usize, usize), u64>,
    table_full: HashMap<(usize, usize), u64>,
    recursion: HashMap<&'static str, u64>,
}

impl LossAccount {
    /// What was lost since the last call.
    pub fn settle(&mut self, counted: &[Vec<Counted>], recursion: &[(&'static str, u64)]) -> Vec<Event> {
        let mut events = Vec::new();
        for (number, cpus) in counted.iter().enumerate() {
            for (cpu, counted) in cpus.iter().enumerate() {
                let at = (number, cpu);
                let places = [
                    ("ring", counted.ring_full, &mut self.ring_full),
                    ("table", counted.table_full, &mut self.table_full),
                ];
                for (place, now, told) in places {
                    let before = told.insert(at, now).unwrap_or(0);
                    if now > before {
                        let cpu = u32::try_from(cpu).ok();
                        events.push(lost(place, program::NAMES[number].to_owned(), cpu, now - before));
                    }
                }
            }
        }
        for &(name, misses) in recursion {
            let before = self.recursion.insert(name, misses).unwrap_or(0);
            if misses > before {
                events.push(lost("recursion", name.to_owned(), None, misses - before));
            }
        }
        events
    }
}

fn lost(place: &'static str, what: String, cpu: Option<u32>, count: u64) -> Event {
    Event { boot_ns: clock::boot_ns(), origin: None, task: None, what: What::Loss(Loss { place, what, cpu, count }) }
}

/// A ticker for [`LossAccount::settle`].
pub fn account_ticker() -> tokio::time::Interval {
    let mut ticker = tokio::time::interval(ACCOUNT_EVERY);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(ring_full: u64) -> Vec<Vec<Counted>> {
        vec![vec![Counted::default(), Counted { generated: 100, ring_full, table_full: 0 }]]
    }

    #[test]
    fn only_what_was_lost_since_the_last_account_is_told() {
        let mut account = LossAccount::default();
        let told = |events: Vec<Event>| match events.as_slice() {
            [] => None,
            [Event { what: What::Loss(loss), .. }] => Some((loss.what.clone(), loss.cpu, loss.count)),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(account.settle(&counted(3), &[])), Some(("file_open".into(), Some(1), 3)));
        assert_eq!(told(account.settle(&counted(3), &[])), None);
        assert_eq!(told(account.settle(&counted(5), &[("exec", 0)])), Some(("file_open".into(), Some(1), 2)));
        assert_eq!(told(account.settle(&counted(5), &[("exec", 2)])), Some(("exec".into(), None, 2)));
    }
}
