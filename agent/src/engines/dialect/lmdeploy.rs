//! LMDeploy, started with `--enable-metrics`: `lmdeploy/metrics/loggers.py` of 0.18.

use super::{Command, Dialect, Field, METRICS, Own, Process, Source, When};
use crate::series::engine;

/// The names of its enumeration of responses.
const FINISHED: &[(&str, &str)] = &[
    ("ResponseType.FINISH", "unspecified"),
    ("ResponseType.SUCCESS", "unspecified"),
    ("ResponseType.CANCEL", "abort"),
    ("ResponseType.INTERNAL_ENGINE_ERROR", "error"),
];

pub static DIALECT: Dialect = Dialect {
    name: "lmdeploy",
    about: "LMDeploy with `--enable-metrics` (`lmdeploy/metrics/loggers.py`)",
    prefixes: &["lmdeploy:"],
    mark: "num_requests_running",
    versions: &[],
    model_labels: &["model_name"],
    rank_labels: &[],
    fields: &[
        Field::gauge(&engine::REQUESTS_RUNNING, &[Source::metric("num_requests_running")]),
        Field::gauge(&engine::REQUESTS_WAITING, &[Source::metric("num_requests_waiting")]),
        Field::gauge(&engine::KV_CACHE_USAGE_RATIO, &[Source::metric("gpu_cache_usage_perc")]).greatest(),
        Field::new(
            &engine::PROMPT_TOKENS_TOTAL,
            &[Source::difference("prompt_tokens_total", "cached_tokens_total")],
            When::PromptDone,
        ),
        Field::new(&engine::PROMPT_TOKENS_CACHED_TOTAL, &[Source::metric("cached_tokens_total")], When::PromptDone),
        Field::new(&engine::GENERATION_TOKENS_TOTAL, &[Source::metric("generation_tokens_total")], When::Step),
        Field::new(&engine::REQUESTS_FINISHED_TOTAL, &[Source::metric("request_success_total")], When::RequestDone)
            .own(Own::From("finished_reason", FINISHED)),
        Field::new(&engine::SPECULATIVE_DRAFTS_TOTAL, &[Source::metric("spec_decode_num_drafts_total")], When::Step),
        Field::new(
            &engine::SPECULATIVE_DRAFT_TOKENS_TOTAL,
            &[Source::metric("spec_decode_num_draft_tokens_total")],
            When::Step,
        ),
        Field::new(
            &engine::SPECULATIVE_ACCEPTED_TOKENS_TOTAL,
            &[Source::metric("spec_decode_num_accepted_tokens_total")],
            When::Step,
        ),
        Field::new(&engine::STEPS_TOTAL, &[Source::metric("iteration_tokens_total_count")], When::Step),
        Field::new(&engine::STEP_TOKENS_TOTAL, &[Source::metric("iteration_tokens_total_sum")], When::Step),
        Field::new(
            &engine::TIME_TO_FIRST_TOKEN_SECONDS,
            &[Source::metric("time_to_first_token_seconds")],
            When::PromptDone,
        ),
        Field::new(
            &engine::TIME_PER_OUTPUT_TOKEN_SECONDS,
            &[Source::metric("time_per_output_token_seconds")],
            When::RequestDone,
        ),
        Field::new(
            &engine::REQUEST_DURATION_SECONDS,
            &[Source::metric("e2e_request_latency_seconds")],
            When::RequestDone,
        ),
        Field::new(&engine::QUEUE_TIME_SECONDS, &[Source::metric("request_queue_time_seconds")], When::RequestDone),
        Field::new(&engine::PREFILL_TIME_SECONDS, &[Source::metric("request_prefill_time_seconds")], When::RequestDone),
        Field::new(&engine::DECODE_TIME_SECONDS, &[Source::metric("request_decode_time_seconds")], When::RequestDone),
    ],
    process: Process {
        commands: &[Command::Subcommand("lmdeploy", "serve"), Command::Module("lmdeploy")],
        port_options: &["--server-port"],
        default_port: 23333,
        path: METRICS,
        model_options: &["--model-name"],
    },
};
