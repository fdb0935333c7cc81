//! One GPU's rounds of questions, on a thread of its own: also the first question, who it is, may never be answered.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::Bench;
use crate::{
    clock,
    core::chain,
    gpu::{
        identity::Identity,
        nvml::Session,
        question::{Asker, End, Refusal, Round},
        wire::{Answers, Frame, Reading},
    },
};

/// Asks until the process ends, or the GPU is lost.
pub fn run(bench: &Arc<Bench>, session: &Session, index: u32) {
    let mut gpu = match Identity::ask(session, index) {
        Ok((identity, device)) => {
            bench.say(&Frame::Listed(identity));
            listen(bench, session, index);
            Asker::new(session.nvml, device, session.numbers)
        }
        Err(error) => {
            bench.say(&Frame::Nameless { index, reason: chain(&error) });
            return;
        }
    };
    let mut next = Instant::now();
    let mut next_full = next;
    let mut told: Option<Vec<Refusal>> = None;
    loop {
        let is_full = Instant::now() >= next_full;
        let taken_boot_ns = clock::boot_ns();
        let (light, mut end) = ask(bench, &mut gpu, Round::Light);
        let mut full = None;
        if is_full && end.is_none() {
            let (answers, ended) = ask(bench, &mut gpu, Round::Full);
            (full, end) = (Some(answers), ended);
        }
        match end {
            Some((End::Lost, call)) => {
                bench.say(&Frame::Lost { index, question: call.to_owned() });
                return;
            }
            Some((End::DriverGone, _)) => {
                bench.say(&Frame::DriverGone);
                super::end();
            }
            None => {}
        }
        let refusals = is_full.then(|| gpu.refusals()).filter(|refusals| told.as_ref() != Some(refusals));
        if let Some(refusals) = &refusals {
            told = Some(refusals.clone());
        }
        bench.say(&Frame::Reading(Reading { index, taken_boot_ns, light, full, refusals }));
        let rhythm = *bench.rhythm.lock().unwrap_or_else(PoisonError::into_inner);
        if is_full {
            // A little early, so that the light round that comes with it is the one that is due.
            let early = Duration::from_millis(rhythm.light_ms) / 2;
            next_full = Instant::now() + Duration::from_millis(rhythm.full_ms).saturating_sub(early);
        }
        next = wait(bench, next, rhythm.light_ms);
    }
}

/// The GPU's own events, on another thread. Without it, the GPU is asked all the same.
fn listen(bench: &Arc<Bench>, session: &Session, index: u32) {
    let (bench, nvml) = (Arc::clone(bench), session.nvml);
    let listen = move || {
        if let Ok(device) = nvml.device_by_index(index) {
            super::events::run(&bench, index, nvml, &device);
        }
    };
    let _ = thread::Builder::new().name(format!("events-{index}")).spawn(listen);
}

fn ask(bench: &Bench, gpu: &mut Asker, round: Round) -> (Answers, Option<(End, &'static str)>) {
    let (began, cpu_before) = (Instant::now(), thread_cpu_ns());
    let reading = gpu.ask(round);
    let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    bench.library_cpu_ns.fetch_add(thread_cpu_ns().saturating_sub(cpu_before), Ordering::Relaxed);
    (Answers { took_ns, measures: reading.measures }, reading.end)
}

/// Sleeps until the next round is due after the one that was due at `last`, or at once after another rhythm was ordered;
/// says when it was due. A round that took longer than its time is not made up for.
fn wait(bench: &Bench, last: Instant, light_ms: u64) -> Instant {
    let due = last + Duration::from_millis(light_ms);
    let rhythm = bench.rhythm.lock().unwrap_or_else(PoisonError::into_inner);
    let timeout = due.saturating_duration_since(Instant::now());
    let changed = |rhythm: &mut crate::gpu::wire::Rhythm| rhythm.light_ms == light_ms;
    let waited = bench.rhythm_changed.wait_timeout_while(rhythm, timeout, changed);
    drop(waited);
    let now = Instant::now();
    let is_in_time = now >= due && now.duration_since(due) < Duration::from_millis(light_ms);
    if is_in_time { due } else { now }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
