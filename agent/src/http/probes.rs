//! `/api/v1/probes/cuda`: how much is looked at, and saying so.

use std::{fs, num::NonZeroU32, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;

use super::incident::{Gate, answered, refused};
use crate::cuda::{Control, Detail, Order};

/// How much is counted of all processes, or of which one all is, for how long.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Wanted {
    Detail(WantedDetail),
    Trace(WantedTrace),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedDetail {
    detail: Detail,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedTrace {
    trace_pid: NonZeroU32,
    for_seconds: u64,
}

const MOST_SECONDS: u64 = 3600;

const EXPECTED: &str =
    "expected `{\"detail\": \"off\"}`, `\"sync\"` or `\"full\"`, or `{\"trace_pid\": 4711, \"for_seconds\": 30}`";

/// From soon on; until the time is over, if there is one, or until the daemon ends, when the configuration holds again.
pub fn set_cuda(gate: &Gate, control: &Control, headers: &HeaderMap, body: &Bytes) -> Response {
    if let Err((status, why)) = gate.admit(headers) {
        return refused(status, why);
    }
    let order = match serde_json::from_slice(body) {
        Ok(Wanted::Detail(WantedDetail { detail })) => Order::Detail(detail),
        Ok(Wanted::Trace(WantedTrace { for_seconds, .. })) if !(1..=MOST_SECONDS).contains(&for_seconds) => {
            let why = format!("expected `for_seconds` from 1 to {MOST_SECONDS}");
            return refused(StatusCode::BAD_REQUEST, &why);
        }
        Ok(Wanted::Trace(WantedTrace { trace_pid, .. })) if !is_process(trace_pid) => {
            return refused(StatusCode::NOT_FOUND, &format!("there is no process {trace_pid} on this host"));
        }
        Ok(Wanted::Trace(WantedTrace { trace_pid, .. }))
            if control.view().traced.is_some_and(|pid| pid != trace_pid) =>
        {
            return refused(StatusCode::CONFLICT, "another process is traced; `plumbline probes cuda` says which");
        }
        Ok(Wanted::Trace(WantedTrace { trace_pid, for_seconds })) => {
            Order::Trace { pid: trace_pid, span: Duration::from_secs(for_seconds) }
        }
        Err(_) => return refused(StatusCode::BAD_REQUEST, EXPECTED),
    };
    if let Some(why) = control.view().absent {
        return refused(StatusCode::SERVICE_UNAVAILABLE, &why);
    }
    match control.set(order) {
        Ok(()) => answered(&String::from_utf8_lossy(body)),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// And no thread of one, which has a directory of its own too.
fn is_process(pid: NonZeroU32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    leader.is_some_and(|leader| leader.trim() == pid.to_string())
}
