//! A container of a real runtime (crun, on cgroup v2): what it does is told with its cgroup, its container, its pod and its
//! namespaces, by the path that it uses itself.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use plumbline::{
    event::{Event, What},
    identity::{
        Identity, World,
        pod::{Labels, Pod},
        procfs::Procfs,
    },
};
use serde_json::{Value, json};

use super::{Ended, same};
use crate::{
    bench::{Bench, Outcome},
    bypass::loopback_up,
    tools::{are_set_up, tool},
};

const ID: &str = "8f3b0a52c1d94e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b";
const POD: &str = "3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60";

/// As the kubelet and containerd name it with systemd's driver.
const CGROUP: &str = "/kubepods.slice/kubepods-burstable.slice/\
    kubepods-burstable-pod3c1f2a4e_5b6c_7d8e_9f0a_1b2c3d4e5f60.slice/\
    cri-containerd-8f3b0a52c1d94e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b.scope";

const WEIGHTS: &str = "/models/w.safetensors";

/// The first process of the container: reads the weights, connects, and stays until its input ends.
pub fn inside(_: &[String]) -> ExitCode {
    let act = || {
        fs::read(WEIGHTS)?;
        // Some runtimes leave that to a network plugin.
        let _ = loopback_up();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        TcpStream::connect(listener.local_addr()?)?;
        println!("done");
        std::io::stdout().flush()?;
        std::io::stdin().read_to_end(&mut Vec::new()).map(drop)
    };
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("in the container: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn is_told_with_its_pod(bench: &mut Bench, scratch: &Path) -> Result<(), Ended> {
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Err(Ended::NotRun("/sys/fs/cgroup is not cgroup v2 alone".to_owned()));
    }
    if !are_set_up() && tool("crun").arg("--version").output().is_err() {
        return Err(Ended::NotRun("crun is not set up".to_owned()));
    }
    run(bench, scratch).map_err(Ended::NotOk)
}

fn run(bench: &mut Bench, scratch: &Path) -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    let models = scratch.join("models");
    let logs = scratch.join("log");
    fs::create_dir_all(&models).map_err(text)?;
    fs::write(models.join("w.safetensors"), vec![7; 4096]).map_err(text)?;
    fs::create_dir_all(logs.join(format!("pods/serving_vllm-0_{POD}"))).map_err(text)?;
    fs::create_dir_all(logs.join("containers")).map_err(text)?;
    fs::write(logs.join(format!("containers/vllm-0_serving_engine-{ID}.log")), "").map_err(text)?;
    bench.watch(&models)?;
    bench.drain_quickly();

    let processes = Procfs::with_logs(logs);
    let mut world = World::default();
    world.seed(&bench.probes().tasks()?, &processes);
    let container = Container::start(&scratch.join("bundle"), &models)?;
    let told: Vec<(Event, Identity)> = {
        let events = bench.drain().into_iter();
        events.filter_map(|event| world.identify(&event, &processes).map(|who| (event, who))).collect()
    };
    container.stop()?;

    let of = |what: &str, wanted: &dyn Fn(&What) -> bool| {
        let found = told.iter().find(|(event, who)| wanted(&event.what) && is_in_the_container(who));
        found.ok_or_else(|| format!("no {what} of the container among {} events", told.len()))
    };
    let opened = of("open", &|what| matches!(what, What::FileOpen(open) if open.path == WEIGHTS.as_bytes()))?;
    let connected = of("connection", &|what| matches!(what, What::Connect(_)))?;
    of("exec", &|what| matches!(what, What::Exec(exec) if exec.arguments.ends_with(b"in-a-container\0")))?;
    for (event, who) in [opened, connected] {
        let (cgroup, task) = (who.process.cgroup.clone().unwrap_or_default(), event.task.clone());
        let task = task.ok_or("an event without a task")?;
        same("cgroup", &String::from_utf8_lossy(&cgroup.path).into_owned(), &CGROUP.to_owned())?;
        same("runtime", &cgroup.container.map(|container| container.runtime), &Some("containerd"))?;
        same("pod's uid", &cgroup.pod_uid.as_deref(), &Some(POD))?;
        let pod = Pod {
            namespace: "serving".into(),
            name: "vllm-0".into(),
            container: Some("engine".into()),
            image: None,
            labels: Labels::default(),
        };
        same("pod", &who.pod, &Some(pod))?;
        let above: Vec<_> = who
            .ancestors
            .iter()
            .map(|one| String::from_utf8_lossy(one.exe.as_deref().unwrap_or_default()).into_owned())
            .collect();
        // It runs as a sealed copy of itself.
        let has_crun = above.iter().any(|exe| exe.contains("crun"));
        same(&format!("crun among {above:?}"), &has_crun, &true)?;
        let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).map_err(text);
        for (kind, number) in [("mnt", task.namespaces.mnt), ("net", task.namespaces.net), ("pid", task.namespaces.pid)]
        {
            let same_as_ours = own(kind)?.to_string_lossy() == format!("{kind}:[{number}]");
            same(&format!("the {kind} namespace is the host's"), &same_as_ours, &false)?;
        }
    }
    Ok(())
}

fn is_in_the_container(who: &Identity) -> bool {
    let container = who.process.cgroup.as_ref().and_then(|cgroup| cgroup.container.as_ref());
    container.is_some_and(|container| container.id == ID)
}

/// A running container; it is ended and its cgroups are removed when dropped.
struct Container {
    child: Child,
    state: PathBuf,
}

impl Container {
    /// Returns when its process has done its work.
    fn start(bundle: &Path, models: &Path) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        fs::create_dir_all(bundle.join("rootfs")).map_err(text)?;
        let program = std::env::current_exe().map_err(text)?;
        fs::write(bundle.join("config.json"), specification(&program, models).to_string()).map_err(text)?;
        let state = bundle.join("state");
        let child = runtime(&state)
            // The root of an initramfs is no mount that could be pivoted.
            .args(["run", "--no-pivot", "--bundle"])
            .arg(bundle)
            .arg(ID)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("crun: {error}"))?;
        let mut container = Self { child, state };
        let mut line = String::new();
        if let Some(stdout) = container.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(text)?;
        }
        if line.trim() == "done" {
            return Ok(container);
        }
        let mut said = String::new();
        if let Some(mut stderr) = container.child.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        Err(format!("the container ended before its work: {}", said.trim()))
    }

    fn stop(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let status = self.child.wait().map_err(|error| error.to_string())?;
        status.success().then_some(()).ok_or_else(|| format!("the container: {status}"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = runtime(&self.state).args(["delete", "--force", ID]).output();
        // From the innermost; what others put there stays.
        for cgroup in Path::new(CGROUP).ancestors().filter(|path| path.parent().is_some()) {
            let below = cgroup.strip_prefix("/").unwrap_or(cgroup);
            let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(below));
        }
    }
}

fn runtime(state: &Path) -> Command {
    let mut crun = tool("crun");
    crun.arg("--root").arg(state).arg("--cgroup-manager=cgroupfs");
    crun
}

/// The container by the OCI's runtime specification 1.0: this program, the libraries and the models, read-only.
fn specification(program: &Path, models: &Path) -> Value {
    let bind = |from: &Path, to: &str| json!({ "destination": to, "type": "bind", "source": from, "options": ["rbind", "ro"] });
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
        bind(program, "/check"),
        bind(models, "/models"),
    ];
    mounts.extend(
        ["/lib", "/lib64", "/usr/lib"]
            .iter()
            .filter(|path| Path::new(path).exists())
            .map(|path| bind(path.as_ref(), path)),
    );
    let namespaces = ["pid", "mount", "network", "uts", "ipc"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/check", "in-a-container"],
            "env": ["PATH=/"],
            "cwd": "/",
            "capabilities": { "bounding": ["CAP_NET_ADMIN"], "effective": ["CAP_NET_ADMIN"], "permitted": ["CAP_NET_ADMIN"] },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "hostname": "vllm-0",
        "mounts": mounts,
        "linux": { "cgroupsPath": CGROUP, "namespaces": namespaces }
    })
}
