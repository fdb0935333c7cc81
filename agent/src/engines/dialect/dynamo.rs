//! NVIDIA Dynamo's frontend: `docs/observability/metrics.md`. Its workers pass their engine's page through, which that engine's
//! dialect reads: tokens are counted there, and not here a second time.

use super::{ANY, Command, Dialect, Field, METRICS, Means, Own, Process, Source, When};
use crate::series::engine;

/// What a client gave up is an error there, and older versions do not tell it from others.
const FAILED: &[(&str, &str)] = &[("", "error"), ("cancelled", "abort"), (ANY, "error")];

pub static DIALECT: Dialect = Dialect {
    name: "dynamo",
    about: "NVIDIA Dynamo's frontend, 0.4 to 1.6 (`docs/observability/metrics.md`)",
    prefixes: &["dynamo_frontend_"],
    mark: "inflight_requests",
    versions: &[],
    model_labels: &["model"],
    rank_labels: &[],
    fields: &[
        // What is queued, until its first token, is in flight too.
        Field::gauge(&engine::REQUESTS_RUNNING, &[Source::difference("inflight_requests", "queued_requests")]),
        Field::gauge(&engine::REQUESTS_WAITING, &[Source::metric("queued_requests")]),
        Field::new(
            &engine::REQUESTS_FINISHED_TOTAL,
            &[Source::labelled("requests_total", "status", &["success"])],
            When::RequestDone,
        )
        .own(Own::Fixed("unspecified")),
        Field::new(
            &engine::REQUESTS_FINISHED_TOTAL,
            &[Source::labelled("requests_total", "status", &["error"])],
            When::RequestDone,
        )
        .own(Own::From("error_type", FAILED)),
        Field::new(
            &engine::TIME_TO_FIRST_TOKEN_SECONDS,
            &[Source::metric("time_to_first_token_seconds")],
            When::PromptDone,
        ),
        Field::new(&engine::INTER_TOKEN_LATENCY_SECONDS, &[Source::metric("inter_token_latency_seconds")], When::Step),
        Field::new(&engine::REQUEST_DURATION_SECONDS, &[Source::metric("request_duration_seconds")], When::RequestDone),
        Field::new(&engine::REQUEST_PROMPT_TOKENS, &[Source::metric("input_sequence_tokens")], When::RequestDone)
            .means(&[Means::IncludesCached]),
        Field::new(&engine::REQUEST_GENERATION_TOKENS, &[Source::metric("output_sequence_tokens")], When::RequestDone),
    ],
    process: Process {
        commands: &[Command::Module("dynamo.frontend")],
        port_options: &["--http-port"],
        socket_options: &[],
        default_port: 8000,
        path: METRICS,
        model_options: &[],
    },
};
