//! SGLang, started with `--enable-metrics`: `sglang/srt/observability/metrics_collector.py` of 0.5.
//!
//! Under priority scheduling a gauge stands once with the label `priority` empty, which is the total, and once for each priority.
//! What its scheduler tells stands once for each rank of tensor, pipeline and expert parallelism, the same number each time; data
//! parallel ranks have work of their own. sgl-router and Prometheus 3 rewrite `sglang:` to `sglang_`.

use super::{Command, Dialect, Field, METRICS, Means, Own, Process, Source, Version, When};
use crate::series::engine;

/// Its modes of a forward pass (`ForwardMode`), in small letters. Verifying drafts is decoding.
const FORWARD: &[(&str, &str)] = &[
    ("extend", "prefill"),
    ("split_prefill", "prefill"),
    ("dllm_extend", "prefill"),
    ("decode", "decode"),
    ("target_verify", "decode"),
    ("draft_extend_v2", "decode"),
    ("mixed", "mixed"),
];

/// The priority of what is told of all.
const TOTAL: &[&str] = &[""];

const CACHE_HITS: &[&str] = &["device_hit", "host_hit", "storage_hit"];
const CACHE_LOOKS: &[&str] = &["device_hit", "host_hit", "storage_hit", "input"];

pub static DIALECT: Dialect = Dialect {
    name: "sglang",
    about: "SGLang 0.4 and 0.5 with `--enable-metrics` (`sglang/srt/observability/metrics_collector.py`); sgl-router",
    prefixes: &["sglang:"],
    mark: "num_running_reqs",
    versions: &[
        Version { words: "0.5.20 or newer", has: "forward_execution_seconds_total", lacks: "" },
        Version { words: "0.5", has: "realtime_tokens_total", lacks: "" },
        Version { words: "0.4", has: "token_usage", lacks: "" },
    ],
    model_labels: &["model_name"],
    rank_labels: &["tp_rank", "pp_rank", "moe_ep_rank"],
    fields: &[
        Field::gauge(&engine::REQUESTS_RUNNING, &[Source::labelled("num_running_reqs", "priority", TOTAL)]),
        Field::gauge(&engine::REQUESTS_WAITING, &[Source::labelled("num_queue_reqs", "priority", TOTAL)]),
        Field::gauge(&engine::KV_CACHE_USAGE_RATIO, &[Source::metric("token_usage")]).greatest(),
        Field::gauge(&engine::KV_CACHE_CAPACITY_TOKENS, &[Source::metric("max_total_num_tokens")]),
        Field::new(&engine::PREEMPTIONS_TOTAL, &[Source::metric("num_retracted_requests_total")], When::Step),
        // Those without `realtime` are counted when a request ends; the cached ones are absent until the first hit.
        Field::new(
            &engine::PROMPT_TOKENS_TOTAL,
            &[
                Source::labelled("realtime_tokens_total", "mode", &["prefill_compute"]),
                Source::difference("prompt_tokens_total", "cached_tokens_total"),
            ],
            When::Step,
        ),
        Field::new(
            &engine::PROMPT_TOKENS_CACHED_TOTAL,
            &[
                Source::labelled("realtime_tokens_total", "mode", &["prefill_cache"]),
                // By source, or as `total` where no source is known.
                Source::metric("cached_tokens_total"),
            ],
            When::Step,
        ),
        Field::new(
            &engine::GENERATION_TOKENS_TOTAL,
            &[
                Source::labelled("realtime_tokens_total", "mode", &["decode"]),
                Source::metric("generation_tokens_total"),
            ],
            When::Step,
        )
        .means(&[Means::WithoutFirst]),
        Field::new(&engine::REQUESTS_FINISHED_TOTAL, &[Source::metric("num_requests_total")], When::RequestDone)
            .own(Own::Fixed("unspecified")),
        Field::new(
            &engine::REQUESTS_FINISHED_TOTAL,
            &[Source::metric("num_aborted_requests_total")],
            When::RequestDone,
        )
        .own(Own::Fixed("abort")),
        Field::new(&engine::HTTP_REQUESTS_TOTAL, &[Source::metric("http_responses_total")], When::RequestDone)
            .own(Own::StatusClass("status_code")),
        Field::new(
            &engine::PREFIX_CACHE_QUERY_TOKENS_TOTAL,
            &[Source::labelled("prefill_effective_tokens_total", "mode", CACHE_LOOKS)],
            When::Step,
        ),
        Field::new(
            &engine::PREFIX_CACHE_HIT_TOKENS_TOTAL,
            &[Source::labelled("prefill_effective_tokens_total", "mode", CACHE_HITS)],
            When::Step,
        ),
        Field::gauge(&engine::SPECULATIVE_ACCEPTANCE_RATIO, &[Source::metric("spec_accept_rate")]).greatest(),
        Field::new(&engine::BUSY_SECONDS_TOTAL, &[Source::metric("forward_execution_seconds_total")], When::Step)
            .own(Own::From("category", FORWARD)),
        Field::new(&engine::IDLE_SECONDS_TOTAL, &[Source::metric("scheduler_idle_seconds_total")], When::Step),
        Field::new(
            &engine::TIME_TO_FIRST_TOKEN_SECONDS,
            &[Source::metric("time_to_first_token_seconds")],
            When::PromptDone,
        ),
        Field::new(&engine::INTER_TOKEN_LATENCY_SECONDS, &[Source::metric("inter_token_latency_seconds")], When::Step),
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
        Field::new(&engine::QUEUE_TIME_SECONDS, &[Source::metric("queue_time_seconds")], When::PromptDone),
        Field::new(&engine::REQUEST_PROMPT_TOKENS, &[Source::metric("prompt_tokens_histogram")], When::RequestDone)
            .means(&[Means::IncludesCached]),
        Field::new(
            &engine::REQUEST_GENERATION_TOKENS,
            &[Source::metric("generation_tokens_histogram")],
            When::RequestDone,
        ),
    ],
    process: Process {
        commands: &[Command::Module("sglang.launch_server"), Command::Subcommand("sglang", "serve")],
        port_options: &["--port"],
        socket_options: &[],
        default_port: 30000,
        path: METRICS,
        model_options: &["--served-model-name", "--model-path", "--model"],
    },
};
