//! What others say that the keeper goes by: a release, an incident, who has which GPU.

use std::{sync::Arc, time::Instant};

use plumbline_policy::Severity;

use super::{FIRST_PAUSE, Keeper};
use crate::{clock, gpu::wire::Order};

impl Keeper {
    pub(super) fn follow_release(&mut self) {
        let release = self.release.holds(clock::unix_ns() / 1_000_000_000);
        match (release, self.is_released) {
            (Some(release), _) => {
                self.is_released = true;
                let words = release.words();
                if self.absence.as_ref() != Some(&words) {
                    self.fleet.find("gpu.release", Severity::Low, String::new(), format!("the GPUs are {words}"));
                    self.fleet.released(&words, clock::boot_ns());
                    self.be_absent(words);
                }
                self.end("released");
            }
            (None, true) => {
                self.fleet.find("gpu.release", Severity::Low, String::new(), "the GPUs are read again".to_owned());
                (self.is_released, self.absence) = (false, None);
                (self.start_at, self.pause) = (Instant::now(), FIRST_PAUSE);
            }
            (None, false) => {}
        }
    }

    pub(super) fn follow_holders(&mut self) {
        if self.held.has_changed().unwrap_or(false) {
            self.fleet.held_by(Arc::clone(&self.held.borrow_and_update()));
        }
    }

    pub(super) fn follow_incident(&mut self) {
        let is_incident = self.incident.holds(clock::boot_ns());
        if is_incident == self.is_incident {
            return;
        }
        self.is_incident = is_incident;
        let rhythm = self.rhythm();
        tracing::info!(incident = is_incident, light_ms = rhythm.light_ms, "the gpus are asked at another rhythm");
        if let Some(running) = &mut self.running {
            running.order(Order::Ask(rhythm));
        }
    }
}
