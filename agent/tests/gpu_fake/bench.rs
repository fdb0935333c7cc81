//! A keeper and its worker, with a library and a scenario of their own.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{PipeWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use expect_test::Expect;
use plumbline::{
    event::{Finding, What},
    gpu::{self, GpuConfig, Held, View, Worker},
    halt::Halt,
    incident::Incident,
    message::Message,
    series::{Point, Sample},
};
use tempfile::TempDir;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    watch,
};

pub const PAIR: &str = include_str!("../../../tests/fake-nvml/scenarios/h100-pair.yaml");
pub const THROTTLED: &str = include_str!("../../../tests/fake-nvml/scenarios/throttled.yaml");
pub const LOST: &str = include_str!("../../../tests/fake-nvml/scenarios/lost.yaml");
pub const H100X8: &str = include_str!("../../../tests/fake-nvml/scenarios/h100x8.yaml");
pub const B200X8: &str = include_str!("../../../tests/fake-nvml/scenarios/b200x8.yaml");
pub const L4: &str = include_str!("../../../tests/fake-nvml/scenarios/l4.yaml");
pub const BURST: &str = include_str!("../../../tests/fake-nvml/scenarios/throttle-burst.yaml");
pub const HANG: &str = include_str!("../../../tests/fake-nvml/scenarios/hang.yaml");
pub const XID_79: &str = include_str!("../../../tests/fake-nvml/scenarios/xid-79.yaml");
pub const ECC: &str = include_str!("../../../tests/fake-nvml/scenarios/ecc.yaml");
pub const NVLINK_DOWN: &str = include_str!("../../../tests/fake-nvml/scenarios/nvlink-down.yaml");
pub const A100_MIG: &str = include_str!("../../../tests/fake-nvml/scenarios/a100-mig.yaml");
pub const H100_MIG: &str = include_str!("../../../tests/fake-nvml/scenarios/h100-mig.yaml");
pub const RELOAD: &str = include_str!("../../../tests/fake-nvml/scenarios/reload.yaml");

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A keeper, with a worker that reads simulated GPUs.
pub struct Bench {
    pub dir: TempDir,
    pub config: GpuConfig,
    pub out: mpsc::Sender<Message>,
    pub inbox: mpsc::Receiver<Message>,
    /// The daemon halts when this is dropped.
    pub stop: PipeWriter,
    pub worker: Worker,
    pub incident: Incident,
    pub held: watch::Sender<Arc<Held>>,
}

impl Bench {
    pub fn new(scenario: &str) -> Self {
        Self::with(scenario, &GpuConfig { full_interval_seconds: 1, ..GpuConfig::default() })
    }

    pub fn with(scenario: &str, config: &GpuConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("scenario.yaml"), scenario).unwrap();
        fs::copy(fake_library(), dir.path().join("libnvidia-ml.so.1")).unwrap();
        Self::of(dir, config)
    }

    pub fn of(dir: TempDir, config: &GpuConfig) -> Self {
        let config = GpuConfig {
            library: Some(dir.path().join("libnvidia-ml.so.1")),
            kernel_log: dir.path().join("kmsg"),
            ..config.clone()
        };
        fs::write(dir.path().join("kmsg"), "").unwrap();
        let (out, inbox) = mpsc::channel(64);
        let incident = Incident::default();
        let (held, held_seen) = watch::channel(Arc::default());
        let (stop, halt) = Halt::pair().unwrap();
        let worker =
            gpu::spawn(&config, program(), ("node-7", dir.path()), incident.clone(), held_seen, out.clone(), halt)
                .unwrap();
        Self { dir, config, out, inbox, stop, worker, incident, held }
    }

    pub fn message(&mut self) -> Message {
        let began = Instant::now();
        loop {
            match self.inbox.try_recv() {
                Ok(message) => return message,
                Err(TryRecvError::Disconnected) => panic!("the keeper is gone"),
                Err(TryRecvError::Empty) => assert!(began.elapsed() < PATIENCE, "nothing is said"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The first that is wanted, of all that is said.
    pub fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&Message) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = wanted(&self.message()) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "{what} does not come");
        }
    }

    pub fn sample(&mut self, source: &str) -> Sample {
        self.wait(source, |message| match message {
            Message::Sample(sample) if sample.source == source => Some(sample.clone()),
            _ => None,
        })
    }

    pub fn finding(&mut self, kind: &str) -> Finding {
        self.wait(kind, |message| match message {
            Message::Event(event) => match &event.what {
                What::Finding(finding) if finding.kind == kind => Some(finding.clone()),
                _ => None,
            },
            _ => None,
        })
    }

    /// All numbers of this GPU: of its next full round, and of the light one before it.
    pub fn points(&mut self, uuid: &str) -> Vec<Point> {
        let mut light = Vec::new();
        let (light_source, full_source) = (format!("gpu:{uuid}:light"), format!("gpu:{uuid}:full"));
        let full = self.wait(&full_source, |message| match message {
            Message::Sample(sample) if sample.source == light_source => {
                light = sample.points.clone().unwrap();
                None
            }
            Message::Sample(sample) if sample.source == full_source => Some(sample.points.clone().unwrap()),
            _ => None,
        });
        light.into_iter().chain(full).collect()
    }

    /// The next numbers of this GPU that change fast, with when they were taken.
    pub fn numbers(&mut self, uuid: &str) -> (u64, Vec<Point>) {
        let sample = self.sample(&format!("gpu:{uuid}:light"));
        (sample.taken_boot_ns, sample.points.unwrap_or_else(|reason| panic!("{uuid}: {reason}")))
    }

    /// What is told of all GPUs, whether they answer or not.
    pub fn standing(&mut self) -> Vec<Point> {
        self.sample("gpu").points.unwrap()
    }

    /// Waits until the daemon would show this.
    pub fn view(&mut self, what: &str, wanted: impl Fn(&View) -> bool) -> View {
        let began = Instant::now();
        loop {
            let view = self.worker.view.borrow().clone();
            if wanted(&view) {
                return view;
            }
            assert!(began.elapsed() < PATIENCE, "{what} does not come: {view:?}");
            // The keeper waits where nobody listens.
            while self.inbox.try_recv().is_ok() {}
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The kernel says something.
    pub fn kernel_says(&self, text: &str) {
        let mut log = fs::OpenOptions::new().append(true).open(self.dir.path().join("kmsg")).unwrap();
        writeln!(log, "4,1234,5678901,-;{text}").unwrap();
    }

    pub fn replace_scenario(&self, scenario: &str) {
        fs::write(self.dir.path().join("new.yaml"), scenario).unwrap();
        fs::rename(self.dir.path().join("new.yaml"), self.dir.path().join("scenario.yaml")).unwrap();
    }
}

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_plumbline"))
}

/// `PLUMBLINE_FAKE_NVML`, else where cargo puts it, which is in a directory above this test.
fn fake_library() -> PathBuf {
    let beside = |exe: PathBuf| exe.ancestors().map(|dir| dir.join("libfake_nvml.so")).find(|path| path.exists());
    let named = env::var_os("PLUMBLINE_FAKE_NVML").map(PathBuf::from);
    named
        .or_else(|| env::current_exe().ok().and_then(beside))
        .expect("libfake_nvml.so is not built: run `cargo build -p fake-nvml`, or name it in PLUMBLINE_FAKE_NVML")
}

pub const FIRST: &str = "GPU-5eed0000-0000-4000-8000-000000000000";
pub const SECOND: &str = "GPU-5eed0000-0000-4000-8000-000000000001";
pub const OF_THROTTLED: &str = "GPU-5eed0000-0000-4000-8000-00000000000a";
pub const OF_L4: &str = "GPU-5eed0000-0000-4000-8000-0000000000e4";

/// What is not there for dcgm-exporter's dashboards.
pub fn without_dcgm(points: Vec<Point>) -> Vec<Point> {
    points.into_iter().filter(|point| point.series.name.starts_with("plumbline_")).collect()
}

/// One line per point; what counts time is only named.
pub fn render(points: &[Point]) -> String {
    let mut lines: Vec<String> = points.iter().map(line).collect();
    lines.sort();
    lines.concat()
}

fn line(point: &Point) -> String {
    let own =
        point.series.labels.iter().zip(&*point.labels).filter(|(name, _)| !["UUID", "gpu", "simulated"].contains(name));
    let labels: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
    let name = point.series.name.trim_start_matches("plumbline_gpu_");
    let counts_time =
        ["energy", "throttle_seconds", "age_seconds", "round_seconds"].iter().any(|part| name.contains(part));
    let number = if counts_time { "…".to_owned() } else { point.number().unwrap().to_string() };
    format!("{name}{{{}}} {number}\n", labels.join(","))
}

/// The values of a series by their own labels.
pub fn by_label(points: &[Point], series: &str) -> BTreeMap<String, f64> {
    let name = format!("plumbline_gpu_{series}");
    let of_series = points.iter().filter(|point| point.series.name == name);
    of_series.map(|point| (point.labels[3.min(point.labels.len())..].join(","), point.number().unwrap())).collect()
}

/// The values of a series that is of no GPU, by its labels.
pub fn by_label_of(points: &[Point], series: &str) -> BTreeMap<String, f64> {
    let name = format!("plumbline_gpu_{series}");
    let of_series = points.iter().filter(|point| point.series.name == name);
    of_series.map(|point| (point.labels.join(","), point.number().unwrap())).collect()
}

pub fn check(text: &str, expect: &Expect) {
    expect.assert_eq(text);
}
