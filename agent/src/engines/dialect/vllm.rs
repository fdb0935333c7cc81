//! vLLM: `vllm/v1/metrics/loggers.py` of 0.33, older names after the newer ones.
//!
//! Prefixes in the field: `vllm:` its own, `ray_vllm:` and `ray_vllm_` under Ray, `kserve_vllm:` under KServe, none
//! under NVIDIA NIM. Triton's backend labels the model `model`.

use super::{
    Command, Dialect, Field, METRICS, Means, Own, Process,
    Source::{self, InLabel},
    Version, When, all, bare,
};
use crate::series::engine;

/// What the engine calls the end of a request.
const FINISHED: &[(&str, &str)] = &[("stop", "stop"), ("length", "length"), ("abort", "abort"), ("error", "error")];

pub static DIALECT: Dialect = Dialect {
    name: "vllm",
    about: "vLLM, V0 to 0.33 (`vllm/v1/metrics/loggers.py`); under Ray, KServe, Triton's backend; NVIDIA NIM",
    prefixes: &["vllm:", "ray_vllm:", "kserve_vllm:", ""],
    mark: "num_requests_running",
    versions: &[
        Version { words: "0.32 or newer", has: "num_requests_waiting_by_reason", lacks: "" },
        Version { words: "NIM", has: "num_request_max", lacks: "" },
        Version { words: "V0", has: "num_requests_swapped", lacks: "" },
        Version { words: "0.12 to 0.31", has: "kv_cache_usage_perc", lacks: "gpu_cache_usage_perc" },
        Version { words: "0.9 to 0.11", has: "kv_cache_usage_perc", lacks: "" },
        Version { words: "before 0.9", has: "gpu_cache_usage_perc", lacks: "" },
    ],
    model_labels: &["model_name", "model"],
    rank_labels: &[],
    fields: &[
        Field::gauge(&engine::REQUESTS_RUNNING, &[Source::metric("num_requests_running")]),
        Field::gauge(&engine::REQUESTS_WAITING, &[Source::metric("num_requests_waiting")]),
        Field::gauge(&engine::REQUESTS_WAITING_BY_REASON, &[Source::metric("num_requests_waiting_by_reason")])
            .own(Own::From("reason", &[])),
        Field::gauge(&engine::REQUESTS_MAX, &[Source::metric("num_request_max")]),
        // A fraction in spite of `_perc`; the second name until 0.11, and under NIM.
        Field::gauge(
            &engine::KV_CACHE_USAGE_RATIO,
            &[Source::metric("kv_cache_usage_perc"), Source::metric("gpu_cache_usage_perc")],
        )
        .greatest(),
        // Blocks times their size is wrong for models with several kinds of attention.
        Field::gauge(&engine::KV_CACHE_CAPACITY_TOKENS, &[InLabel(all("cache_config_info"), "kv_cache_size_tokens")]),
        Field::new(&engine::PREEMPTIONS_TOTAL, &[Source::metric("num_preemptions_total")], When::Step),
        // `prompt_tokens_total` alone includes cached tokens: without one of these pairs the series is absent.
        Field::new(
            &engine::PROMPT_TOKENS_TOTAL,
            &[
                Source::labelled("prompt_tokens_by_source_total", "source", &["local_compute"]),
                Source::difference("prompt_tokens_total", "prompt_tokens_cached_total"),
            ],
            When::PromptDone,
        ),
        Field::new(
            &engine::PROMPT_TOKENS_CACHED_TOTAL,
            &[Source::metric("prompt_tokens_cached_total")],
            When::PromptDone,
        ),
        Field::new(&engine::GENERATION_TOKENS_TOTAL, &[Source::metric("generation_tokens_total")], When::Step),
        // The name says success and counts every end; under NIM the second has the reasons.
        Field::new(
            &engine::REQUESTS_FINISHED_TOTAL,
            &[Source::metric("request_finish_total"), Source::metric("request_success_total")],
            When::RequestDone,
        )
        .own(Own::From("finished_reason", FINISHED))
        .means(&[Means::WithoutAborted]),
        Field::new(
            &engine::REQUESTS_REJECTED_TOTAL,
            &[Source::metric("admission_rejections_total")],
            When::RequestDone,
        )
        .own(Own::From("reason", &[])),
        Field::new(&engine::HTTP_REQUESTS_TOTAL, &[Source::Metric(bare("http_requests_total"))], When::RequestDone)
            .own(Own::StatusClass("status")),
        Field::new(
            &engine::PREFIX_CACHE_QUERY_TOKENS_TOTAL,
            &[Source::metric("prefix_cache_queries_total"), Source::metric("gpu_prefix_cache_queries_total")],
            When::Step,
        )
        .means(&[Means::OnceBlocks]),
        Field::new(
            &engine::PREFIX_CACHE_HIT_TOKENS_TOTAL,
            &[Source::metric("prefix_cache_hits_total"), Source::metric("gpu_prefix_cache_hits_total")],
            When::Step,
        )
        .means(&[Means::OnceBlocks]),
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
        // A histogram in spite of its name: one observation is one step.
        Field::new(&engine::STEPS_TOTAL, &[Source::metric("iteration_tokens_total_count")], When::Step),
        Field::new(&engine::STEP_TOKENS_TOTAL, &[Source::metric("iteration_tokens_total_sum")], When::Step),
        Field::new(
            &engine::TIME_TO_FIRST_TOKEN_SECONDS,
            &[Source::metric("time_to_first_token_seconds")],
            When::PromptDone,
        ),
        // The second name until 0.12.
        Field::new(
            &engine::INTER_TOKEN_LATENCY_SECONDS,
            &[Source::metric("inter_token_latency_seconds"), Source::metric("time_per_output_token_seconds")],
            When::Step,
        ),
        Field::new(
            &engine::TIME_PER_OUTPUT_TOKEN_SECONDS,
            &[Source::metric("request_time_per_output_token_seconds")],
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
        Field::new(&engine::REQUEST_PROMPT_TOKENS, &[Source::metric("request_prompt_tokens")], When::RequestDone)
            .means(&[Means::IncludesCached]),
        Field::new(
            &engine::REQUEST_GENERATION_TOKENS,
            &[Source::metric("request_generation_tokens")],
            When::RequestDone,
        ),
    ],
    process: Process {
        commands: &[Command::Subcommand("vllm", "serve"), Command::Module("vllm.entrypoints")],
        port_options: &["--port"],
        socket_options: &["--uds"],
        default_port: 8000,
        path: METRICS,
        model_options: &["--served-model-name", "--model"],
    },
};
