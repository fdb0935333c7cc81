//! A daemon under measurement: started with a configuration of its own, asked over HTTP what it attached, stopped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    address: SocketAddr,
    state: PathBuf,
    /// Hooks and their rungs, such as `hook="open",rung="fentry"`.
    pub(super) attached: Vec<String>,
}

impl Daemon {
    /// Returns when its page says what is attached. Only the kernel programs are measured; `config` may add to that.
    pub(super) fn start(binary: &Path, dir: &Path, config: &str) -> Result<Self> {
        let (said, state) = (config, dir.join("state"));
        // The log of a daemon before would be counted as this one's.
        let _ = fs::remove_dir_all(&state);
        fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let config = dir.join("config.yaml");
        let text = format!("gpu: {{ enabled: false }}\nengines: {{ discover: false }}\n{said}");
        fs::write(&config, text).map_err(Error::file("write", &config))?;
        let log_path = dir.join("daemon.log");
        let log = File::create(&log_path).map_err(Error::file("create", &log_path))?;
        let address = free_address()?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(&config).arg("--state-dir").arg(&state);
        command.arg("--listen").arg(address.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|source| Error::Start { program: binary.display().to_string(), source })?;
        let mut daemon = Self { child, address, state, attached: Vec::new() };
        let deadline = Instant::now() + START_LIMIT;
        while daemon.attached.is_empty() {
            if daemon.child.try_wait().is_ok_and(|status| status.is_some()) || Instant::now() > deadline {
                let said = fs::read_to_string(&log_path).unwrap_or_default();
                return Err(Error::said(format!("the daemon did not start or attached nothing; it said:\n{said}")));
            }
            sleep(Duration::from_millis(50));
            daemon.attached = page(address).map(|page| attached_in(&page)).unwrap_or_default();
        }
        Ok(daemon)
    }

    /// The sum of a series over all lines that begin like this; `None` where the page cannot be read.
    pub(super) fn sum(&self, beginning: &str) -> Option<f64> {
        page(self.address).ok().map(|page| sum_in(&page, beginning))
    }

    /// Bytes of its log.
    pub(super) fn log_bytes(&self) -> u64 {
        let files = fs::read_dir(self.state.join("log")).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file).map(|meta| meta.len()).sum()
    }
}

fn sum_in(page: &str, beginning: &str) -> f64 {
    let values = page.lines().filter(|line| line.starts_with(beginning)).filter_map(|line| line.rsplit_once(' '));
    values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

impl Drop for Daemon {
    /// Asks it to stop, so that its programs are detached when the next measurement begins.
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let deadline = Instant::now() + STOP_LIMIT;
        while asked && Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes one policy that records each open below the directories of this pattern; returns the directory that it is in.
pub(super) fn watch_policy(dir: &Path, pattern: &Path) -> Result<PathBuf> {
    let policies = dir.join("policies");
    fs::create_dir_all(&policies).map_err(Error::file("create", &policies))?;
    let path = policies.join("bench.yaml");
    let text = format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: bench}}\nspec:\n  rules:\n    - name: open\n      severity: low\n      \
         effect: audit\n      message: '{{path}}'\n      match: {{file: {{watch: [{:?}]}}}}\n",
        pattern.display()
    );
    fs::write(&path, text).map_err(Error::file("write", &path))?;
    Ok(policies)
}

/// A port that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Error::said(format!("no free port on the loopback address: {error}")))
}

fn page(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn attached_in(page: &str) -> Vec<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("plumbline_hook_attached{")?.split_once("} "))
        .filter(|(_, value)| value.parse() == Ok(1.0))
        .map(|(labels, _)| labels.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_summed_over_its_labels() {
        let page = "# HELP a b\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3.5\na_total_else 9\n";
        assert!((sum_in(page, "a_total{") - 5.5).abs() < 1e-9);
        assert!(sum_in(page, "b").abs() < 1e-9);
    }

    #[test]
    fn hooks_count_as_attached_only_with_the_value_one() {
        let page = "# TYPE plumbline_hook_attached gauge\n\
            plumbline_hook_attached{hook=\"open\",rung=\"fentry\"} 1.0\n\
            plumbline_hook_attached{hook=\"connect\",rung=\"none\"} 0.0\n";
        assert_eq!(attached_in(page), ["hook=\"open\",rung=\"fentry\""]);
    }
}
