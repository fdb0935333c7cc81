//! GPUs, drivers and workers that do not do what they should; and what else is not a number.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use expect_test::expect;
use plumbline::{
    clock,
    config::Config,
    cost::Ledger,
    gpu::{
        self, GpuConfig,
        release::{Release, ReleaseFiles},
    },
    message::Message,
    series::Point,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc::error::TryRecvError;

use crate::bench::*;

#[test]
fn a_gpu_that_falls_off_the_bus_is_down_with_its_name_and_without_numbers() {
    let mut bench = Bench::new(&LOST.replace("at_s: 2", "at_s: 0.5"));
    bench.points(SECOND);
    let lost = bench.finding("gpu.lost");
    assert_eq!(
        (lost.entity.as_str(), lost.text.contains("the driver says that it is lost")),
        (SECOND, true),
        "{}",
        lost.text
    );
    let standing = bench.standing();
    let of_second: Vec<Point> = standing.into_iter().filter(|point| point.labels[0] == SECOND).collect();
    check(
        &render(&of_second),
        &expect![[r#"
            info{name=NVIDIA H100 80GB HBM3,pci_bus_id=00000000:1C:00.0,device=nvidia0,serial=,vbios=,numa_node=,driver=580.126.09} 1
            refused_questions{} 98
            sample_age_seconds{} …
            up{} 0
        "#]],
    );
    bench.points(FIRST);
    let view = bench.view("its loss", |view| view.gpus[1].series == 0);
    assert_eq!((view.gpus[1].state.clone(), view.gpus[0].state.clone()), (gpu::State::Lost, gpu::State::Up));
}

#[test]
fn a_gpu_that_comes_back_from_a_reset_is_seen_when_nvml_is_opened_anew() {
    let config = GpuConfig { full_interval_seconds: 1, reopen_seconds: 1, ..GpuConfig::default() };
    let mut bench = Bench::with(&LOST.replace("at_s: 2", "at_s: 0.5"), &config);
    bench.finding("gpu.lost");
    bench.replace_scenario(&LOST.replace("        lost: true\n", ""));
    let view = bench.view("its return", |view| view.gpus.iter().all(|gpu| gpu.state == gpu::State::Up));
    assert_eq!(view.worker, "running");
    let points = bench.points(SECOND);
    assert!(!points.is_empty());
    let restarts = bench.sample("gpu:worker").points.unwrap();
    assert_eq!(by_label_of(&restarts, "worker_restarts_total")["lost"], 1.0);
}

#[test]
fn a_core_that_takes_nothing_for_a_while_makes_no_gpu_silent() {
    let config = GpuConfig { full_interval_seconds: 1, ..GpuConfig::default() };
    let mut bench = Bench::with(H100X8, &config);
    bench.points(FIRST);
    // Four times a second, so that the keeper's queue and the worker's socket are full long before a GPU may be called silent.
    bench.incident.begin(clock::boot_ns(), Duration::from_secs(60), "a drill");
    bench.points(FIRST);
    std::thread::sleep(Duration::from_secs(11));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        if let Ok(Message::Event(event)) = bench.inbox.try_recv() {
            panic!("{:?}", event.what);
        }
    }
}

#[test]
fn a_getter_that_hangs_ages_its_gpu_alone() {
    let mut bench = Bench::new(&HANG.replace("at_s: 2\n", "at_s: 0.5\n"));
    bench.points(SECOND);
    // The finding goes first: who had the GPU is known by its numbers.
    assert_eq!(bench.finding("gpu.silent").entity, SECOND);
    let reason = bench.wait("its end", |message| match message {
        Message::Sample(sample) if sample.source.contains(SECOND) => sample.points.clone().err(),
        _ => None,
    });
    assert!(reason.starts_with("absent (has not answered for"), "{reason}");
    let (taken_boot_ns, _) = bench.numbers(FIRST);
    assert!(clock::boot_ns() - taken_boot_ns < 2_000_000_000, "the first is asked as before");
    let ages: BTreeMap<String, f64> = bench
        .standing()
        .iter()
        .filter(|point| point.series.name == "plumbline_gpu_sample_age_seconds")
        .map(|point| (point.labels[0].clone(), point.number().unwrap()))
        .collect();
    assert!(ages[FIRST] < 2.0 && ages[SECOND] > 5.0, "{ages:?}");
}

#[test]
fn a_worker_that_is_killed_in_a_getter_ages_the_series_and_then_they_recover() {
    let epoch = format!("epoch_boot_ns: {}\n", clock::boot_ns());
    let hang = format!("{epoch}{}", HANG.replace("at_s: 2\n", "at_s: 0.5\n"));
    let mut bench = Bench::new(&hang);
    let (before, energy) = bench.numbers(FIRST);
    bench.finding("gpu.silent");
    // The second GPU's thread is in its getter now, and will be for half a minute.
    bench.replace_scenario(&format!("{epoch}{PAIR}"));
    let pid = bench.view("a worker", |view| view.worker_pid.is_some()).worker_pid.unwrap();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let view = bench.view("recovery", |view| {
        view.worker_pid.is_some_and(|now| now != pid)
            && view.gpus.iter().all(|gpu| gpu.state == gpu::State::Up && gpu.age_seconds < 2.0)
    });
    assert_eq!(view.worker, "running");
    let (after, later) = bench.numbers(FIRST);
    let joules = |points: &[Point]| by_label(points, "energy_joules_total")[""];
    assert!(after > before && joules(&later) > joules(&energy), "counters go on");
    let restarts: Vec<f64> = bench
        .sample("gpu:worker")
        .points
        .unwrap()
        .iter()
        .filter(|point| point.series.name == "plumbline_gpu_worker_restarts_total" && point.labels[0] == "died")
        .filter_map(Point::number)
        .collect();
    assert_eq!(restarts, [1.0]);
}

#[test]
fn a_driver_that_is_unloaded_and_loaded_anew_is_seen_with_its_version() {
    let mut bench = Bench::new(&RELOAD.replace("at_s: 2, return: 9", "at_s: 0.5, return: 9"));
    bench.points(FIRST);
    let absent = bench.view("the end of the driver", |view| view.worker == "absent");
    assert_eq!(absent.reason.as_deref(), Some("the driver is gone, or another than before"));
    bench.replace_scenario(&PAIR.replace("550.54.15", "580.126.09"));
    let driver = bench.finding("gpu.driver");
    assert_eq!(driver.text, "the driver is 580.126.09 now, and was 550.54.15");
    bench.points(SECOND);
}

#[test]
fn a_gpu_that_falls_off_the_bus_with_an_xid_is_one_finding_of_both_who_told() {
    let mut bench = Bench::new(XID_79);
    bench.points(SECOND);
    std::thread::sleep(Duration::from_millis(1800));
    bench.kernel_says("NVRM: Xid (PCI:0000:1c:00): 79, pid=4242, name=python3, GPU has fallen off the bus.");
    let found = bench.finding("gpu.xid");
    check(
        &format!("{} {}\n{:?}\n{:?}\n", found.severity.as_str(), found.text, found.evidence, found.process),
        &expect![[r#"
            critical XID 79 on GPU-5eed0000-0000-4000-8000-000000000001: the GPU has fallen off the bus; pid 4242 (python3): GPU has fallen off the bus.
            [("xid", 79.0), ("told_by_nvml", 1.0), ("told_by_kernel_log", 1.0)]
            Some(FoundProcess { pid: 4242, name: "python3" })
        "#]],
    );
    let counters = bench.sample("gpu:xid").points.unwrap();
    check(
        &render(&counters),
        &expect![[r#"
        xid_errors_total{xid=79,source=kernel} 1
        xid_errors_total{xid=79,source=nvml} 1
    "#]],
    );
}

#[test]
fn the_same_xid_twice_counts_twice_and_one_that_only_the_kernel_tells_says_so() {
    let mut bench = Bench::new(PAIR);
    bench.points(FIRST);
    for _ in 0..2 {
        bench.kernel_says("NVRM: Xid (PCI:0000:1b:00): 62, pid=1, name=x, 0a1c(2de4) 00000000");
        let found = bench.finding("gpu.xid");
        assert!(found.text.contains("told by the kernel's log, and not by NVML"), "{}", found.text);
    }
    let counters = bench.sample("gpu:xid").points.unwrap();
    assert_eq!(
        by_label(&counters, "xid_errors_total").into_iter().collect::<Vec<_>>(),
        [("62,kernel".to_owned(), 2.0)]
    );
    assert_eq!(counters[0].labels[0], FIRST);
}

#[test]
fn an_error_of_an_nvswitch_is_counted_and_found() {
    let mut bench = Bench::new(PAIR);
    bench.points(FIRST);
    bench.kernel_says("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 27 LTSSM Fault Up");
    bench.kernel_says("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Data {0x00000140, 0x00000100}");
    let finding = bench.finding("gpu.nvswitch");
    assert_eq!((finding.severity.as_str(), &*finding.entity), ("critical", "nvidia-nvswitch3"));
    assert_eq!(finding.text, "SXID 20034 on nvidia-nvswitch3 (0000:c1:00.0), link 27, fatal: LTSSM Fault Up");
    let points = bench.sample("gpu:sxid").points.unwrap();
    assert_eq!(points[0].labels.join(" "), "nvidia-nvswitch3 0000:c1:00.0 20034 fatal");
    assert_eq!(points[0].number(), Some(1.0));
}

#[test]
fn a_double_bit_error_is_in_the_counters_and_in_the_events() {
    let mut bench = Bench::new(ECC);
    bench.points(FIRST);
    let xids = [bench.finding("gpu.xid").evidence[0].1, bench.finding("gpu.xid").evidence[0].1];
    assert_eq!(xids, [48.0, 64.0]);
    let points = bench.wait("the error", |message| match message {
        Message::Sample(sample) if sample.source.contains(FIRST) && sample.source.ends_with("full") => {
            let points = sample.points.clone().unwrap();
            (by_label(&points, "memory_errors_total").get("uncorrected") == Some(&1.0)).then_some(points)
        }
        _ => None,
    });
    let by_location = by_label(&points, "memory_errors_by_location_total");
    assert_eq!(by_location["uncorrected,dram"], 1.0);
    let told = ["row_remap_failed", "recovery_action"].map(|series| by_label(&points, series)[""]);
    assert_eq!(told, [1.0, 1.0]);
}

#[test]
fn an_nvlink_that_is_trained_anew_and_goes_down_is_told_link_by_link() {
    let mut bench = Bench::with(NVLINK_DOWN, &GpuConfig { full_interval_seconds: 1, ..GpuConfig::default() });
    let points = bench.wait("the end of the link", |message| match message {
        Message::Sample(sample) if sample.source.contains(FIRST) && sample.source.ends_with("full") => {
            let points = sample.points.clone().unwrap();
            (by_label(&points, "nvlink_up")["3"] < 1.0).then_some(points)
        }
        _ => None,
    });
    assert_eq!(by_label(&points, "nvlink_up").values().sum::<f64>(), 17.0);
    assert_eq!(by_label(&points, "nvlink_recoveries_total")["unknown,3"], 1.0);
    assert_eq!(by_label(&points, "nvlink_link_errors_total")["replay,3"], 9.0);
    assert_eq!(by_label(&points, "nvlink_speed_bytes_per_second")["3"], 0.0);
}

#[test]
fn released_gpus_are_held_by_nobody_until_they_are_taken_back() {
    let mut bench = Bench::new(PAIR);
    bench.points(FIRST);
    let files = ReleaseFiles::new(bench.dir.path());
    assert!(files.is_held().unwrap());
    files.release(&Release { until_unix_seconds: None, by_uid: 0, why: "driver 580".to_owned() }).unwrap();
    let view = bench.view("the release", |view| view.worker == "released" && view.gpus[0].series == 0);
    assert_eq!((view.reason.as_deref(), view.worker_pid), (Some("released by uid 0: driver 580"), None));
    // As `plumbline gpu release` does: a killed process takes a moment to end.
    let killed = Instant::now();
    while files.is_held().unwrap() {
        assert!(killed.elapsed() < Duration::from_secs(10), "a process has the devices open");
        std::thread::sleep(Duration::from_millis(1));
    }
    // Nobody asked them, so nobody knows whether they are up, and nobody is alarmed.
    assert!(!render(&bench.standing()).contains("up{} 0"));
    files.resume().unwrap();
    bench.points(FIRST);
    assert!(files.is_held().unwrap());
}

#[test]
fn a_release_holds_over_a_restart_and_nobody_opens_the_devices_meanwhile() {
    let first = Bench::new(PAIR);
    let files = ReleaseFiles::new(first.dir.path());
    files.release(&Release { until_unix_seconds: None, by_uid: 0, why: String::new() }).unwrap();
    let Bench { dir, config, stop, worker, inbox, .. } = first;
    drop(stop);
    worker.join();
    drop(inbox);
    let look = gpu::look(&config, program(), dir.path()).unwrap_err();
    assert!(look.contains("plumbline gpu resume"), "{look}");
    let mut second = Bench::of(dir, &config);
    let view = second.view("the release", |view| view.worker == "released");
    assert_eq!((view.driver, view.worker_pid), (None, None), "nvml was never open");
    assert!(!files.is_held().unwrap());
}

#[test]
fn a_library_that_ends_the_process_is_told_as_such() {
    // Not a library of ours: one whose initialisation ends the process.
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("broken.c");
    fs::write(&source, "void __attribute__((constructor)) broken(void) { __builtin_trap(); }\n").unwrap();
    let library = dir.path().join("libnvidia-ml.so.1");
    let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.unwrap().success(), "a C compiler, as the linker of Rust programs is");
    let mut bench = Bench::of(dir, &GpuConfig::default());
    let reason = bench.sample("gpu").points.unwrap_err();
    assert_eq!(reason, "absent (the GPU worker died before NVML was open)");
}

#[test]
fn in_an_incident_what_changes_fast_is_asked_four_times_a_second() {
    let mut bench = Bench::new(PAIR);
    bench.points(FIRST);
    bench.incident.begin(clock::boot_ns(), Duration::from_secs(60), "a drill");
    bench.view("the incident", |view| view.profile == "incident");
    let taken: Vec<u64> = (0..6).map(|_| bench.numbers(FIRST).0).collect();
    let apart: Vec<u64> = taken.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    assert!(apart[1..].iter().all(|ms| *ms <= 300), "{apart:?}");
    bench.incident.end(clock::boot_ns(), "it is over");
    bench.view("its end", |view| view.profile == "steady");
}

#[test]
fn reasons_for_which_there_is_no_gpu() {
    let reason = |mut bench: Bench| {
        let reason = bench.sample("gpu").points.unwrap_err();
        let described = gpu::look(&bench.config, program(), bench.dir.path()).unwrap_err();
        assert_eq!(reason, format!("absent ({described})"));
        described.replace(&*bench.dir.path().to_string_lossy(), "DIR") + "\n"
    };
    let no_library = |content: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("libnvidia-ml.so.1");
        content.map_or(Ok(()), |content| fs::write(&library, content)).unwrap();
        Bench::of(dir, &GpuConfig::default())
    };
    check(
        &[
            no_library(None),
            no_library(Some("not a library")),
            Bench::new("driver: '570.133.20'\ninit_return: 9\n"),
            Bench::new("driver: '570.133.20'\ninit_return: 18\n"),
            Bench::new("driver: '570.133.20'\ngpus: []\n"),
            Bench::new(&LOST.replace("throttle_reasons: 0x1", "lost: true")),
        ]
        .map(reason)
        .concat(),
        &expect![[r#"
            NVML cannot be loaded: DIR/libnvidia-ml.so.1: cannot open shared object file: No such file or directory
            NVML cannot be loaded: DIR/libnvidia-ml.so.1: file too short
            NVML of DIR/libnvidia-ml.so.1 does not start: NVIDIA driver is not loaded
            NVML of DIR/libnvidia-ml.so.1 does not start: RM detects a driver/library version mismatch
            the driver lists no GPU
            none of the driver's 2 GPUs says who it is: device fell off the bus or has otherwise become inacessible
        "#]],
    );
}

#[test]
fn a_look_is_not_held_up_by_a_gpu_that_hangs() {
    let bench = Bench::new(&HANG.replace("at_s: 2\n", "at_s: 0\n"));
    let view = gpu::look(&bench.config, program(), bench.dir.path()).unwrap();
    assert_eq!((view.gpus.len(), view.gpus[0].series > 0, view.unnamed), (1, true, 1));
}

#[test]
fn a_stop_between_two_rounds_is_prompt() {
    let mut bench = Bench::with(PAIR, &GpuConfig { interval_seconds: 30, ..GpuConfig::default() });
    bench.points(FIRST);
    let began = Instant::now();
    drop(bench.stop);
    bench.worker.join();
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[test]
fn a_getter_that_hangs_holds_up_neither_the_stop_nor_the_channels_end() {
    let mut bench = Bench::new(&THROTTLED.replace("at_s: 10\n", "at_s: 1\n        hang_s: 30\n"));
    bench.points(OF_THROTTLED);
    std::thread::sleep(Duration::from_millis(2200));
    let Bench { dir, out, mut inbox, stop, worker, .. } = bench;
    let began = Instant::now();
    drop(stop);
    worker.join();
    drop(out);
    while let Ok(message) = inbox.try_recv() {
        drop(message);
    }
    assert!(matches!(inbox.try_recv(), Err(TryRecvError::Disconnected)), "the last sender is gone");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!ReleaseFiles::new(dir.path()).is_held().unwrap(), "and so is the worker");
}

#[test]
fn a_simulated_gpu_has_a_price_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let prices = "prices: {currency: EUR, gpu_per_hour: [{gpu: '*H100*', price: 3.6}]}\n";
    let config = load(&dir.path().join("config.yaml"), prices).unwrap();
    let mut ledger = Ledger::new(config.prices);
    let mut bench = Bench::new(PAIR);
    // Each says by itself who it is: at first one may be all that is known.
    bench.points(FIRST);
    bench.points(SECOND);
    let sample = bench.sample("gpu");
    ledger.observe(&sample);
    let now_boot_ns = sample.taken_boot_ns + 1_000_000_000;
    ledger.tick(now_boot_ns);
    let per_hour: Vec<String> = ledger
        .points(now_boot_ns)
        .iter()
        .filter(|point| point.series.name == "plumbline_cost_per_hour")
        .map(|point| format!("{} {}", point.labels.join(" "), point.number().unwrap()))
        .collect();
    assert_eq!(per_hour, ["EUR gpu_simulated 7.2"]);
}

fn load(path: &Path, text: &str) -> io::Result<Config> {
    fs::write(path, text)?;
    Config::load(Some(path)).map(|(config, _)| config).map_err(io::Error::other)
}
