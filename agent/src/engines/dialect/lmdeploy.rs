//! LMDeploy, started with `--enable-metrics`: `lmdeploy/metrics/loggers.py` of 0.18.
//!
//! What it calls an iteration is one output of one request, and no step of the engine.

use super::{Command, Dialect, Field, METRICS, Means, Own, Process, Source, When};
use crate::series::engine;

/// The names of its enumeration of responses; `FINISH` is a stop or the length.
const FINISHED: &[(&str, &str)] = &[
    ("ResponseType.FINISH", "unspecified"),
    ("ResponseType.SUCCESS", "unspecified"),
    ("ResponseType.CANCEL", "abort"),
    ("ResponseType.ENGINE_STOP_ERROR", "error"),
    ("ResponseType.SESSION_REPEAT", "error"),
    ("ResponseType.SESSION_NOT_EXIST", "error"),
    ("ResponseType.HANDLER_NOT_EXIST", "error"),
    ("ResponseType.INPUT_LENGTH_ERROR", "error"),
    ("ResponseType.INTERNAL_ENGINE_ERROR", "error"),
    ("ResponseType.PREFIX_CACHE_CONFLICT", "error"),
    ("ResponseType.NO_QUEUE", "error"),
    ("ResponseType.NOT_SUPPORTED", "error"),
    ("ResponseType.OUT_OF_MEMORY", "error"),
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
            // Not `prompt_tokens_total`, which grows before the cached ones do: the difference would fall.
            &[Source::difference("request_prompt_tokens_sum", "cached_tokens_total")],
            When::RequestDone,
        ),
        // Counted later than the prompt: at the request's end.
        Field::new(&engine::PROMPT_TOKENS_CACHED_TOTAL, &[Source::metric("cached_tokens_total")], When::RequestDone),
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
        Field::new(
            &engine::TIME_TO_FIRST_TOKEN_SECONDS,
            &[Source::metric("time_to_first_token_seconds")],
            When::PromptDone,
        ),
        // Its `time_per_output_token_seconds` is the same by the tokens of an output, once for each output and not for each request.
        Field::new(&engine::INTER_TOKEN_LATENCY_SECONDS, &[Source::metric("iter_token_latency")], When::Step),
        Field::new(
            &engine::REQUEST_DURATION_SECONDS,
            &[Source::metric("e2e_request_latency_seconds")],
            When::RequestDone,
        ),
        Field::new(&engine::QUEUE_TIME_SECONDS, &[Source::metric("request_queue_time_seconds")], When::RequestDone),
        Field::new(&engine::PREFILL_TIME_SECONDS, &[Source::metric("request_prefill_time_seconds")], When::RequestDone),
        Field::new(&engine::REQUEST_PROMPT_TOKENS, &[Source::metric("request_prompt_tokens")], When::RequestDone)
            .means(&[Means::IncludesCached]),
        Field::new(
            &engine::REQUEST_GENERATION_TOKENS,
            &[Source::metric("request_generation_tokens")],
            When::RequestDone,
        ),
        Field::new(&engine::DECODE_TIME_SECONDS, &[Source::metric("request_decode_time_seconds")], When::RequestDone),
    ],
    process: Process {
        commands: &[Command::Subcommand("lmdeploy", "serve"), Command::Module("lmdeploy")],
        port_options: &["--server-port"],
        socket_options: &[],
        default_port: 23333,
        path: METRICS,
        model_options: &["--model-name"],
    },
};
