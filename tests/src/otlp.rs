//! The OTLP receiver in Python, `tests/otlp_receiver.py`, as a peer of the real daemon.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::daemon::{Tools, run};

/// Longer than the exporters' second retry.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Receiver {
    child: Child,
    out: PathBuf,
    pub port: u64,
}

/// Why there is no receiver.
#[derive(Debug)]
pub enum NoReceiver {
    Missing(String),
    Broken(String),
}

impl Receiver {
    /// Starts one that answers 503 to the first `refusals` requests of each signal.
    pub fn start(tools: &Tools, scratch: &Path, refusals: u32) -> Result<Self, NoReceiver> {
        let Some(python) = &tools.python else {
            return Err(NoReceiver::Missing("no Python (PLUMBLINE_PYTHON)".into()));
        };
        let import =
            run(Command::new(python).args(["-c", "import opentelemetry.proto"])).map_err(NoReceiver::Broken)?;
        if !import.status.success() {
            return Err(NoReceiver::Missing("the Python package `opentelemetry-proto` is missing".into()));
        }
        let broken = |error: std::io::Error| NoReceiver::Broken(error.to_string());
        fs::create_dir_all(scratch).map_err(broken)?;
        let out = scratch.join("otlp.jsonl");
        let child = Command::new(python)
            .arg(tools.scripts.join("otlp_receiver.py"))
            .args(["--fail", &refusals.to_string()])
            .arg("--out")
            .arg(&out)
            .stdin(Stdio::null())
            .stderr(fs::File::create(scratch.join("otlp.log")).map_err(broken)?)
            .spawn()
            .map_err(broken)?;
        let mut receiver = Self { child, out, port: 0 };
        let said = receiver.wait_for("its port", |said| said["signal"] == "listening").map_err(NoReceiver::Broken)?;
        receiver.port = said["port"].as_u64().unwrap_or_default();
        Ok(receiver)
    }

    /// All that it said, whole lines only.
    pub fn said(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| serde_json::from_str(line.strip_suffix('\n')?).ok()).collect()
    }

    /// The log records that arrived, in the order of their arrival.
    pub fn logs(&self) -> Vec<Value> {
        self.said().into_iter().filter(|said| said["signal"] == "log").collect()
    }

    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(said) = self.said().into_iter().find(|said| wanted(said)) {
                return Ok(said);
            }
            if Instant::now() > deadline {
                return Err(format!("the receiver never said {what}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
