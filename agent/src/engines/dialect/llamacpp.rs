//! llama.cpp's `llama-server`, started with `--metrics`: `tools/server/server-context.cpp`.
//!
//! It labels nothing, so the model comes from the command line or the configuration. It has no histogram and, in
//! current releases, nothing about the KV cache: those series are absent.

use super::{Command, Dialect, Field, METRICS, Means, Own, Process, Source, Version, When};
use crate::series::engine;

pub static DIALECT: Dialect = Dialect {
    name: "llamacpp",
    about: "llama.cpp's `llama-server --metrics` (`tools/server/server-context.cpp`)",
    prefixes: &["llamacpp:"],
    mark: "requests_processing",
    versions: &[
        Version { words: "2026 or newer", has: "prompt_tokens_cached_total", lacks: "" },
        Version { words: "before mid-2025", has: "kv_cache_usage_ratio", lacks: "" },
    ],
    model_labels: &[],
    rank_labels: &[],
    fields: &[
        Field::gauge(&engine::REQUESTS_RUNNING, &[Source::metric("requests_processing")]),
        Field::gauge(&engine::REQUESTS_WAITING, &[Source::metric("requests_deferred")]),
        Field::gauge(&engine::KV_CACHE_USAGE_RATIO, &[Source::metric("kv_cache_usage_ratio")]).greatest(),
        // Cached tokens are not in it.
        Field::new(&engine::PROMPT_TOKENS_TOTAL, &[Source::metric("prompt_tokens_total")], When::PromptDone),
        Field::new(
            &engine::PROMPT_TOKENS_CACHED_TOTAL,
            &[Source::metric("prompt_tokens_cached_total")],
            When::PromptDone,
        ),
        Field::new(&engine::GENERATION_TOKENS_TOTAL, &[Source::metric("tokens_predicted_total")], When::RequestDone),
        Field::new(
            &engine::SPECULATIVE_DRAFTS_TOTAL,
            &[Source::metric("spec_decode_num_drafts_total")],
            When::RequestDone,
        ),
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
        Field::new(&engine::STEPS_TOTAL, &[Source::metric("n_decode_total")], When::Step),
        Field::new(&engine::BUSY_SECONDS_TOTAL, &[Source::metric("prompt_seconds_total")], When::PromptDone)
            .own(Own::Fixed("prefill"))
            .means(&[Means::SlotSeconds]),
        Field::new(&engine::BUSY_SECONDS_TOTAL, &[Source::metric("tokens_predicted_seconds_total")], When::RequestDone)
            .own(Own::Fixed("decode"))
            .means(&[Means::SlotSeconds]),
    ],
    process: Process {
        commands: &[Command::Program("llama-server")],
        port_options: &["--port"],
        socket_options: &["--host"],
        default_port: 8080,
        path: METRICS,
        model_options: &["--alias", "-a", "-hf", "--hf-repo", "-m", "--model"],
    },
};
