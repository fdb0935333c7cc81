//! What the keeper tells: of the GPUs, of the worker, of itself.

use std::time::Duration;

use super::{Keeper, RESTARTS, Running, SOURCE, STUCK_AFTER, running::Ending, view::View};
use crate::{
    clock,
    gpu::wire::Rhythm,
    message::Message,
    series::{
        Point, Sample,
        gpu::identity::{
            KERNEL_LOG_OVERRUNS_TOTAL, SAMPLE_INTERVAL_SECONDS, UNNAMED, WORKER_CPU_SECONDS_TOTAL,
            WORKER_LIBRARY_CPU_SECONDS_TOTAL, WORKER_RESIDENT_BYTES, WORKER_RESTARTS_TOTAL, WORKER_UP,
        },
    },
};

/// What samples of the worker itself are called: it is told of also where there is no GPU.
pub const WORKER_SOURCE: &str = "gpu:worker";

impl Keeper {
    /// The sample of all GPUs, and what began.
    pub(super) fn tell(&mut self) {
        let now_boot_ns = clock::boot_ns();
        if self.fleet.is_empty() && self.absence.is_none() {
            // The first worker has not said yet whether there is anything to ask.
            return;
        }
        let own =
            Sample { source: WORKER_SOURCE.to_owned(), taken_boot_ns: now_boot_ns, points: Ok(self.own_points()) };
        self.send(Message::Sample(own));
        let samples = self.fleet.tick(now_boot_ns);
        // Before the numbers go: who had the GPU is known by them.
        for finding in self.fleet.findings() {
            self.find(finding, now_boot_ns);
        }
        for mut sample in samples {
            // Without any GPU the reason is all there is to say, and it is said once.
            if let (SOURCE, true, Some(reason)) = (&*sample.source, self.fleet.is_empty(), &self.absence) {
                if self.told_absence == self.absence {
                    continue;
                }
                sample.points = Err(format!("absent ({reason})"));
                self.told_absence.clone_from(&self.absence);
            }
            self.send(Message::Sample(sample));
        }
        let view = View {
            worker: self.state().to_owned(),
            worker_pid: self.running.as_ref().map(Running::pid),
            reason: self.absence.clone(),
            driver: self.driver.clone(),
            profile: self.profile().to_owned(),
            unnamed: self.fleet.unnamed(),
            gpus: self.fleet.view(now_boot_ns),
            xids: self.xids.counts(),
            no_kernel_log: self.kernel_log.as_ref().err().cloned(),
            stuck_pids: self.ending.iter().map(Ending::pid).collect(),
            no_events: self.no_events.values().next().cloned(),
        };
        self.view.send_if_modified(|old| {
            let is_new = *old != view;
            *old = view;
            is_new
        });
    }

    fn state(&self) -> &'static str {
        match &self.running {
            _ if self.is_released => "released",
            _ if self.ending.iter().any(|ending| ending.lasts() >= STUCK_AFTER) => "stuck",
            Some(_) if self.absence.is_none() => "running",
            _ => "absent",
        }
    }

    fn profile(&self) -> &'static str {
        if self.is_incident { "incident" } else { "steady" }
    }

    fn own_points(&self) -> Vec<Point> {
        let state = self.state();
        let up = if state == "running" { 1.0 } else { 0.0 };
        let mut points = vec![Point::new(&WORKER_UP, &[state], up)];
        let Rhythm { light_ms, full_ms } = self.rhythm();
        for (round, ms) in [("light", light_ms), ("full", full_ms)] {
            let seconds = Duration::from_millis(ms).as_secs_f64();
            points.push(Point::new(&SAMPLE_INTERVAL_SECONDS, &[round, self.profile()], seconds));
        }
        points.push(Point::new(&UNNAMED, &[], f64::from(self.fleet.unnamed())));
        if let Ok(log) = &self.kernel_log {
            #[expect(clippy::cast_precision_loss, reason = "a count")]
            points.push(Point::new(&KERNEL_LOG_OVERRUNS_TOTAL, &[], log.overruns as f64));
        }
        for (why, count) in RESTARTS.iter().zip(self.restarts) {
            #[expect(clippy::cast_precision_loss, reason = "a count")]
            points.push(Point::new(&WORKER_RESTARTS_TOTAL, &[why], count as f64));
        }
        if let Some([cpu, library, resident]) = self.cost.filter(|_| self.running.is_some()) {
            points.push(Point::new(&WORKER_CPU_SECONDS_TOTAL, &[], cpu));
            points.push(Point::new(&WORKER_LIBRARY_CPU_SECONDS_TOTAL, &[], library));
            points.push(Point::new(&WORKER_RESIDENT_BYTES, &[], resident));
        }
        points
    }
}
