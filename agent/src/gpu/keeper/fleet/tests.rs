//! What is known of GPUs as time passes, without a worker.

use super::*;
use crate::{gpu::question::Measure, series::gpu::power::POWER_WATTS};

const SECOND_NS: u64 = 1_000_000_000;

fn identity(index: u32) -> Identity {
    Identity { uuid: format!("GPU-{index}"), index, ..Identity::default() }
}

fn reading(index: u32, second: u64, full: bool) -> Reading {
    let answers =
        |number| Answers { took_ns: 1, measures: vec![Measure { series: &POWER_WATTS, labels: Vec::new(), number }] };
    Reading {
        index,
        taken_boot_ns: second * SECOND_NS,
        light: answers(1.0),
        full: full.then(|| answers(2.0)),
        refusals: None,
    }
}

fn fleet() -> Fleet {
    let mut fleet = Fleet::default();
    fleet.open("550.54.15", 2, 0);
    fleet.listed(identity(0), 0);
    fleet.listed(identity(1), 0);
    fleet
}

/// The sources of these GPUs.
fn both(gpus: &[&str]) -> Vec<String> {
    gpus.iter().flat_map(|gpu| ["light", "full"].map(|round| format!("gpu:{gpu}:{round}"))).collect()
}

/// What a second brings: samples that have no numbers, by source, and the kinds of what was found.
fn tick(fleet: &mut Fleet, second: u64) -> (Vec<String>, Vec<&'static str>) {
    let samples = fleet.tick(second * SECOND_NS);
    let absent = samples.into_iter().filter(|sample| sample.points.is_err()).map(|sample| sample.source).collect();
    (absent, fleet.findings().into_iter().map(|finding| finding.kind).collect())
}

#[test]
fn a_light_round_is_a_sample_and_a_full_one_is_another() {
    let mut fleet = fleet();
    let sources = |samples: Vec<Sample>| samples.into_iter().map(|sample| sample.source).collect::<Vec<_>>();
    assert_eq!(sources(fleet.reading(reading(0, 0, true))), ["gpu:GPU-0:light", "gpu:GPU-0:full"]);
    assert_eq!(sources(fleet.reading(reading(0, 1, false))), ["gpu:GPU-0:light"]);
}

#[test]
fn a_gpu_that_is_silent_for_more_than_five_seconds_is_told_once() {
    let mut fleet = fleet();
    fleet.reading(reading(0, 1, true));
    fleet.reading(reading(1, 1, true));
    assert_eq!(tick(&mut fleet, 6), (vec![], vec![]));
    fleet.reading(reading(0, 6, false));
    assert_eq!(tick(&mut fleet, 7), (both(&["GPU-1"]), vec!["gpu.silent"]));
    fleet.reading(reading(0, 7, false));
    assert_eq!(tick(&mut fleet, 8), (vec![], vec![]));
    assert!(!fleet.is_stuck(), "the other answers");
    // It answers again, and falls silent again.
    fleet.reading(reading(1, 9, false));
    fleet.reading(reading(0, 15, false));
    assert_eq!(tick(&mut fleet, 15), (both(&["GPU-1"]), vec!["gpu.silent"]));
}

#[test]
fn a_lost_gpu_stays_lost_until_it_answers() {
    let mut fleet = fleet();
    fleet.reading(reading(1, 0, true));
    fleet.lost(1, "nvmlDeviceGetPowerUsage");
    fleet.lost(1, "nvmlDeviceGetPowerUsage");
    assert_eq!(tick(&mut fleet, 1), (both(&["GPU-1"]), vec!["gpu.lost"]));
    // The next worker finds it listed, and does not hear of it.
    fleet.open("550.54.15", 2, 0);
    fleet.listed(identity(1), SECOND_NS);
    assert_eq!(fleet.view(SECOND_NS)[1].state, State::Lost);
    fleet.reading(reading(1, 9, true));
    assert_eq!(fleet.view(9 * SECOND_NS)[1].state, State::Up);
}

#[test]
fn gpus_that_nobody_asks_are_absent_with_the_reason_and_alarm_nobody() {
    let mut fleet = fleet();
    fleet.reading(reading(0, 0, true));
    fleet.not_asked("released", SECOND_NS);
    assert_eq!(tick(&mut fleet, 60), (both(&["GPU-0", "GPU-1"]), vec![]));
    assert_eq!(tick(&mut fleet, 61), (vec![], vec![]));
}

#[test]
fn an_index_means_what_the_present_worker_means_by_it() {
    let mut fleet = fleet();
    fleet.open("580.126.09", 1, 0);
    fleet.listed(Identity { index: 0, ..identity(1) }, 0);
    assert_eq!(fleet.reading(reading(0, 1, true))[0].source, "gpu:GPU-1:light");
    assert!(fleet.reading(reading(1, 1, true)).is_empty());
    assert_eq!(fleet.findings().into_iter().map(|finding| finding.kind).collect::<Vec<_>>(), ["gpu.driver"]);
}

#[test]
fn gpus_without_a_name_are_the_reason_only_when_there_is_no_other() {
    let mut fleet = Fleet::default();
    fleet.open("550.54.15", 2, 0);
    assert_eq!(fleet.nameless(0, "lost"), None);
    assert_eq!(fleet.unnamed(), 2);
    let reason = fleet.nameless(1, "lost");
    assert_eq!(reason.as_deref(), Some("none of the driver's 2 GPUs says who it is: lost"));
}

#[test]
fn only_silence_calls_for_another_worker_and_a_loss_that_the_driver_tells_does_not() {
    let mut fleet = fleet();
    fleet.reading(reading(0, 1, true));
    fleet.lost(1, "x");
    tick(&mut fleet, 2);
    assert!(!fleet.is_stuck());
    fleet.lost(0, "x");
    assert!(!fleet.is_stuck(), "all lost: the driver answers");
    fleet.reading(reading(0, 3, true));
    tick(&mut fleet, 60);
    assert!(fleet.is_stuck(), "one is silent, and the other is lost");
}

#[test]
fn while_no_worker_asks_no_gpu_is_silent_and_no_number_is_old() {
    let mut fleet = fleet();
    fleet.reading(reading(0, 1, true));
    fleet.reading(reading(1, 1, true));
    fleet.closed();
    assert_eq!(tick(&mut fleet, 6), (vec![], vec![]));
    assert_eq!(tick(&mut fleet, 60), (both(&["GPU-0", "GPU-1"]), vec![]), "absent, and nobody's fault");
    // Only one of them is listed again: the other has five seconds from then on.
    fleet.open("550.54.15", 2, 70 * SECOND_NS);
    fleet.listed(identity(0), 70 * SECOND_NS);
    fleet.reading(reading(0, 75, true));
    assert_eq!(tick(&mut fleet, 75), (vec![], vec![]));
    assert_eq!(tick(&mut fleet, 76), (both(&["GPU-1"]), vec!["gpu.silent"]));
}

#[test]
fn slow_rounds_are_no_silence() {
    let mut fleet = Fleet::new(None, 10_000);
    fleet.open("550.54.15", 1, 0);
    fleet.listed(identity(0), 0);
    fleet.reading(reading(0, 1, true));
    assert_eq!(tick(&mut fleet, 30), (vec![], vec![]));
    assert_eq!(tick(&mut fleet, 32), (both(&["GPU-0"]), vec!["gpu.silent"]));
}

#[test]
fn a_gpu_that_never_says_who_it_is_is_told_once() {
    let mut fleet = fleet();
    fleet.open("550.54.15", 3, 0);
    for _ in 0..2 {
        fleet.nameless(2, "lost");
    }
    assert_eq!(tick(&mut fleet, 0), (vec![], vec!["gpu.lost"]));
    assert!(fleet.has_lost());
}
