//! TensorRT-LLM's `trtllm-serve`: `tensorrt_llm/metrics/collector.py`. Its page is `/prometheus/metrics`; `/metrics` is JSON.

use super::{
    Command, Dialect, Field, Own, Process,
    Source::{self, Product},
    Version, When, all,
};
use crate::series::engine;

/// Why a request ended.
const FINISHED: &[(&str, &str)] =
    &[("stop", "stop"), ("length", "length"), ("timeout", "error"), ("cancelled", "abort")];

pub static DIALECT: Dialect = Dialect {
    name: "trtllm",
    about: "TensorRT-LLM's `trtllm-serve` (`tensorrt_llm/metrics/collector.py`)",
    prefixes: &["trtllm_"],
    mark: "num_requests_running",
    versions: &[Version { words: "1.2 or newer", has: "prompt_tokens_total", lacks: "" }],
    model_labels: &["model_name"],
    rank_labels: &[],
    fields: &[
        Field::gauge(&engine::REQUESTS_RUNNING, &[Source::metric("num_requests_running")]),
        Field::gauge(&engine::REQUESTS_WAITING, &[Source::metric("num_requests_waiting")]),
        Field::gauge(&engine::REQUESTS_MAX, &[Source::metric("max_num_active_requests")]),
        Field::gauge(&engine::KV_CACHE_USAGE_RATIO, &[Source::metric("kv_cache_utilization")]).greatest(),
        Field::gauge(
            &engine::KV_CACHE_CAPACITY_TOKENS,
            &[Product(all("kv_cache_max_blocks"), all("kv_cache_tokens_per_block"))],
        ),
        Field::new(
            &engine::PROMPT_TOKENS_TOTAL,
            &[Source::difference("prompt_tokens_total", "prompt_cached_tokens_total")],
            When::RequestDone,
        ),
        Field::new(
            &engine::PROMPT_TOKENS_CACHED_TOTAL,
            &[Source::metric("prompt_cached_tokens_total")],
            When::RequestDone,
        ),
        Field::new(&engine::GENERATION_TOKENS_TOTAL, &[Source::metric("generation_tokens_total")], When::RequestDone),
        Field::new(&engine::REQUESTS_FINISHED_TOTAL, &[Source::metric("request_success_total")], When::RequestDone)
            .own(Own::From("finished_reason", FINISHED)),
        Field::new(&engine::REQUESTS_FINISHED_TOTAL, &[Source::metric("request_error_total")], When::RequestDone)
            .own(Own::Fixed("error")),
        Field::new(
            &engine::SPECULATIVE_DRAFT_TOKENS_TOTAL,
            &[Source::metric("spec_decode_num_draft_tokens_total")],
            When::RequestDone,
        ),
        Field::new(
            &engine::SPECULATIVE_ACCEPTED_TOKENS_TOTAL,
            &[Source::metric("spec_decode_num_accepted_tokens_total")],
            When::RequestDone,
        ),
        Field::new(
            &engine::TIME_TO_FIRST_TOKEN_SECONDS,
            &[Source::metric("time_to_first_token_seconds")],
            When::RequestDone,
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
        commands: &[Command::Program("trtllm-serve"), Command::Subcommand("trtllm-serve", "serve")],
        port_options: &["--port"],
        socket_options: &[],
        default_port: 8000,
        path: "/prometheus/metrics",
        model_options: &["--model"],
    },
};
