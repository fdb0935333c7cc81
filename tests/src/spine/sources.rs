//! GPUs and engines become series and prices, and leave by Prometheus and OTLP.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::{Spine, ensure, equal, not_ok, priced, skipped};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools, post, run, run_with},
    fake_engine::FakeEngine,
    llama::Llama,
    otlp::{NoReceiver, Receiver},
};

pub(super) fn promtool_accepts_the_page(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(promtool) = &tools.promtool else { return Err(skipped("no promtool (PLUMBLINE_PROMTOOL)")) };
    let engine = FakeEngine::start().map_err(not_ok)?;
    let spine = Spine::start_with(tools, scratch, &priced(&engine))?;
    spine.daemon.wait_for("plumbline_engine_generation_tokens_total", |_| true).map_err(not_ok)?;
    let page = spine.daemon.metrics().map_err(not_ok)?;
    let said = run_with(Command::new(promtool).args(["check", "metrics"]), page.as_bytes()).map_err(not_ok)?;
    ensure(said.status.success() && said.stderr.is_empty(), || {
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
    })?;
    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let page = crate::daemon::get(spine.daemon.address, "/metrics", accept).map_err(not_ok)?;
    ensure(page.ends_with("# EOF\n"), || "the OpenMetrics page has no end mark".to_owned())
}

pub(super) fn the_price_is_right(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    const TOKENS: u64 = 1000;
    let engine = FakeEngine::start().map_err(not_ok)?;
    let spine = Spine::start_with(tools, scratch, &priced(&engine))?;
    let total = r#"plumbline_engine_generation_tokens_total{engine="fake""#;
    spine.daemon.wait_for(total, |_| true).map_err(not_ok)?;
    engine.generate(TOKENS);
    let counted = r#"plumbline_cost_window_tokens{engine="fake",model="",kind="generated",window="start"}"#;
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    spine.daemon.wait_for(counted, |tokens| (tokens - TOKENS as f64).abs() < 0.5).map_err(not_ok)?;
    let page = spine.daemon.metrics().map_err(not_ok)?;
    let value = |series: &str| {
        let line = page.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).ok_or_else(|| not_ok(series))
    };
    let window_seconds = value(r#"plumbline_cost_window_seconds{window="start"}"#)?;
    let per_token = value(
        r#"plumbline_cost_per_token{currency="EUR",basis="node",engine="fake",model="",kind="generated",window="start"}"#,
    )?;
    // 3.6 EUR an hour, from the start of the daemon, for the tokens that this check made.
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let by_hand = 3.6 / 3600.0 * window_seconds / TOKENS as f64;
    ensure((per_token / by_hand - 1.0).abs() < 0.01, || format!("{per_token} against {by_hand} by hand"))
}

/// Real weights, a real server, real requests; the price against the server's own page.
pub(super) fn a_real_llama(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let (Some(server), Some(model)) = (&tools.llama_server, &tools.llama_model) else {
        return Err(skipped("llama.cpp is not built; `cargo xtask engine llama` builds and caches it"));
    };
    let config = "gpu: {enabled: false}\nprices: {currency: EUR, node_per_hour: 3.6}\nengines: {discover: true}\n";
    let spine = Spine::start_with(tools, scratch, config)?;
    let weights = spine.models.join("smollm2.gguf");
    fs::copy(model, &weights).map_err(not_ok)?;
    let llama = Llama::start(server, &weights).map_err(not_ok)?;
    let (path, pid) = (weights.display().to_string(), llama.pid());
    spine
        .daemon
        .wait_for_record("llama.cpp opening its weights", |record| {
            record["file"]["path"] == path.as_str() && record["actor"]["process"]["pid"] == pid
        })
        .map_err(not_ok)?;
    let tokens = "plumbline_engine_generation_tokens_total{engine=\"llamacpp-";
    spine.daemon.wait_for(tokens, |_| true).map_err(not_ok)?;
    for _ in 0..4 {
        llama.complete(48).map_err(not_ok)?;
    }
    let own = llama.tokens().map_err(not_ok)?;
    spine.daemon.wait_for(tokens, |ours| (ours - own).abs() < 0.5).map_err(not_ok)?;
    // The ledger writes its figures twice a second; these are the ones that hold all tokens.
    let counted = "plumbline_cost_window_tokens{engine=\"llamacpp-";
    spine.daemon.wait_for(counted, |_| true).map_err(not_ok)?;
    std::thread::sleep(Duration::from_secs(1));
    let page = spine.daemon.metrics().map_err(not_ok)?;
    let value = |start: &str, part: &str| {
        let line = page
            .lines()
            .find(|line| line.starts_with(start) && line.contains(part) && line.contains("window=\"start\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .ok_or_else(|| not_ok(format!("no {start} {part}")))
    };
    let window_seconds = value("plumbline_cost_window_seconds", "")?;
    let per_token = value("plumbline_cost_per_token", "kind=\"generated\"")?;
    // 3.6 EUR an hour, idle time included, over the tokens that llama.cpp itself counted.
    let by_hand = 3.6 / 3600.0 * window_seconds / own;
    println!("# llama.cpp: {own} tokens in {window_seconds:.1} s; {per_token:.9} EUR per token, {by_hand:.9} by hand");
    ensure((per_token / by_hand - 1.0).abs() < 0.01, || format!("{per_token} against {by_hand} by hand"))?;
    coverage_is_that_of_the_page_tables(&spine, &weights, llama)
}

/// What the log says that llama.cpp has touched of its weights, against its own page tables: within 2 % of the slices. (It
/// maps all of them in advance, and lets the part with the vocabulary go.)
fn coverage_is_that_of_the_page_tables(spine: &Spine, weights: &Path, llama: Llama) -> Result<(), Ended> {
    let pid = llama.pid();
    let oracle = crate::pages::present_slices(pid, weights).map_err(not_ok)?;
    drop(llama);
    let path = weights.display().to_string();
    let record = spine.daemon.wait_for_record("what llama.cpp has read", |record| {
        record["activity_name"] == "Read"
            && record["file"]["path"] == path.as_str()
            && record["actor"]["process"]["pid"] == pid
            // The first are told when llama.cpp closes the file after a look at its head.
            && record["unmapped"]["plumbline"]["bytes_faulted"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    let record = record.map_err(not_ok)?;
    let own = &record["unmapped"]["plumbline"];
    let touched = own["coverage"]["touched"].as_u64().unwrap_or(0);
    let bytes = own["bytes_faulted"].as_u64();
    println!("# llama.cpp: {touched} of 512 slices told, {oracle} in its page tables; {bytes:?} bytes faulted");
    ensure(touched.abs_diff(oracle) <= 512 / 50, || format!("{touched} slices told, {oracle} in the page tables"))
}

pub(super) fn a_simulated_gpu_says_so(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(library) = &tools.fake_nvml else { return Err(skipped("libfake_nvml.so is not built")) };
    let scenario = tools.scripts.join("fake-nvml/scenarios/h100-pair.yaml");
    let config = format!("gpu: {{library: {}}}\nengines: {{discover: false}}\n", library.display());
    let scenario = scenario.display().to_string();
    let daemon = Daemon::start_with(tools, scratch, &config, &[("FAKE_NVML_SCENARIO", &scenario)]).map_err(not_ok)?;
    daemon.wait_for("plumbline_gpu_info", |one| (one - 1.0).abs() < 0.1).map_err(not_ok)?;
    let page = daemon.metrics().map_err(not_ok)?;
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("plumbline_gpu_")).collect();
    // What the process that asks costs, and what the daemon itself does, is not made up.
    let own = ["_gpu_worker_", "_gpu_sample_interval_", "_gpu_kernel_log_", "_gpu_unnamed"];
    let rows: Vec<&str> = rows.into_iter().filter(|line| !own.iter().any(|part| line.contains(part))).collect();
    ensure(rows.len() > 10, || format!("{} rows", rows.len()))?;
    let unlabelled = rows.iter().find(|row| !row.contains(r#"simulated="true""#));
    ensure(unlabelled.is_none(), || format!("{unlabelled:?}"))
}

pub(super) fn an_incident_is_asked_for_recorded_and_over(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(library) = &tools.fake_nvml else { return Err(skipped("libfake_nvml.so is not built")) };
    let scenario = tools.scripts.join("fake-nvml/scenarios/h100x8.yaml").display().to_string();
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let token = scratch.join("incident.token");
    fs::write(&token, "0123456789abcdef\n").map_err(not_ok)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).map_err(not_ok)?;
    let config = format!(
        "gpu: {{library: {}}}\nengines: {{discover: false}}\nincident: {{token_file: {}}}\n",
        library.display(),
        token.display()
    );
    let daemon = Daemon::start_with(tools, scratch, &config, &[("FAKE_NVML_SCENARIO", &scenario)]).map_err(not_ok)?;
    daemon.wait_for("plumbline_gpu_up", |up| up > 0.5).map_err(not_ok)?;
    let profile = |daemon: &Daemon| -> Result<Option<f64>, Ended> {
        daemon.metric(r#"plumbline_gpu_sample_interval_seconds{round="light",profile="incident"}"#).map_err(not_ok)
    };
    ensure(profile(&daemon)?.is_none(), || "an incident that nobody began".to_owned())?;
    let plumbline = |arguments: &[&str]| {
        let listen = daemon.address.to_string();
        let config = scratch.join("config.yaml").display().to_string();
        let arguments = arguments.iter().copied().chain(["--config", &config, "--listen", &listen]);
        let output = run(Command::new(&tools.plumbline).args(arguments)).map_err(not_ok)?;
        Ok::<_, Ended>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let answer = plumbline(&["incident", "begin", "--for", "5m", "--why", "a drill"])?;
    ensure(answer.contains(r#""incident": true"#), || answer.clone())?;
    daemon
        .wait_for(r#"plumbline_gpu_sample_interval_seconds{round="light",profile="incident"}"#, |seconds| seconds < 0.3)
        .map_err(not_ok)?;
    plumbline(&["incident", "end"])?;
    for (kind, words) in [("incident.begin", "begins for 300 s: a drill"), ("incident.end", "ends: by command")] {
        let told = daemon.wait_for_record(kind, |record| record["finding_info"]["types"][0] == kind).map_err(not_ok)?;
        let message = told["message"].as_str().unwrap_or_default();
        ensure(message.contains(words), || message.to_owned())?;
    }
    // A stranger's word is none.
    let refused = post(daemon.address, "/api/v1/incident", "Bearer 0123456789abcdeX", r#"{"status":"firing"}"#);
    ensure(refused.as_ref().is_err_and(|status| status.contains("401")), || format!("{refused:?}"))?;
    let refused = post(daemon.address, "/api/v1/incident", "Bearer 0123456789abcdef", &"x".repeat(300 << 10));
    ensure(refused.as_ref().is_err_and(|status| status.contains("413")), || format!("{refused:?}"))?;
    let page = daemon.metrics().map_err(not_ok)?;
    let Some(promtool) = &tools.promtool else { return Ok(()) };
    let said = run_with(Command::new(promtool).args(["check", "metrics"]), page.as_bytes()).map_err(not_ok)?;
    ensure(said.status.success(), || String::from_utf8_lossy(&said.stderr).into_owned())
}

pub(super) fn a_page_is_compared_with_nvidia_smi(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let Some(library) = &tools.fake_nvml else { return Err(skipped("libfake_nvml.so is not built")) };
    let Some(python) = &tools.python else { return Err(skipped("no Python (PLUMBLINE_PYTHON)")) };
    let scenario = tools.scripts.join("fake-nvml/scenarios/l4.yaml").display().to_string();
    let config = format!("gpu: {{library: {}}}\nengines: {{discover: false}}\n", library.display());
    let daemon = Daemon::start_with(tools, scratch, &config, &[("FAKE_NVML_SCENARIO", &scenario)]).map_err(not_ok)?;
    daemon.wait_for("plumbline_gpu_clock_max_hertz", |_| true).map_err(not_ok)?;
    let (page, csv) = (scratch.join("page.prom"), scratch.join("smi.csv"));
    fs::write(&page, daemon.metrics().map_err(not_ok)?).map_err(not_ok)?;
    let compared = |said: &str| -> Result<(bool, String), Ended> {
        fs::write(&csv, said).map_err(not_ok)?;
        let script = tools.scripts.join("gpu_compare.py");
        let output = Command::new(python).arg(script).args([&page, &csv]).output().map_err(not_ok)?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    // As nvidia-smi would tell of the scenario's L4.
    let smi = "uuid, name, driver_version, pstate, memory.total [MiB], temperature.gpu, temperature.memory, clocks.max.sm [MHz], \
               pcie.link.gen.max, ecc.errors.uncorrected.volatile.total\n\
               GPU-5eed0000-0000-4000-8000-0000000000e4, NVIDIA L4, 550.54.15, P0, 23034, 51, N/A, 2040, 4, 0\n";
    let (is_same, said) = compared(smi)?;
    ensure(is_same && said.contains("8 same, 0 DIFFERS, 1 unknown to nvidia-smi"), || said.clone())?;
    for (right, wrong) in [("P0", "P8"), ("2040, 4", "2040, 5"), ("0000e4", "0000e5"), ("23034", "24576")] {
        let (is_same, said) = compared(&smi.replacen(right, wrong, 1))?;
        ensure(!is_same && said.contains("DIFFERS"), || format!("{wrong}: {said}"))?;
    }
    Ok(())
}

pub(super) fn an_absent_gpu_has_a_reason(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let config = "gpu: {library: /nonexistent/libnvidia-ml.so.1}\nengines: {discover: false}\n";
    let daemon = Daemon::start(tools, scratch, config).map_err(not_ok)?;
    daemon.wait_for(r#"plumbline_source_up{source="gpu"}"#, |up| up < 0.5).map_err(not_ok)?;
    let status: Value = serde_json::from_str(&daemon.get("/api/v1/status").map_err(not_ok)?).map_err(not_ok)?;
    let absent = status["absent"].to_string();
    ensure(absent.contains("gpu") && absent.contains("libnvidia-ml.so.1"), || absent.clone())?;
    let page = daemon.metrics().map_err(not_ok)?;
    ensure(!page.contains("plumbline_gpu_utilization"), || "an absent GPU has a utilization".to_owned())
}

pub(super) fn otlp_reaches_a_receiver(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let receiver = Receiver::start(tools, scratch, 2).map_err(|error| match error {
        NoReceiver::Missing(why) => skipped(&why),
        NoReceiver::Broken(why) => not_ok(why),
    })?;
    let engine = FakeEngine::start().map_err(not_ok)?;
    let otlp = format!("otlp: {{endpoint: \"http://127.0.0.1:{}\", interval_seconds: 1}}\n", receiver.port);
    let config = priced(&engine) + "audit: {checkpoint_seconds: 1}\n" + &otlp;
    let spine = Spine::start_with(tools, scratch, &config)?;
    let path = spine.models.join("shipped.gguf");
    fs::write(&path, b"weights").map_err(not_ok)?;
    fs::read(&path).map_err(not_ok)?;
    spine.open_of(&path).map_err(not_ok)?;

    let arrived = receiver
        .wait_for("the open", |said| said["body"].as_str().is_some_and(|body| body.contains("shipped.gguf")))
        .map_err(not_ok)?;
    equal("event", &arrived["event_name"], "plumbline.file_open")?;
    equal("severity", &arrived["severity_text"], "High")?;
    equal("class", &arrived["attributes"]["ocsf.class_uid"], 1001)?;
    equal("who", &arrived["resource"]["service.name"], "plumbline")?;
    let tokens =
        receiver.wait_for("the tokens", |said| said["name"] == "plumbline.engine.generation_tokens").map_err(not_ok)?;
    equal("unit", &tokens["unit"], "{token}")?;
    equal("kind", &tokens["kind"], "sum")?;
    equal("monotonic", &tokens["monotonic"], true)?;
    equal("cumulative", &tokens["cumulative"], true)?;
    equal("engine", &tokens["points"][0]["attributes"]["engine"], "fake")?;
    let memory = receiver.wait_for("the memory", |said| said["name"] == "plumbline.memory.resident").map_err(not_ok)?;
    equal("unit", &memory["unit"], "By")?;

    let errors = r#"plumbline_export_errors_total{exporter="otlp-logs"}"#;
    spine.daemon.wait_for(errors, |errors| (errors - 2.0).abs() < 0.5).map_err(not_ok)?;
    let lag = r#"plumbline_export_lag_records{exporter="otlp-logs"}"#;
    spine.daemon.wait_for(lag, |lag| lag < 0.5).map_err(not_ok)?;
    let refused = receiver.said().iter().filter(|said| said["signal"] == "refused").count();
    equal("refused requests of both signals", &refused.into(), 4)?;
    // A receiver that refused took nothing, so nothing may have come twice.
    let numbers: Vec<u64> = receiver.logs().iter().filter_map(sequence_number).collect();
    ensure(numbers.iter().copied().eq(0..numbers.len() as u64), || format!("arrived: {numbers:?}"))?;

    // The end of the first run is shipped by the second, which goes on at the cursor.
    let log = spine.daemon.log_dir();
    spine.daemon.stop().map_err(not_ok)?;
    let spine = Spine::start_with(tools, scratch, &config)?;
    receiver.wait_for("the stop", |said| said["event_name"] == "plumbline.stop").map_err(not_ok)?;
    spine.daemon.stop().map_err(not_ok)?;
    let cat = run(Command::new(&tools.plumbline).args(["audit", "cat"]).arg(&log)).map_err(not_ok)?;
    let kept: Vec<&str> = std::str::from_utf8(&cat.stdout).map_err(not_ok)?.lines().collect();
    // Checkpoints come too, the last one as it was published.
    let (checkpoints, arrived): (Vec<_>, Vec<_>) =
        receiver.logs().into_iter().partition(|record| record["event_name"] == "plumbline.checkpoint");
    let published = fs::read_to_string(log.join("checkpoint")).map_err(not_ok)?;
    let last = checkpoints.last().map_or(&Value::Null, |checkpoint| &checkpoint["body"]);
    equal("last checkpoint", last, published)?;
    for record in &arrived {
        let number = sequence_number(record).and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX);
        let exact = kept.get(number).is_some_and(|&kept| record["body"] == kept);
        ensure(exact, || format!("record {number} did not arrive as it is kept: {record}"))?;
    }
    let last = arrived.iter().filter_map(sequence_number).max().unwrap_or_default();
    let missing: Vec<u64> =
        (0..=last).filter(|&number| !arrived.iter().any(|record| sequence_number(record) == Some(number))).collect();
    ensure(missing.is_empty(), || format!("lost: {missing:?} of {last}"))
}

fn sequence_number(record: &Value) -> Option<u64> {
    record["attributes"]["audit.sequence.number"].as_u64()
}
