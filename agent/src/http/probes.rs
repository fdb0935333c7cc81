//! `/api/v1/probes/cuda`: how much is looked at, and saying so.

use std::time::Duration;

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;

use super::incident::{Gate, answered, refused};
use crate::cuda::{Control, Detail, Order};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    detail: Detail,
    #[serde(default)]
    for_seconds: Option<u64>,
}

const MOST_SECONDS: u64 = 3600;

/// From soon on; until the time is over, if there is one, or until the daemon ends, when the configuration holds again.
pub fn set_cuda(gate: &Gate, control: &Control, headers: &HeaderMap, body: &Bytes) -> Response {
    if let Err((status, why)) = gate.admit(headers) {
        return refused(status, why);
    }
    let Wanted { detail, for_seconds } = match serde_json::from_slice(body) {
        Ok(wanted) => wanted,
        Err(error) => {
            let why = format!("expected `{{\"detail\": \"off\"}}`, `\"sync\"` or `\"full\"`: {error}");
            return refused(StatusCode::BAD_REQUEST, &why);
        }
    };
    if for_seconds.is_some_and(|seconds| !(1..=MOST_SECONDS).contains(&seconds)) {
        let why = format!("expected `for_seconds` from 1 to {MOST_SECONDS}");
        return refused(StatusCode::BAD_REQUEST, &why);
    }
    if let Some(why) = control.view().absent {
        return refused(StatusCode::SERVICE_UNAVAILABLE, &why);
    }
    match control.set(Order { detail, span: for_seconds.map(Duration::from_secs) }) {
        Ok(()) => answered(&format!("{{\"detail\": \"{}\"}}\n", detail.as_str())),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
