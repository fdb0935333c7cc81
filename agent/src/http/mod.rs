//! The HTTP side: `/metrics`, `/healthz`, `/api/v1/status`, `/api/v1/policies`, `/api/v1/gpu`, `/api/v1/probes/cuda`,
//! `/api/v1/timeline`; and two writes that want a token, `POST` to `/api/v1/incident` and `/api/v1/probes/cuda`. It reads the store and
//! changes nothing there.

pub mod incident;
pub mod policies;
mod probes;
pub mod timeline;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch};

use self::policies::InForce;
use crate::{
    clock,
    core::{SharedStore, lock},
    cuda::Control,
    gpu, own,
    series::{Point, agent, prometheus},
    timeline::SharedTimeline,
};

/// What does not change while the daemon runs, for the status page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    pub node: String,
    pub version: String,
    pub log_dir: String,
    pub vkey: String,
    /// Hooks and other sources, and how each fared.
    pub coverage: Vec<(String, String)>,
    pub watched: Vec<String>,
    pub policy_digest: String,
    pub policy_generation: u64,
    /// In the order of their names.
    pub policies: Vec<InForce>,
}

/// The answer of `/api/v1/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    #[serde(flatten)]
    pub node: Node,
    /// Sources without a reading, and why.
    pub absent: Vec<(String, String)>,
    pub log_records: u64,
    pub signed_records: u64,
    pub policy_matches: u64,
    pub lost: u64,
}

#[derive(Debug, Clone)]
struct Shared {
    store: SharedStore,
    timeline: SharedTimeline,
    node: Arc<watch::Receiver<Node>>,
    gpus: watch::Receiver<gpu::View>,
    gate: Arc<incident::Gate>,
    cuda: Control,
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Sources {
    pub store: SharedStore,
    pub timeline: SharedTimeline,
    pub node: watch::Receiver<Node>,
    pub gpus: watch::Receiver<gpu::View>,
    pub gate: incident::Gate,
    pub cuda: Control,
}

/// Binds; a port in use is an error here and not later.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop` is true.
pub async fn serve(listener: TcpListener, sources: Sources, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let Sources { store, timeline, node, gpus, gate, cuda } = sources;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/api/v1/status", get(status))
        .route("/api/v1/policies", get(in_force))
        .route("/api/v1/gpu", get(gpus_seen))
        .route("/api/v1/timeline", get(recent_past))
        .route("/api/v1/incident", post(begin_incident).layer(DefaultBodyLimit::max(incident::MOST_BYTES)))
        .route("/api/v1/probes/cuda", get(cuda_probes).post(set_cuda_probes))
        .with_state(Shared { store, timeline, node: Arc::new(node), gpus, gate: Arc::new(gate), cuda });
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            let _ = stop.wait_for(|&stop| stop).await;
        })
        .await
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let points = snapshot(&shared.store);
    let (content_type, page) = if accept.contains("application/openmetrics-text") {
        (prometheus::OPENMETRICS, prometheus::openmetrics(points))
    } else {
        (prometheus::TEXT, prometheus::text_0_0_4(points))
    };
    match page {
        Ok(page) => ([(header::CONTENT_TYPE, content_type)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Every present value, the daemon's own cost as of now included.
pub fn snapshot(store: &SharedStore) -> Vec<Point> {
    let mut store = lock(store);
    if let Some(cost) = own::own_cost() {
        store.set(Point::new(&agent::CPU_SECONDS, &[], cost.cpu_seconds));
        store.set(Point::new(&agent::RESIDENT_MEMORY, &[], cost.resident_bytes));
    }
    store.snapshot(clock::boot_ns())
}

async fn status(State(shared): State<Shared>) -> Response {
    let points = snapshot(&shared.store);
    let absent = lock(&shared.store).absent().map(|(name, why)| (name.to_owned(), why.to_owned())).collect();
    let sum = |name: &str| -> u64 {
        let numbers = points.iter().filter(|point| point.series.name == name).filter_map(Point::number);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
        let sum = numbers.sum::<f64>() as u64;
        sum
    };
    let status = Status {
        node: shared.node.borrow().clone(),
        absent,
        log_records: sum("plumbline_log_records"),
        signed_records: sum("plumbline_log_checkpoint_records"),
        policy_matches: sum("plumbline_policy_matches_total"),
        lost: sum("plumbline_lost_total"),
    };
    json(&status)
}

async fn in_force(State(shared): State<Shared>) -> Response {
    json(&policies::statuses(&shared.node.borrow(), &snapshot(&shared.store)))
}

async fn begin_incident(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    shared.gate.answer(&headers, &body)
}

async fn cuda_probes(State(shared): State<Shared>) -> Response {
    json(&shared.cuda.view())
}

async fn set_cuda_probes(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    probes::set_cuda(&shared.gate, &shared.cuda, &headers, &body)
}

async fn gpus_seen(State(shared): State<Shared>) -> Response {
    json(&*shared.gpus.borrow())
}

async fn recent_past(
    State(shared): State<Shared>,
    question: Result<Query<timeline::Question>, QueryRejection>,
) -> Response {
    let refused = |why: String| (StatusCode::BAD_REQUEST, why + "\n").into_response();
    match question {
        Err(rejection) => refused(rejection.body_text()),
        Ok(Query(question)) => {
            let answer = timeline::answer(&crate::timeline::lock(&shared.timeline), &question, clock::boot_ns());
            answer.map_or_else(|error| refused(error.to_string()), |answer| json(&answer))
        }
    }
}

fn json(answer: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(answer) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
