//! vLLM, V1 engine: `vllm/v1/metrics/loggers.py` of 0.33, older names after the newer ones.
//!
//! Prefixes in the field: `vllm:` its own, `ray_vllm:` and `ray_vllm_` under Ray, `kserve_vllm:` under KServe, none
//! under NVIDIA NIM. Triton's backend labels the model `model`.

use super::{Across, Command, Dialect, Field, Process, Source, When};
use crate::series::engine;

pub static DIALECT: Dialect = Dialect {
    name: "vllm",
    prefixes: &["vllm:", "ray_vllm:", "kserve_vllm:", ""],
    mark: "num_requests_running",
    model_labels: &["model_name", "model"],
    fields: &[
        Field {
            series: &engine::REQUESTS_RUNNING,
            sources: &[Source::metric("num_requests_running")],
            when: When::Scrape,
            across: Across::Sum,
        },
        Field {
            series: &engine::REQUESTS_WAITING,
            sources: &[Source::metric("num_requests_waiting")],
            when: When::Scrape,
            across: Across::Sum,
        },
        Field {
            series: &engine::KV_CACHE_USAGE_RATIO,
            // A fraction in spite of `_perc`; the second name until 0.11, and under NIM.
            sources: &[Source::metric("kv_cache_usage_perc"), Source::metric("gpu_cache_usage_perc")],
            when: When::Scrape,
            across: Across::Max,
        },
        Field {
            series: &engine::PROMPT_TOKENS_TOTAL,
            // `prompt_tokens_total` alone includes cached tokens: without one of these pairs the series is absent.
            sources: &[
                Source::labelled("prompt_tokens_by_source_total", "source", "local_compute"),
                Source::difference("prompt_tokens_total", "prompt_tokens_cached_total"),
            ],
            when: When::PromptDone,
            across: Across::Sum,
        },
        Field {
            series: &engine::PROMPT_TOKENS_CACHED_TOTAL,
            sources: &[Source::metric("prompt_tokens_cached_total")],
            when: When::PromptDone,
            across: Across::Sum,
        },
        Field {
            series: &engine::GENERATION_TOKENS_TOTAL,
            sources: &[Source::metric("generation_tokens_total")],
            when: When::Step,
            across: Across::Sum,
        },
        Field {
            series: &engine::TIME_TO_FIRST_TOKEN_SECONDS,
            sources: &[Source::metric("time_to_first_token_seconds")],
            when: When::PromptDone,
            across: Across::Sum,
        },
        Field {
            series: &engine::INTER_TOKEN_LATENCY_SECONDS,
            // Not `request_time_per_output_token_seconds`: that is one mean per request. The second name until 0.12.
            sources: &[Source::metric("inter_token_latency_seconds"), Source::metric("time_per_output_token_seconds")],
            when: When::Step,
            across: Across::Sum,
        },
    ],
    process: Process {
        commands: &[Command::Subcommand("vllm", "serve"), Command::Module("vllm.entrypoints")],
        default_port: 8000,
        model_options: &["--served-model-name", "--model"],
    },
};
