//! GPUs and engines become series and prices, and leave by Prometheus and OTLP.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::{Spine, ensure, equal, not_ok, priced, skipped};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools, run, run_with},
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
    let engine = FakeEngine::start().map_err(not_ok)?;
    let config = priced(&engine);
    let spine = Spine::start_with(tools, scratch, &config)?;
    let total = r#"plumbline_engine_generation_tokens_total{engine="fake""#;
    spine.daemon.wait_for(total, |_| true).map_err(not_ok)?;
    engine.generate(1000);
    let before_seconds = priced_by_hand(&spine.daemon, 1000.0)?;

    // What a daemon did not see it counts when the next one is there.
    spine.daemon.stop().map_err(not_ok)?;
    engine.generate(500);
    let spine = Spine::start_with(tools, scratch, &config)?;
    let after_seconds = priced_by_hand(&spine.daemon, 1500.0)?;
    ensure(after_seconds > before_seconds, || format!("{after_seconds} s after {before_seconds} s"))
}

/// Waits for so many tokens and compares their price with 3.6 EUR an hour since the ledger began, which is how long ago it says.
fn priced_by_hand(daemon: &Daemon, tokens: f64) -> Result<f64, Ended> {
    let counted = r#"plumbline_cost_window_tokens{engine="fake",model="",kind="generated",window="start"}"#;
    daemon.wait_for(counted, |counted| (counted - tokens).abs() < 0.5).map_err(not_ok)?;
    let page = daemon.metrics().map_err(not_ok)?;
    let value = |series: &str| {
        let line = page.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).ok_or_else(|| not_ok(series))
    };
    let window_seconds = value(r#"plumbline_cost_window_seconds{window="start"}"#)?;
    let per_token = value(
        r#"plumbline_cost_per_token{currency="EUR",basis="node",engine="fake",model="",kind="generated",window="start"}"#,
    )?;
    let by_hand = 3.6 / 3600.0 * window_seconds / tokens;
    ensure((per_token / by_hand - 1.0).abs() < 0.01, || format!("{per_token} against {by_hand} by hand"))?;
    Ok(window_seconds)
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
