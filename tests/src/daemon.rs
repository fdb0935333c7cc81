//! The real daemon, started and stopped for one check, on a state directory and a port of its own.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long anything may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the checks need from outside, from the environment that `cargo xtask test` sets.
#[derive(Debug, Clone)]
pub struct Tools {
    pub plumbline: PathBuf,
    pub python: Option<PathBuf>,
    pub promtool: Option<PathBuf>,
    pub llama_server: Option<PathBuf>,
    pub llama_model: Option<PathBuf>,
    /// A directory with CUDA's runtime and NCCL as they are.
    pub nvidia: Option<PathBuf>,
    pub fake_nvml: Option<PathBuf>,
    /// The repository's own `tests/`.
    pub scripts: PathBuf,
}

impl Tools {
    /// A program or library built beside this one.
    pub fn beside(&self, name: &str) -> Option<PathBuf> {
        let own = std::env::current_exe().ok()?;
        Some(own.with_file_name(name)).filter(|path| path.exists())
    }

    pub fn from_environment() -> Result<Self, String> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
        let beside = std::env::current_exe().map_err(|error| error.to_string())?;
        let beside = |name: &str| Some(beside.with_file_name(name)).filter(|path| path.exists());
        Ok(Self {
            plumbline: path("PLUMBLINE_BIN")
                .or_else(|| beside("plumbline"))
                .ok_or("no daemon is built; run `cargo xtask build`")?,
            python: path("PLUMBLINE_PYTHON"),
            promtool: path("PLUMBLINE_PROMTOOL"),
            llama_server: path("PLUMBLINE_LLAMA_SERVER"),
            llama_model: path("PLUMBLINE_LLAMA_MODEL"),
            nvidia: path("PLUMBLINE_NVIDIA"),
            fake_nvml: path("PLUMBLINE_FAKE_NVML").or_else(|| beside("libfake_nvml.so")),
            scripts: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        })
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    tools: Tools,
    child: Child,
    pub state: PathBuf,
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts with this configuration (`listen` and `state_dir` are added) and waits until it serves.
    pub fn start(tools: &Tools, scratch: &Path, config: &str) -> Result<Self, String> {
        Self::start_with(tools, scratch, config, &[])
    }

    pub fn start_with(tools: &Tools, scratch: &Path, config: &str, env: &[(&str, &str)]) -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let state = scratch.join("state");
        let file = scratch.join("config.yaml");
        fs::create_dir_all(scratch).map_err(|error| error.to_string())?;
        let text = format!("listen: {address}\nstate_dir: {}\n{config}", state.display());
        fs::write(&file, text).map_err(|error| error.to_string())?;
        let log = fs::File::create(scratch.join("daemon.log")).map_err(|error| error.to_string())?;
        let child = Command::new(&tools.plumbline)
            .args(["run", "--config"])
            .arg(&file)
            .envs(env.iter().copied())
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", tools.plumbline.display()))?;
        let mut daemon = Self { tools: tools.clone(), child, state, address };
        let deadline = Instant::now() + PATIENCE;
        while daemon.get("/healthz").is_err() {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                return Err(format!("the daemon ended with {status}: {}", daemon.said(scratch)));
            }
            if Instant::now() > deadline {
                return Err(format!("the daemon does not serve: {}", daemon.said(scratch)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    /// Its own log lines so far.
    pub fn said(&self, scratch: &Path) -> String {
        fs::read_to_string(scratch.join("daemon.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_dir(&self) -> PathBuf {
        self.state.join("log")
    }

    pub fn vkey(&self) -> PathBuf {
        self.state.join("node.vkey")
    }

    /// One HTTP request to it.
    pub fn get(&self, path: &str) -> Result<String, String> {
        get(self.address, path, "")
    }

    /// The page in the format that Prometheus asks for by default.
    pub fn metrics(&self) -> Result<String, String> {
        self.get("/metrics")
    }

    /// The value of the first sample whose line starts with `series`, labels included as far as given.
    pub fn metric(&self, series: &str) -> Result<Option<f64>, String> {
        let page = self.metrics()?;
        let line = page.lines().find(|line| line.starts_with(series));
        Ok(line.and_then(|line| line.rsplit(' ').next()).and_then(|number| number.parse().ok()))
    }

    /// Waits for a sample to satisfy `wanted`.
    pub fn wait_for(&self, series: &str, wanted: impl Fn(f64) -> bool) -> Result<f64, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(series)?;
            if let Some(value) = value.filter(|&value| wanted(value)) {
                return Ok(value);
            }
            if Instant::now() > deadline {
                return Err(format!("{series} did not come to the expected value; it is {value:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What it has of the machine's memory (proc_pid_status(5), `VmRSS`).
    pub fn resident_kib(&self) -> Result<u64, String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).map_err(|error| error.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).ok_or_else(|| "no VmRSS".to_owned())
    }

    /// Every record so far, as it stands in the log.
    pub fn records(&self) -> Result<Vec<Value>, String> {
        records(&self.tools, &self.log_dir())
    }

    /// Waits for a record that `wanted` accepts.
    pub fn wait_for_record(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, String> {
        self.wait_for_record_within(PATIENCE, what, wanted)
    }

    pub fn wait_for_record_within(
        &self,
        patience: Duration,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let deadline = Instant::now() + patience;
        loop {
            let records = self.records()?;
            let count = records.len();
            if let Some(record) = records.into_iter().find(|record| wanted(record)) {
                return Ok(record);
            }
            if Instant::now() > deadline {
                return Err(format!("no record of {what} among {count}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) -> Result<(), String> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).map_err(|error| error.to_string())
    }

    /// SIGTERM, and its exit status.
    pub fn stop(mut self) -> Result<(), String> {
        self.signal(rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("the daemon ended with {status}")),
                _ if Instant::now() > deadline => return Err("the daemon does not stop".to_owned()),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the records of a log with the command that users have.
pub fn records(tools: &Tools, log: &Path) -> Result<Vec<Value>, String> {
    let output = run(Command::new(&tools.plumbline).args(["audit", "cat"]).arg(log))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string())).collect()
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<Output, String> {
    command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))
}

/// Runs a program with `input` on its standard input.
pub fn run_with(command: &mut Command, input: &[u8]) -> Result<Output, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stops reading says why in its output.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output().map_err(|error| error.to_string())
}

/// Says something to the daemon. The first line of an answer that is not 200 is the error.
pub fn post(address: SocketAddr, path: &str, authorization: &str, body: &str) -> Result<String, String> {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    exchange(address, &request)
}

/// GET over HTTP/1.0: the end of the connection is the end of the body.
pub fn get(address: SocketAddr, path: &str, headers: &str) -> Result<String, String> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n"))
}

fn exchange(address: SocketAddr, request: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    // A daemon that refuses a long body need not read all of it.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("not an HTTP answer")?;
    if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(head.lines().next().unwrap_or_default().to_owned()) }
}
