//! llama.cpp's `llama-server`, started with `--metrics`: `tools/server/server-context.cpp`.
//!
//! It labels nothing, so the model comes from the command line or the configuration. It has no histogram and, in
//! current releases, nothing about the KV cache: those series are absent.

use super::{Across, Command, Dialect, Field, Process, Source, When};
use crate::series::engine;

pub static DIALECT: Dialect = Dialect {
    name: "llamacpp",
    prefixes: &["llamacpp:"],
    mark: "requests_processing",
    model_labels: &[],
    fields: &[
        Field {
            series: &engine::REQUESTS_RUNNING,
            sources: &[Source::metric("requests_processing")],
            when: When::Scrape,
            across: Across::Sum,
        },
        Field {
            series: &engine::REQUESTS_WAITING,
            sources: &[Source::metric("requests_deferred")],
            when: When::Scrape,
            across: Across::Sum,
        },
        Field {
            series: &engine::PROMPT_TOKENS_TOTAL,
            // Cached tokens are not in it.
            sources: &[Source::metric("prompt_tokens_total")],
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
            sources: &[Source::metric("tokens_predicted_total")],
            when: When::RequestDone,
            across: Across::Sum,
        },
    ],
    process: Process {
        commands: &[Command::Program("llama-server")],
        default_port: 8080,
        model_options: &["--alias", "-a", "-hf", "--hf-repo", "-m", "--model"],
    },
};
