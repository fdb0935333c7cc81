//! GPUs through the whole daemon, as `tests/fake-nvml` plays them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use serde_json::{Value, json};

use super::{ensure, equal, not_ok, skipped};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools, post, run, run_with},
};

/// A daemon that reads a scenario.
fn playing(tools: &Tools, scratch: &Path, scenario: &str) -> Result<Daemon, Ended> {
    let Some(library) = &tools.fake_nvml else { return Err(skipped("libfake_nvml.so is not built")) };
    let config = format!("gpu: {{library: {}}}\nengines: {{discover: false}}\n", library.display());
    let scenario = tools.scripts.join("fake-nvml/scenarios").join(scenario).display().to_string();
    Daemon::start_with(tools, scratch, &config, &[("FAKE_NVML_SCENARIO", &scenario)]).map_err(not_ok)
}

/// What ends the work of a GPU is a record and an alert, with its severity in OCSF's numbers.
pub(super) fn what_ends_the_work_of_a_gpu_is_an_alert(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    const HIGH: u64 = 4;
    const CRITICAL: u64 = 5;
    // The policy's severity is the record's. Of what one rule matches within an hour somebody is told once.
    for (scenario, found) in [
        (
            "ecc.yaml",
            &[
                ("gpu.xid", HIGH, true),
                ("gpu.ecc", CRITICAL, true),
                ("gpu.row_remap_failure", CRITICAL, false),
                ("gpu.recovery_action", HIGH, true),
            ][..],
        ),
        ("nvlink-down.yaml", &[("gpu.nvlink", HIGH, true)]),
    ] {
        let daemon = playing(tools, &scratch.join(scenario), scenario)?;
        for &(kind, severity, is_alert) in found {
            let is_it = |record: &Value| record["finding_info"]["types"] == json!([kind]);
            let record = daemon.wait_for_record(&format!("{scenario}: {kind}"), is_it).map_err(not_ok)?;
            equal(&format!("severity of {kind}"), &record["severity_id"], severity)?;
            equal(&format!("alert of {kind}"), &record["is_alert"], is_alert)?;
            equal("policy", &record["policy"]["name"], "gpu-health")?;
            let entity = record["finding_info"]["uid"].as_str().unwrap_or_default();
            ensure(entity.starts_with(&format!("{kind}/GPU-5eed")), || entity.to_owned())?;
        }
        // Grave ones are looked at more closely.
        daemon
            .wait_for_record("the incident", |record| record["finding_info"]["types"] == json!(["incident.begin"]))
            .map_err(not_ok)?;
    }
    Ok(())
}

pub(super) fn a_simulated_gpu_says_so(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let daemon = playing(tools, scratch, "h100-pair.yaml")?;
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
    let Some(python) = &tools.python else { return Err(skipped("no Python (PLUMBLINE_PYTHON)")) };
    let daemon = playing(tools, scratch, "l4.yaml")?;
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
