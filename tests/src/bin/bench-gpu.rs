//! What reading eight simulated GPUs costs, and whether a million samples leave anything behind.
//!
//! `bench-gpu PLUMBLINE LIBFAKE_NVML SCENARIO DIRECTORY`; to be built optimised. CPU time is that of all threads
//! (`/proc/PID/task/*/schedstat`, nanoseconds): the worker's without what passed in rounds of questions, which is the library's,
//! and what the daemon needs more than one that reads no GPUs. Turns are interleaved.

use std::{
    env, fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use plumbline::{
    gpu::{Fleet, Frame, Next, Program, Rhythm, Running},
    halt::Halt,
    series::store::Store,
};
use plumbline_tests::daemon::{get, post};

const TURNS: usize = 3;
const SETTLE: Duration = Duration::from_secs(6);
const MEASURE: Duration = Duration::from_secs(20);
const SAMPLES: u64 = 1_000_000;
const TOKEN: &str = "0123456789abcdef";

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [plumbline, library, scenario, directory] = &arguments[..] else {
        eprintln!("usage: bench-gpu PLUMBLINE LIBFAKE_NVML SCENARIO DIRECTORY");
        return ExitCode::from(2);
    };
    let bench = Bench { plumbline, library, scenario, directory };
    match bench.cost().and_then(|()| bench.growth()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-gpu: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Bench<'a> {
    plumbline: &'a Path,
    library: &'a Path,
    scenario: &'a Path,
    directory: &'a Path,
}

/// How the daemon is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Profile {
    Off,
    Steady,
    Incident,
}

/// Shares of one core.
#[derive(Clone, Copy, Default)]
struct Cost {
    daemon: f64,
    worker: f64,
    library: f64,
}

impl Bench<'_> {
    fn cost(&self) -> io::Result<()> {
        println!(
            "eight simulated GPUs, {TURNS} turns of {} s each, interleaved; shares of one core",
            MEASURE.as_secs()
        );
        println!("{:<10} {:>10} {:>10} {:>10} {:>16}", "profile", "daemon", "worker", "library", "ours, over off");
        let mut ours: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            let off = self.turn(Profile::Off)?;
            line("off", off, None);
            for (at, (name, profile)) in
                [("steady", Profile::Steady), ("incident", Profile::Incident)].into_iter().enumerate()
            {
                let cost = self.turn(profile)?;
                let own = cost.daemon - off.daemon + cost.worker - cost.library;
                line(name, cost, Some(own));
                ours[at].push(own);
            }
        }
        for (name, mut own) in ["steady", "incident"].into_iter().zip(ours) {
            own.sort_by(f64::total_cmp);
            let (least, middle, most) = (own[0], own[own.len() / 2], own[own.len() - 1]);
            println!(
                "{name}: {:.3} % of a core ({:.3} to {:.3}), without the library",
                middle * 1e2,
                least * 1e2,
                most * 1e2
            );
        }
        Ok(())
    }

    fn turn(&self, profile: Profile) -> io::Result<Cost> {
        let _ = fs::remove_dir_all(self.directory);
        fs::create_dir_all(self.directory)?;
        let token = self.directory.join("token");
        fs::write(&token, TOKEN)?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        let address = SocketAddr::from(([127, 0, 0, 1], 9478));
        let config = self.directory.join("config.yaml");
        let gpu = if profile == Profile::Off {
            "{enabled: false}".to_owned()
        } else {
            format!("{{library: {}}}", self.library.display())
        };
        let state = self.directory.join("state");
        fs::write(
            &config,
            format!(
                "state_dir: {}\nlisten: {address}\ngpu: {gpu}\nengines: {{discover: false}}\nincident: {{token_file: {}, by_findings: false}}\n",
                state.display(),
                token.display()
            ),
        )?;
        let child = Command::new(self.plumbline)
            .args(["run", "--config"])
            .arg(&config)
            .env("FAKE_NVML_SCENARIO", self.scenario)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.directory.join("daemon.log"))?)
            .spawn()?;
        let daemon = Daemon(child);
        thread::sleep(SETTLE);
        if profile == Profile::Incident {
            post(address, "/api/v1/incident", &format!("Bearer {TOKEN}"), r#"{"status":"firing"}"#)
                .map_err(io::Error::other)?;
        }
        let worker = worker_of(address)?;
        let before = (cpu_ns(daemon.0.id())?, worker.map(cpu_ns).transpose()?, library_seconds(address)?);
        let began = Instant::now();
        thread::sleep(MEASURE);
        let after = (cpu_ns(daemon.0.id())?, worker.map(cpu_ns).transpose()?, library_seconds(address)?);
        let seconds = began.elapsed().as_secs_f64();
        let share = |before: u64, after: u64| after.saturating_sub(before) as f64 / 1e9 / seconds;
        Ok(Cost {
            daemon: share(before.0, after.0),
            worker: before.1.zip(after.1).map_or(0.0, |(before, after)| share(before, after)),
            library: (after.2 - before.2) / seconds,
        })
    }

    /// The worker asks as fast as it can, and this process does what the daemon does with each answer.
    fn growth(&self) -> io::Result<()> {
        println!(
            "\n{SAMPLES} samples as fast as can be: resident memory of the worker, and of this process, which keeps them"
        );
        let program = Program { path: self.plumbline.to_owned(), library: self.library.to_owned() };
        let rhythm = Rhythm { light_ms: 1, full_ms: 5 };
        let mut running = Running::start_with(&program, rhythm, None, &[("FAKE_NVML_SCENARIO", self.scenario)])
            .map_err(io::Error::other)?;
        let (_other_half, halt) = Halt::pair()?;
        let (mut fleet, mut store) = (Fleet::default(), Store::default());
        let (mut samples, mut first) = (0, None);
        let began = Instant::now();
        while samples < SAMPLES {
            let Next::Frame(frame) = running.next(&halt, Duration::from_secs(10)) else {
                return Err(io::Error::other("the worker is silent"));
            };
            match frame {
                Frame::Open { driver, count, .. } => fleet.open(&driver, count, 0),
                Frame::Listed(identity) => fleet.listed(identity, 0),
                Frame::Reading(reading) => {
                    samples += 1;
                    fleet.reading(reading).into_iter().for_each(|sample| store.take(sample));
                    if samples % (SAMPLES / 10) == 0 {
                        let resident = [resident_bytes(running.pid())?, resident_bytes(std::process::id())?];
                        first = first.or(Some(resident));
                        println!("  after {samples:>8}: {:>9} KiB, {:>9} KiB", resident[0] / 1024, resident[1] / 1024);
                    }
                }
                _ => {}
            }
        }
        let last = [resident_bytes(running.pid())?, resident_bytes(std::process::id())?];
        let grown = |at: usize| first.map_or(0, |first| last[at].cast_signed() - first[at].cast_signed());
        println!(
            "from the first tenth to the last: worker {:+} bytes, keeper {:+} bytes; {:.0} samples a second",
            grown(0),
            grown(1),
            SAMPLES as f64 / began.elapsed().as_secs_f64()
        );
        drop(running.kill());
        Ok(())
    }
}

fn line(name: &str, cost: Cost, ours: Option<f64>) {
    let percent = |share: f64| format!("{:.3} %", share * 1e2);
    let ours = ours.map(percent).unwrap_or_default();
    println!(
        "{name:<10} {:>10} {:>10} {:>10} {ours:>16}",
        percent(cost.daemon),
        percent(cost.worker),
        percent(cost.library)
    );
}

/// Ended with this.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn worker_of(address: SocketAddr) -> io::Result<Option<u32>> {
    let view = get(address, "/api/v1/gpu", "").map_err(io::Error::other)?;
    let view: serde_json::Value = serde_json::from_str(&view)?;
    Ok(view["worker_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()))
}

fn library_seconds(address: SocketAddr) -> io::Result<f64> {
    let page = get(address, "/metrics", "").map_err(io::Error::other)?;
    let line = page.lines().find(|line| line.starts_with("plumbline_gpu_worker_library_cpu_seconds_total"));
    Ok(line.and_then(|line| line.rsplit(' ').next()).and_then(|number| number.parse().ok()).unwrap_or(0.0))
}

fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

fn resident_bytes(pid: u32) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| io::Error::other("no statm"))
}
