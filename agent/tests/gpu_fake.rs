//! The GPU worker against `tests/fake-nvml`: a library with NVML's C interface and no hardware behind it.
//!
//! Each test loads a copy of its own, with its scenario beside it, so that none sees another's time or GPUs.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use expect_test::{Expect, expect};
use plumbline::{
    config::{Config, GpuConfig},
    cost::Ledger,
    gpu::{self, Worker},
    message::Message,
    series::{Point, Sample},
};
use tempfile::TempDir;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    watch,
};

const PAIR: &str = include_str!("../../tests/fake-nvml/scenarios/h100-pair.yaml");
const THROTTLED: &str = include_str!("../../tests/fake-nvml/scenarios/throttled.yaml");
const LOST: &str = include_str!("../../tests/fake-nvml/scenarios/lost.yaml");

/// A worker that reads simulated GPUs.
struct Bench {
    _dir: TempDir,
    config: GpuConfig,
    out: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
    stop: watch::Sender<bool>,
    worker: Worker,
}

impl Bench {
    fn new(scenario: &str) -> Self {
        Self::with_interval(scenario, 1)
    }

    fn with_interval(scenario: &str, interval_seconds: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("scenario.yaml"), scenario).unwrap();
        fs::copy(fake_library(), dir.path().join("libnvidia-ml.so.1")).unwrap();
        let library = dir.path().join("libnvidia-ml.so.1");
        Self::with_library(dir, library, interval_seconds)
    }

    fn with_library(dir: TempDir, library: PathBuf, interval_seconds: u64) -> Self {
        let config = GpuConfig { library: Some(library), interval_seconds, ..GpuConfig::default() };
        let (out, inbox) = mpsc::channel(16);
        let (stop, stopped) = watch::channel(false);
        let worker = gpu::spawn(&config, out.clone(), stopped).unwrap();
        Self { _dir: dir, config, out, inbox, stop, worker }
    }

    fn sample(&mut self) -> Sample {
        let Some(Message::Sample(sample)) = self.inbox.blocking_recv() else { panic!("no sample") };
        assert_eq!(sample.source, "gpu");
        sample
    }

    /// The numbers of the next sample.
    fn points(&mut self) -> Vec<Point> {
        self.sample().points.unwrap()
    }

    /// Stops the worker; returns how long that took.
    fn stop(self) -> Duration {
        let began = Instant::now();
        self.stop.send(true).unwrap();
        self.worker.join();
        began.elapsed()
    }
}

/// `PLUMBLINE_FAKE_NVML`, else where cargo puts it, which is in a directory above this test.
fn fake_library() -> PathBuf {
    let beside = |exe: PathBuf| exe.ancestors().map(|dir| dir.join("libfake_nvml.so")).find(|path| path.exists());
    let named = env::var_os("PLUMBLINE_FAKE_NVML").map(PathBuf::from);
    named
        .or_else(|| env::current_exe().ok().and_then(beside))
        .expect("libfake_nvml.so is not built: run `cargo build -p fake-nvml`, or name it in PLUMBLINE_FAKE_NVML")
}

/// One line per point, of one GPU or all; what counts time is only named.
fn render(points: &[Point]) -> String {
    let mut lines: Vec<String> = points.iter().map(line).collect();
    lines.sort();
    lines.concat()
}

fn line(point: &Point) -> String {
    let labels: Vec<String> =
        point.series.labels.iter().zip(&point.labels).map(|(name, value)| format!("{name}={value}")).collect();
    let labels = labels.join(",").replace("GPU-5eed0000-0000-4000-8000-00000000000", "");
    let counts_time = point.series.name.contains("energy") || point.series.name.contains("throttle_seconds");
    let number = if counts_time { "…".to_owned() } else { point.number().unwrap().to_string() };
    format!("{}{{{labels}}} {number}\n", point.series.name.trim_start_matches("plumbline_gpu_"))
}

/// The values of a series by its last label.
fn by_label(points: &[Point], series: &str) -> BTreeMap<String, f64> {
    let name = format!("plumbline_gpu_{series}");
    let of_series = points.iter().filter(|point| point.series.name == name);
    of_series.map(|point| (point.labels.last().unwrap().clone(), point.number().unwrap())).collect()
}

fn check(text: &str, expect: &Expect) {
    expect.assert_eq(text);
}

#[test]
fn every_answer_of_a_gpu_becomes_a_series_and_all_are_marked_as_simulated() {
    let points = Bench::new(THROTTLED).points();
    assert!(points.iter().all(|point| point.labels[1] == "true"), "{points:?}");
    check(
        &render(&points),
        &expect![[r#"
        energy_joules_total{gpu=a,simulated=true} …
        info{gpu=a,simulated=true,index=0,name=NVIDIA H100 80GB HBM3,pci_bus_id=00000000:3A:00.0,driver=570.133.20} 1
        max_sm_clock_hertz{gpu=a,simulated=true} 1980000000
        memory_clock_hertz{gpu=a,simulated=true} 2619000000
        memory_temperature_celsius{gpu=a,simulated=true} 88
        memory_total_bytes{gpu=a,simulated=true} 85520809984
        memory_used_bytes{gpu=a,simulated=true} 80530636800
        memory_utilization_ratio{gpu=a,simulated=true} 0.71
        pcie_replays_total{gpu=a,simulated=true} 3
        power_limit_watts{gpu=a,simulated=true} 700
        power_watts{gpu=a,simulated=true} 699
        sm_clock_hertz{gpu=a,simulated=true} 1590000000
        temperature_celsius{gpu=a,simulated=true} 79
        throttle_active{gpu=a,simulated=true,reason=application_clocks} 0
        throttle_active{gpu=a,simulated=true,reason=display_clocks} 0
        throttle_active{gpu=a,simulated=true,reason=hw_power_brake} 0
        throttle_active{gpu=a,simulated=true,reason=hw_slowdown} 0
        throttle_active{gpu=a,simulated=true,reason=hw_thermal} 0
        throttle_active{gpu=a,simulated=true,reason=idle} 0
        throttle_active{gpu=a,simulated=true,reason=other} 0
        throttle_active{gpu=a,simulated=true,reason=sw_power_cap} 0
        throttle_active{gpu=a,simulated=true,reason=sw_thermal} 0
        throttle_active{gpu=a,simulated=true,reason=sync_boost} 0
        throttle_seconds_total{gpu=a,simulated=true,reason=application_clocks} …
        throttle_seconds_total{gpu=a,simulated=true,reason=base_clocks} …
        throttle_seconds_total{gpu=a,simulated=true,reason=board_limit} …
        throttle_seconds_total{gpu=a,simulated=true,reason=hw_power_brake} …
        throttle_seconds_total{gpu=a,simulated=true,reason=hw_thermal} …
        throttle_seconds_total{gpu=a,simulated=true,reason=low_utilization} …
        throttle_seconds_total{gpu=a,simulated=true,reason=reliability} …
        throttle_seconds_total{gpu=a,simulated=true,reason=sw_power_cap} …
        throttle_seconds_total{gpu=a,simulated=true,reason=sw_thermal} …
        throttle_seconds_total{gpu=a,simulated=true,reason=sync_boost} …
        throttle_seconds_total{gpu=a,simulated=true,reason=thermal} …
        up{gpu=a,simulated=true} 1
        utilization_ratio{gpu=a,simulated=true} 1
    "#]],
    );
}

#[test]
fn both_gpus_of_a_pair_are_read_with_all_their_links() {
    let mut bench = Bench::new(PAIR);
    let points = bench.points();
    assert_eq!(by_label(&points, "nvlink_up").len(), 18);
    let gpus: Vec<&str> = points
        .iter()
        .filter(|point| point.series.name == "plumbline_gpu_info")
        .map(|point| &*point.labels[2])
        .collect();
    assert_eq!(gpus, ["0", "1"]);
}

#[test]
fn a_link_that_is_down_is_zero_and_links_end_where_the_gpu_says_so() {
    let scenario = THROTTLED.replace("nvlinks_up: []", "nvlinks_up: [true, false, true]");
    let links = by_label(&Bench::new(&scenario).points(), "nvlink_up");
    assert_eq!(links.into_iter().collect::<Vec<_>>(), [("0".into(), 1.0), ("1".into(), 0.0), ("2".into(), 1.0)]);
}

#[test]
fn throttle_time_means_the_same_under_every_drivers_numbering() {
    let shares = "{ 74: 0.125, 251: 0.25, 252: 0.5, 253: 1 }";
    let scenario = THROTTLED
        .replace("{ 74: 0.4, 75: 0, 76: 0, 77: 0, 78: 0, 79: 0, 80: 0, 81: 0, 251: 0, 252: 0, 253: 0 }", shares);
    for driver in ["550.54.15", "580.65.06", "580.82.07", "580.126.09", "610.1"] {
        let mut bench = Bench::new(&scenario.replace("570.133.20", driver));
        let (first, second) = (bench.sample(), bench.sample());
        let elapsed_s = (second.taken_boot_ns - first.taken_boot_ns) as f64 / 1e9;
        let [first, second] = [first, second].map(|sample| by_label(&sample.points.unwrap(), "throttle_seconds_total"));
        let share = |reason: &str| (second[reason] - first[reason]) / elapsed_s;
        let measured = ["sw_power_cap", "sw_thermal", "hw_thermal", "hw_power_brake"].map(share);
        for (measured, said) in measured.into_iter().zip([0.125, 0.25, 0.5, 1.0]) {
            assert!((measured - said).abs() < 0.2 * said, "driver {driver}: {measured} instead of {said}");
        }
        assert_eq!(second.len(), 4, "driver {driver} has no other field: {second:?}");
    }
}

#[test]
fn energy_is_what_the_power_adds_up_to() {
    let mut bench = Bench::new(THROTTLED);
    let (first, second) = (bench.sample(), bench.sample());
    let elapsed_s = (second.taken_boot_ns - first.taken_boot_ns) as f64 / 1e9;
    let [first, second] =
        [first, second].map(|sample| by_label(&sample.points.unwrap(), "energy_joules_total")["true"]);
    let watts = (second - first) / elapsed_s;
    assert!((watts - 699.0).abs() < 70.0, "{watts} W instead of 699");
}

#[test]
fn a_question_that_a_gpu_does_not_answer_has_no_series_and_costs_no_other() {
    let all = render(&Bench::new(THROTTLED).points());
    let scenario = THROTTLED.replace(
        "    steps:",
        "    unsupported: [nvmlDeviceGetPowerUsage, nvmlDeviceGetUtilizationRates, nvmlDeviceGetFieldValues]\n    steps:",
    );
    let fewer = render(&Bench::new(&scenario).points());
    let missing: Vec<&str> =
        all.lines().filter(|line| !fewer.contains(line)).filter_map(|line| line.split('{').next()).collect();
    assert!(fewer.lines().all(|line| all.contains(line)), "{fewer}");
    let expected = ["memory_temperature_celsius", "memory_utilization_ratio", "power_watts"]
        .into_iter()
        .chain(["throttle_seconds_total"; 11])
        .chain(["utilization_ratio"]);
    assert_eq!(missing, expected.collect::<Vec<_>>());
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_down_with_its_name_and_without_numbers() {
    let mut bench = Bench::new(&LOST.replace("at_s: 2", "at_s: 0.5"));
    let of_second = |points: &[Point]| -> Vec<Point> {
        points.iter().filter(|point| point.labels[0].ends_with('1')).cloned().collect()
    };
    let before = bench.points();
    assert!(render(&of_second(&before)).contains("up{gpu=1,simulated=true} 1\n"));
    let after = bench.points();
    check(
        &render(&of_second(&after)),
        &expect![[r#"
        info{gpu=1,simulated=true,index=1,name=NVIDIA H100 80GB HBM3,pci_bus_id=00000000:1C:00.0,driver=580.126.09} 1
        up{gpu=1,simulated=true} 0
    "#]],
    );
    assert_eq!(after.len() - of_second(&after).len(), before.len() - of_second(&before).len(), "the first goes on");
}

#[test]
fn reasons_for_which_there_is_no_gpu() {
    let reason = |mut bench: Bench| {
        let reason = bench.sample().points.unwrap_err();
        let described = gpu::describe(&bench.config).unwrap_err();
        assert_eq!(reason, format!("absent ({described})"));
        described.replace(&*bench._dir.path().to_string_lossy(), "DIR") + "\n"
    };
    let no_library = |content: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("libnvidia-ml.so.1");
        content.map_or(Ok(()), |content| fs::write(&library, content)).unwrap();
        Bench::with_library(dir, library, 1)
    };
    check(
        &[
            no_library(None),
            no_library(Some("not a library")),
            Bench::new("driver: '570.133.20'\ninit_return: 9\n"),
            Bench::new("driver: '570.133.20'\ninit_return: 18\n"),
            Bench::new("driver: '570.133.20'\ngpus: []\n"),
        ]
        .map(reason)
        .concat(),
        &expect![[r#"
            NVML cannot be loaded: DIR/libnvidia-ml.so.1: cannot open shared object file: No such file or directory
            NVML cannot be loaded: DIR/libnvidia-ml.so.1: file too short
            NVML of DIR/libnvidia-ml.so.1 does not start: NVIDIA driver is not loaded
            NVML of DIR/libnvidia-ml.so.1 does not start: RM detects a driver/library version mismatch
            the driver lists no GPU
        "#]],
    );
}

#[test]
fn the_doctor_names_the_gpus_and_says_when_they_are_simulated() {
    let describe = |scenario: &str| gpu::describe(&Bench::new(scenario).config).unwrap() + "\n";
    check(
        &[THROTTLED, PAIR].map(describe).concat(),
        &expect![[r#"
        1 GPU: NVIDIA H100 80GB HBM3, driver 570.133.20 (simulated)
        2 GPUs: NVIDIA H100 80GB HBM3, driver 550.54.15 (simulated)
    "#]],
    );
}

#[test]
fn a_stop_between_two_rounds_is_prompt() {
    let mut bench = Bench::with_interval(PAIR, 30);
    bench.sample();
    // The worker is now asleep.
    std::thread::sleep(Duration::from_millis(150));
    let took = bench.stop();
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_getter_that_hangs_holds_up_neither_the_stop_nor_the_channels_end() {
    let mut bench = Bench::new(&THROTTLED.replace("at_s: 10\n", "at_s: 0.1\n        hang_s: 30\n"));
    bench.sample();
    std::thread::sleep(Duration::from_millis(1200));
    let Bench { _dir, out, mut inbox, stop, worker, .. } = bench;
    let began = Instant::now();
    stop.send(true).unwrap();
    worker.join();
    drop(out);
    assert!(matches!(inbox.try_recv(), Err(TryRecvError::Disconnected)), "the last sender is gone");
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[test]
fn a_simulated_gpu_has_a_price_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let prices = "prices: {currency: EUR, gpu_per_hour: [{gpu: '*H100*', price: 3.6}]}\n";
    let config = load(&dir.path().join("config.yaml"), prices).unwrap();
    let mut ledger = Ledger::new(config.prices);
    let sample = Bench::new(PAIR).sample();
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
