//! Containers and pods: from cgroups made by hand as runtimes name them, the kubelet's directories, and a kubelet in Python
//! (`tests/kubelet.py`) that is asked over TLS.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{QUIET, Spine, ensure, equal, not_ok, skipped};
use crate::{
    checks::Ended,
    daemon::{Tools, run},
};

const ID: &str = "8f3b0a52c1d94e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b";
const POD: &str = "3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60";

pub(super) fn a_container_is_named(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let cgroup = Cgroup::make()?;
    let logs = cgroup.logs(&scratch.join("log"))?;
    let config = format!("{QUIET}kubelet: {{log_dir: {}}}\n", logs.display());
    let spine = Spine::start_with(tools, scratch, &config)?;
    let record = cgroup.opens_from_inside(&spine, "x.gguf")?;
    equal("runtime", &record["actor"]["process"]["container"]["runtime"], "containerd")?;
    equal("name", &record["actor"]["process"]["container"]["name"], "engine")?;
    equal("pod", &record["actor"]["process"]["container"]["pod_uuid"], POD)?;
    equal(
        "the pod's name",
        &record["unmapped"]["plumbline"]["pod"],
        json!({ "namespace": "serving", "name": "vllm-0" }),
    )
}

pub(super) fn the_kubelet_tells_labels(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let cgroup = Cgroup::make()?;
    let kubelet = Kubelet::start(tools, &scratch.join("kubelet"), "right", &[])?;
    let spine = Spine::start_with(tools, scratch, &kubelet.config("right", scratch)?)?;
    let are = |number: f64| move |pods: f64| (pods - number).abs() < 1e-9;
    spine.daemon.wait_for("plumbline_pods", are(0.0)).map_err(not_ok)?;
    // A pod comes; that its first event is of nobody known makes the daemon ask, long before the minute is over.
    kubelet.has(&[pod()])?;
    cgroup.opens_from_inside(&spine, "first.gguf")?;
    spine.daemon.wait_for("plumbline_pods", are(1.0)).map_err(not_ok)?;
    let restarts = r#"plumbline_pod_container_restarts_total{namespace="serving",pod="vllm-0",container="engine"}"#;
    spine.daemon.wait_for(restarts, are(2.0)).map_err(not_ok)?;
    let record = cgroup.opens_from_inside(&spine, "x.gguf")?;
    equal("name", &record["actor"]["process"]["container"]["name"], "engine")?;
    let labels = json!({ "app": "vllm", "app.kubernetes.io/part-of": "chat" });
    let pod = json!({ "namespace": "serving", "name": "vllm-0", "labels": labels });
    equal("the pod", &record["unmapped"]["plumbline"]["pod"], pod)?;
    equal("the image", &record["unmapped"]["plumbline"]["image"], "vllm/vllm-openai:v0.11.0")
}

pub(super) fn a_kubelet_that_does_not_answer_is_said(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    for (name, token, more, why, requests) in [
        ("stranger", "wrong", &[][..], "it knows no such token", "/pods False\n"),
        // Who cannot prove to be this node's kubelet is not shown the token.
        ("impostor", "right", &["--impostor"][..], "agreeing on TLS with the kubelet", ""),
        ("neighbour", "right", &["--name", "node-8"][..], "agreeing on TLS with the kubelet", ""),
    ] {
        let scratch = scratch.join(name);
        let kubelet = Kubelet::start(tools, &scratch.join("kubelet"), "right", more)?;
        let spine = Spine::start_with(tools, &scratch, &kubelet.config(token, &scratch)?)?;
        let up = "plumbline_source_up{source=\"kubelet\"}";
        spine.daemon.wait_for(up, |up| up.abs() < 1e-9).map_err(not_ok)?;
        let said = spine.daemon.said(&scratch);
        ensure(said.contains(why), || format!("the daemon said: {said}"))?;
        let absent = spine.daemon.metric("plumbline_pods").map_err(not_ok)?;
        ensure(absent.is_none(), || format!("{name}: plumbline_pods is {absent:?} and not absent"))?;
        equal(name, &Value::from(kubelet.requests()), requests)?;
    }
    Ok(())
}

/// A cgroup as containerd and the kubelet name it with systemd's driver.
pub(super) struct Cgroup {
    slice: PathBuf,
    scope: PathBuf,
}

impl Cgroup {
    pub(super) fn make() -> Result<Self, Ended> {
        let root = plumbline::probes::kernel::cgroup2_root().map_err(|error| skipped(&error.to_string()))?;
        let slice = root.join(format!("kubepods-burstable-pod{}.slice", POD.replace('-', "_")));
        let scope = slice.join(format!("cri-containerd-{ID}.scope"));
        fs::create_dir_all(&scope).map_err(not_ok)?;
        Ok(Self { slice, scope })
    }

    /// The kubelet's directories of logs, which name its pod `serving/vllm-0` and its container `engine`.
    pub(super) fn logs(&self, logs: &Path) -> Result<PathBuf, Ended> {
        fs::create_dir_all(logs.join(format!("pods/serving_vllm-0_{POD}"))).map_err(not_ok)?;
        fs::create_dir_all(logs.join("containers")).map_err(not_ok)?;
        fs::write(logs.join(format!("containers/vllm-0_serving_engine-{ID}.log")), "").map_err(not_ok)?;
        Ok(logs.to_owned())
    }

    /// A process in it, which ends with this check.
    pub(super) fn runs(&self, command: &mut Command) -> Result<Inside, Ended> {
        let child = Inside(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(not_ok)?);
        fs::write(self.scope.join("cgroup.procs"), child.0.id().to_string()).map_err(not_ok)?;
        Ok(child)
    }

    /// The record of a process in it that reads weights.
    fn opens_from_inside(&self, spine: &Spine, name: &str) -> Result<Value, Ended> {
        let path = spine.models.join(name);
        fs::write(&path, b"weights").map_err(not_ok)?;
        let script = format!("echo $$ > {}/cgroup.procs && exec cat {}", self.scope.display(), path.display());
        run(Command::new("sh").args(["-c", &script])).map_err(not_ok)?;
        let path = path.display().to_string();
        let is_it =
            |record: &Value| record["actor"]["process"]["container"]["uid"] == ID && record["file"]["path"] == path;
        spine.daemon.wait_for_record("the open from the container", is_it).map_err(not_ok)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.scope);
        let _ = fs::remove_dir(&self.slice);
    }
}

/// A process in a cgroup.
pub(super) struct Inside(pub(super) Child);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As the kubelet tells it.
fn pod() -> Value {
    let labels = json!({ "app": "vllm", "app.kubernetes.io/part-of": "chat" });
    let status = json!({ "phase": "Running", "containerStatuses": [{ "name": "engine", "restartCount": 2, "image": "vllm/vllm-openai:v0.11.0", "containerID": format!("containerd://{ID}") }] });
    json!({ "metadata": { "namespace": "serving", "name": "vllm-0", "uid": POD, "labels": labels }, "status": status })
}

/// The kubelet in Python.
pub(super) struct Kubelet {
    child: Child,
    pub(super) dir: PathBuf,
    pub(super) port: String,
}

impl Kubelet {
    pub(super) fn start(tools: &Tools, dir: &Path, token: &str, more: &[&str]) -> Result<Self, Ended> {
        let Some(python) = &tools.python else {
            return Err(skipped("no Python with `cryptography` (PLUMBLINE_PYTHON)"));
        };
        fs::create_dir_all(dir).map_err(not_ok)?;
        let log = fs::File::create(dir.join("log")).map_err(not_ok)?;
        let mut command = Command::new(python);
        command.arg(tools.scripts.join("kubelet.py")).arg("--dir").arg(dir).args(["--token", token]);
        command.arg("--pods").arg(dir.join("pods.json")).args(more).stdin(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(not_ok)?;
        let mut kubelet = Self { child, dir: dir.to_owned(), port: String::new() };
        kubelet.has(&[])?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while kubelet.port.is_empty() {
            ensure(Instant::now() < deadline, || fs::read_to_string(dir.join("log")).unwrap_or_default())?;
            std::thread::sleep(Duration::from_millis(50));
            kubelet.port = fs::read_to_string(dir.join("port")).unwrap_or_default();
        }
        Ok(kubelet)
    }

    /// From now on it has these pods.
    fn has(&self, pods: &[Value]) -> Result<(), Ended> {
        self.says(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods }).to_string())
    }

    /// From now on this is what it answers.
    pub(super) fn says(&self, answer: &str) -> Result<(), Ended> {
        let (part, whole) = (self.dir.join("pods.part"), self.dir.join("pods.json"));
        fs::write(&part, answer).and_then(|()| fs::rename(part, whole)).map_err(not_ok)
    }

    /// What a user writes.
    fn config(&self, token: &str, scratch: &Path) -> Result<String, Ended> {
        let token_file = self.dir.join("token");
        fs::write(&token_file, format!("{token}\n")).map_err(not_ok)?;
        Ok(format!(
            "{QUIET}kubelet:\n  log_dir: {}\n  api:\n    url: https://127.0.0.1:{}\n    ca_file: {}\n    server_name: node-7\n    token_file: {}\n",
            scratch.join("no-log").display(),
            self.port,
            self.dir.join("ca.pem").display(),
            token_file.display()
        ))
    }

    /// Each request's path and whether its token was right.
    pub(super) fn requests(&self) -> String {
        fs::read_to_string(self.dir.join("requests")).unwrap_or_default()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
