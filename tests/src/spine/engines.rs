//! Engines: shown, explained, and reached in every way that there is.

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command};

use super::{
    Spine, ensure, not_ok,
    pods::{Cgroup, Inside, Kubelet},
    priced, skipped,
};
use crate::{
    checks::Ended,
    daemon::{Tools, run},
    fake_engine::{FakeEngine, page},
};

/// What a user sees of an engine: in short from the daemon, in full from the page itself.
pub(super) fn engines_are_shown_and_explained(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let engine = FakeEngine::start().map_err(not_ok)?;
    let spine = Spine::start_with(tools, scratch, &priced(&engine))?;
    spine.daemon.wait_for("plumbline_engine_info", |_| true).map_err(not_ok)?;
    let shown = |arguments: &[&str]| {
        let output = run(Command::new(&tools.plumbline).args(arguments)).map_err(not_ok)?;
        Ok::<_, Ended>((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (is_up, text) = shown(&["engines", "--listen", &spine.daemon.address.to_string()])?;
    let url = format!("http://{}/metrics", engine.address);
    ensure(is_up && text.contains("fake") && text.contains("llamacpp") && text.contains(&url), || text.clone())?;
    let (is_read, text) = shown(&["engines", "explain", &url])?;
    for part in [
        "dialect   llamacpp (prefix llamacpp:",
        &format!("plumbline_engine_generation_tokens_total = {}", FakeEngine::BEFORE),
        "    llamacpp:tokens_predicted_total; request done",
        "plumbline_engine_time_to_first_token_seconds: this engine tells nothing of the kind",
        "plumbline_engine_steps_total: the page has not n_decode_total",
    ] {
        ensure(is_read && text.contains(part), || format!("no {part:?} in {text}"))?;
    }
    // The gauge has been read once at least, and each reading is remembered.
    let listen = spine.daemon.address.to_string();
    for (arguments, part) in [
        (&[][..], "  plumbline_engine_requests_running\n"),
        (
            &["plumbline_engine_requests_running", "--with", "engine=fake"],
            "engine=fake model=: mean 1.000000, 1 to 1, last 1",
        ),
        (&["--with", "engine=fake", "--last", "1m", "--slots"], "s ago  counting begins"),
        (&["plumbline_engine_requests_running", "--json"], "\"least\": 1.0"),
    ] {
        let (is_read, text) = shown(&[&["timeline", "--listen", &listen], arguments].concat())?;
        ensure(is_read && text.contains(part), || format!("{arguments:?} has no {part:?} in {text}"))?;
    }
    for (arguments, why) in
        [(&["nonsense"][..], "no series `nonsense` was read"), (&["--with", "x"], "expected LABEL=VALUE")]
    {
        let arguments = [&["timeline", "--listen", &listen], arguments].concat();
        let output = run(Command::new(&tools.plumbline).args(&arguments)).map_err(not_ok)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure(!output.status.success() && text.contains(why), || format!("{arguments:?}: {text}"))?;
    }
    let (is_read, _) = shown(&["engines", "explain", &tools.scripts.join("kubelet.py").display().to_string()])?;
    ensure(!is_read, || "a program in Python is no page of an engine".to_owned())
}

/// One behind TLS and a token, one that cannot prove itself, one on a unix socket that discovery finds, one in the network of a pod.
pub(super) fn engines_are_reached_in_every_way(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let text = ["--type", "text/plain; version=0.0.4"];
    let [proven, impostor] = [("proven", &text[..]), ("impostor", &[text[0], text[1], "--impostor"][..])]
        .map(|(name, more)| Kubelet::start(tools, &scratch.join(name), "right", more));
    let (proven, impostor) = (proven?, impostor?);
    let mut targets = String::new();
    for (name, server) in [("proven", &proven), ("impostor", &impostor)] {
        server.says(&page(7))?;
        fs::write(server.dir.join("token"), "right\n").map_err(not_ok)?;
        targets += &format!(
            "  - {{name: {name}, url: 'https://127.0.0.1:{}/pods', ca_file: {}, server_name: node-7, token_file: {}, interval: 250ms}}\n",
            server.port,
            server.dir.join("ca.pem").display(),
            server.dir.join("token").display(),
        );
    }
    let socket = scratch.join("chat.sock");
    let _on_socket = Inside(engine(&["--host".as_ref(), socket.as_os_str()])?.spawn().map_err(not_ok)?);
    let cgroup = Cgroup::make()?;
    let logs = cgroup.logs(&scratch.join("log"))?;
    let _in_pod = cgroup.runs(&mut engine(&["--elsewhere".as_ref(), "--port".as_ref(), "8099".as_ref()])?)?;
    // Until both listen, as discovery looks at once and then every 15 seconds.
    wait(|| socket.exists())?;
    wait(|| {
        fs::read_to_string(format!("/proc/{}/net/tcp", _in_pod.0.id())).is_ok_and(|table| table.contains(":1FA3"))
    })?;
    let config = format!(
        "gpu: {{enabled: false}}\nkubelet: {{log_dir: {}, pod_resources: null}}\nengines:\n  targets:\n{targets}",
        logs.display()
    );
    let spine = Spine::start_with(tools, scratch, &config)?;
    for engine in ["proven", "llamacpp-chat", "vllm-0.llamacpp-8099"] {
        let series = format!("plumbline_engine_generation_tokens_total{{engine=\"{engine}\"");
        spine.daemon.wait_for(&series, |tokens| tokens > 0.0).map_err(not_ok)?;
    }
    // Of the cgroup that the pod's container is, v2 tells this much everywhere.
    let container = "plumbline_container_cpu_seconds_total{engine=\"vllm-0.llamacpp-8099\",mode=\"user\"}";
    spine.daemon.wait_for(container, |seconds| seconds >= 0.0).map_err(not_ok)?;
    let page = spine.daemon.metrics().map_err(not_ok)?;
    let info = page.lines().find(|line| line.starts_with("plumbline_container_info{engine=\"vllm-0.llamacpp-8099\""));
    ensure(info.is_some_and(|info| info.contains("runtime=\"containerd\"")), || format!("{info:?}"))?;
    let refused = r#"plumbline_engine_scrape_errors_total{engine="impostor",reason="tls"}"#;
    spine.daemon.wait_for(refused, |count| count > 0.0).map_err(not_ok)?;
    ensure(impostor.requests().is_empty(), || "an engine that proves nothing was shown the token".to_owned())?;
    ensure(proven.requests().contains("/pods True"), || proven.requests())?;
    let explained = run(Command::new(&tools.plumbline).args([
        "engines",
        "explain",
        "http://127.0.0.1:8099",
        "--pid",
        &_in_pod.0.id().to_string(),
    ]))
    .map_err(not_ok)?;
    let text = String::from_utf8_lossy(&explained.stdout);
    ensure(text.contains("plumbline_engine_generation_tokens_total = "), || text.to_string())
}

/// Pages of the text format, made up, with every trap that both take.
pub(super) fn a_peer_reads_the_same(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(python) = &tools.python else {
        return Err(skipped("no Python with `prometheus_client` (PLUMBLINE_PYTHON)"));
    };
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let ours = format!("'{}' samples", std::env::current_exe().map_err(not_ok)?.display());
    let seed = std::process::id().to_string();
    let output = run(Command::new(python).arg(tools.scripts.join("exposition_peer.py")).args([&ours, "300", &seed]))
        .map_err(not_ok)?;
    ensure(output.status.success(), || {
        String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
    })
}

/// A process that looks like llama.cpp's server.
fn engine(arguments: &[&std::ffi::OsStr]) -> Result<Command, Ended> {
    let mut command = Command::new(std::env::current_exe().map_err(not_ok)?);
    command.arg0("llama-server").arg("serve").args(arguments);
    Ok(command)
}

fn wait(holds: impl Fn() -> bool) -> Result<(), Ended> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds() {
        ensure(std::time::Instant::now() < deadline, || "a simulated engine does not listen".to_owned())?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}
