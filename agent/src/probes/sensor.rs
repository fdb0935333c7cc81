//! The sensor role: drains the rings and accounts for what was lost on the way.
//!
//! A full channel to the core makes the drain wait, so that loss happens in one place only, the kernel's ring, where
//! it is counted per program and CPU. Whatever is lost becomes a [`Loss`] event within [`ACCOUNT_EVERY`].
#![expect(unsafe_code, reason = "kernel edge: the runtime must trust the ring's file descriptor")]

use std::{collections::HashMap, io, sync::mpsc as std_mpsc, time::Duration};

use aya::maps::{MapData, RingBuf};
use plumbline_ebpf::program;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{
    Counted, Probes, ProbesError,
    decode::{Decoded, decode},
    watch::Enrolled,
};
use crate::{
    clock,
    event::{Event, Loss, What},
    message::Message,
};

/// How often losses are looked for.
pub const ACCOUNT_EVERY: Duration = Duration::from_secs(1);

/// Events taken from a ring before they are handed over: bounds the time without an `.await`.
const BATCH: usize = 256;

/// Lifecycle records taken at once: more than their ring holds, so all that lie in it.
const LIFECYCLE_BATCH: usize = 16_384;

/// Drains both rings until `stop` turns true.
pub fn start(
    probes: &mut Probes,
    out: &mpsc::Sender<Message>,
    enrolled: &std_mpsc::Sender<Enrolled>,
    stop: &watch::Receiver<bool>,
) -> Result<(), ProbesError> {
    let events = probes.take_ring("EVENTS")?;
    let lifecycle = probes.take_ring("LIFECYCLE")?;
    let (out, enrolled, stop) = (out.clone(), enrolled.clone(), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = drain(events, lifecycle, &out, &enrolled, stop).await {
            tracing::error!(%error, "the rings can no longer be read");
        }
    });
    Ok(())
}

/// Hands over lifecycle records before the events that they explain: whatever is in the events' ring was preceded by its
/// process's exec, and that lies in the other ring by the time the event can be read. So a batch of events is taken
/// first, then all of the lifecycle ring, and the latter is handed over first.
async fn drain(
    events: RingBuf<MapData>,
    lifecycle: RingBuf<MapData>,
    out: &mpsc::Sender<Message>,
    enrolled: &std_mpsc::Sender<Enrolled>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut events = readable(events)?;
    let mut lifecycle = readable(lifecycle)?;
    let (mut held, mut first) = (Vec::with_capacity(BATCH), Vec::new());
    loop {
        // Cleared before the rings are looked at, so that what comes meanwhile makes them ready again.
        tokio::select! {
            ready = events.readable_mut() => ready?.clear_ready(),
            ready = lifecycle.readable_mut() => ready?.clear_ready(),
            _ = stop.wait_for(|&stop| stop) => return Ok(()),
        }
        loop {
            take(events.get_mut(), BATCH, &mut held, enrolled);
            take(lifecycle.get_mut(), LIFECYCLE_BATCH, &mut first, enrolled);
            if held.is_empty() && first.is_empty() {
                break;
            }
            for event in first.drain(..).chain(held.drain(..)) {
                if out.send(Message::Event(Box::new(event))).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn readable(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: a ring buffer owns its map's file descriptor, returns the same one every time, and closes it when dropped.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Decodes up to `most` records into `batch`.
fn take(ring: &mut RingBuf<MapData>, most: usize, batch: &mut Vec<Event>, enrolled: &std_mpsc::Sender<Enrolled>) {
    for _ in 0..most {
        let Some(item) = ring.next() else { return };
        match decode(&item) {
            Ok(Decoded::Event(event)) => batch.push(event),
            Ok(Decoded::Enrolled { tid, key, path }) => {
                // The receiver lives as long as the daemon; without it nobody asks.
                let _ = enrolled.send(Enrolled { tid, key, path });
            }
            Err(error) => {
                tracing::warn!(%error, "a kernel record could not be decoded");
                batch.push(lost("decode", error.to_string(), None, 1));
            }
        }
    }
}

/// Turns the kernel's growing counters into loss events.
#[derive(Debug, Default)]
pub struct LossAccount {
    ring_full: HashMap<(usize, usize), u64>,
    recursion: HashMap<&'static str, u64>,
}

impl LossAccount {
    /// What was lost since the last call.
    pub fn settle(&mut self, counted: &[Vec<Counted>], recursion: &[(&'static str, u64)]) -> Vec<Event> {
        let mut events = Vec::new();
        for (number, cpus) in counted.iter().enumerate() {
            for (cpu, counted) in cpus.iter().enumerate() {
                let before = self.ring_full.insert((number, cpu), counted.ring_full).unwrap_or(0);
                if counted.ring_full > before {
                    let cpu = u32::try_from(cpu).ok();
                    events.push(lost("ring", program::NAMES[number].to_owned(), cpu, counted.ring_full - before));
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
        vec![vec![Counted::default(), Counted { generated: 100, ring_full }]]
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
