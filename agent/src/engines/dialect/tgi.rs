//! Text Generation Inference, v2 and v3: `router/src/server.rs`, `backends/v3/src/queue.rs`.
//!
//! It names no model and counts no tokens but those of requests that ended; its histogram of a batch's next size is none of
//! ours. The page may be on a port of its own (`--prometheus-port`).

use super::{
    Command, Dialect, Field, METRICS, Means, Own, Process,
    Source::{self, Ratio},
    Version, When, all,
};
use crate::series::engine;

/// Why a request failed.
const FAILED: &[(&str, &str)] = &[
    ("overloaded", "error"),
    ("validation", "error"),
    ("generation", "error"),
    ("incomplete", "error"),
    ("template", "error"),
    ("dropped", "abort"),
];

pub static DIALECT: Dialect = Dialect {
    name: "tgi",
    about: "Text Generation Inference 2 and 3 (`router/src/server.rs`)",
    prefixes: &["tgi_"],
    mark: "batch_current_size",
    versions: &[
        Version { words: "3", has: "batch_max_total_tokens", lacks: "" },
        Version { words: "before 3", has: "queue_size", lacks: "" },
    ],
    model_labels: &[],
    rank_labels: &[],
    fields: &[
        Field::gauge(&engine::REQUESTS_RUNNING, &[Source::metric("batch_current_size")]),
        Field::gauge(&engine::REQUESTS_WAITING, &[Source::metric("queue_size")]),
        Field::gauge(
            &engine::KV_CACHE_USAGE_RATIO,
            &[Ratio(all("batch_current_max_tokens"), all("batch_max_total_tokens"))],
        )
        .greatest()
        .means(&[Means::Reserved]),
        Field::gauge(&engine::KV_CACHE_CAPACITY_TOKENS, &[Source::metric("batch_max_total_tokens")]),
        Field::new(&engine::PROMPT_TOKENS_TOTAL, &[Source::metric("request_input_length_sum")], When::RequestDone)
            .means(&[Means::IncludesCached]),
        Field::new(
            &engine::GENERATION_TOKENS_TOTAL,
            &[Source::metric("request_generated_tokens_sum")],
            When::RequestDone,
        ),
        Field::new(&engine::REQUESTS_FINISHED_TOTAL, &[Source::metric("request_success")], When::RequestDone)
            .own(Own::Fixed("unspecified")),
        Field::new(&engine::REQUESTS_FINISHED_TOTAL, &[Source::metric("request_failure")], When::RequestDone)
            .own(Own::From("err", FAILED)),
        Field::new(&engine::STEPS_TOTAL, &[Source::metric("batch_inference_count")], When::Step),
        Field::new(&engine::BUSY_SECONDS_TOTAL, &[Source::metric("batch_forward_duration_sum")], When::Step)
            .own(Own::From("method", &[("prefill", "prefill"), ("decode", "decode")])),
        Field::new(
            &engine::TIME_PER_OUTPUT_TOKEN_SECONDS,
            &[Source::metric("request_mean_time_per_token_duration")],
            When::RequestDone,
        ),
        Field::new(&engine::REQUEST_DURATION_SECONDS, &[Source::metric("request_duration")], When::RequestDone),
        Field::new(&engine::QUEUE_TIME_SECONDS, &[Source::metric("request_queue_duration")], When::RequestDone),
        Field::new(&engine::REQUEST_PROMPT_TOKENS, &[Source::metric("request_input_length")], When::RequestDone)
            .means(&[Means::IncludesCached]),
        Field::new(
            &engine::REQUEST_GENERATION_TOKENS,
            &[Source::metric("request_generated_tokens")],
            When::RequestDone,
        ),
    ],
    process: Process {
        commands: &[Command::Program("text-generation-router"), Command::Program("text-generation-launcher")],
        port_options: &["--prometheus-port", "--port", "-p"],
        socket_options: &[],
        default_port: 9000,
        path: METRICS,
        model_options: &["--model-id", "--tokenizer-name"],
    },
};
