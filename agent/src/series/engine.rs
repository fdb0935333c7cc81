//! What serving engines say of themselves, in one vocabulary, and what the daemon says of the asking.
//!
//! `engine` is the name of the target in the configuration, or the one discovery gave it; `model` is empty where
//! neither the engine's page nor its command line names one.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] = &[
    &REQUESTS_RUNNING,
    &REQUESTS_WAITING,
    &KV_CACHE_USAGE_RATIO,
    &PROMPT_TOKENS_TOTAL,
    &PROMPT_TOKENS_CACHED_TOTAL,
    &GENERATION_TOKENS_TOTAL,
    &TIME_TO_FIRST_TOKEN_SECONDS,
    &INTER_TOKEN_LATENCY_SECONDS,
    &UP,
    &SCRAPE_ERRORS_TOTAL,
    &SCRAPE_DURATION_SECONDS,
    &SAMPLE_AGE_SECONDS,
    &UNUSABLE_LINES_TOTAL,
];

const ENGINE_MODEL: &[&str] = &["engine", "model"];
const ENGINE: &[&str] = &["engine"];

pub static REQUESTS_RUNNING: Series = Series {
    name: "plumbline_engine_requests_running",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Requests in the engine's running batch.",
    source: "vLLM num_requests_running, llama.cpp requests_processing",
    otel: "plumbline.engine.requests.running",
    labels: ENGINE_MODEL,
};

pub static REQUESTS_WAITING: Series = Series {
    name: "plumbline_engine_requests_waiting",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Requests that the engine has accepted and not yet begun.",
    source: "vLLM num_requests_waiting, llama.cpp requests_deferred",
    otel: "plumbline.engine.requests.waiting",
    labels: ENGINE_MODEL,
};

pub static KV_CACHE_USAGE_RATIO: Series = Series {
    name: "plumbline_engine_kv_cache_usage_ratio",
    kind: Kind::Gauge,
    unit: Unit::Ratio,
    help: "Share of the KV cache that is in use, 0 to 1; of several engine ranks the fullest.",
    source: "vLLM kv_cache_usage_perc; llama.cpp has none",
    otel: "plumbline.engine.kv_cache.usage",
    labels: ENGINE_MODEL,
};

pub static PROMPT_TOKENS_TOTAL: Series = Series {
    name: "plumbline_engine_prompt_tokens_total",
    kind: Kind::Counter,
    unit: Unit::Tokens,
    help: "Prompt tokens that the engine computed; tokens served from a cache are not among them.",
    source: "vLLM prompt_tokens_by_source_total{source=local_compute}, llama.cpp prompt_tokens_total",
    otel: "plumbline.engine.prompt_tokens",
    labels: ENGINE_MODEL,
};

pub static PROMPT_TOKENS_CACHED_TOTAL: Series = Series {
    name: "plumbline_engine_prompt_tokens_cached_total",
    kind: Kind::Counter,
    unit: Unit::Tokens,
    help: "Prompt tokens that the engine took from a cache instead of computing them.",
    source: "vLLM prompt_tokens_cached_total, llama.cpp prompt_tokens_cached_total",
    otel: "plumbline.engine.prompt_tokens_cached",
    labels: ENGINE_MODEL,
};

pub static GENERATION_TOKENS_TOTAL: Series = Series {
    name: "plumbline_engine_generation_tokens_total",
    kind: Kind::Counter,
    unit: Unit::Tokens,
    help: "Tokens that the engine generated; vLLM counts them at each step, llama.cpp when a request finishes.",
    source: "vLLM generation_tokens_total, llama.cpp tokens_predicted_total",
    otel: "plumbline.engine.generation_tokens",
    labels: ENGINE_MODEL,
};

pub static TIME_TO_FIRST_TOKEN_SECONDS: Series = Series {
    name: "plumbline_engine_time_to_first_token_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Time from a request's arrival at the engine to its first token, in the engine's own buckets.",
    source: "vLLM time_to_first_token_seconds; llama.cpp has none",
    otel: "plumbline.engine.time_to_first_token",
    labels: ENGINE_MODEL,
};

pub static INTER_TOKEN_LATENCY_SECONDS: Series = Series {
    name: "plumbline_engine_inter_token_latency_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Time between successive outputs of a request, in the engine's own buckets; one output may hold several \
           tokens under speculative decoding.",
    source: "vLLM inter_token_latency_seconds; llama.cpp has none",
    otel: "plumbline.engine.inter_token_latency",
    labels: ENGINE_MODEL,
};

pub static UP: Series = Series {
    name: "plumbline_engine_up",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Whether the newest scrape of the engine gave a page that a dialect understands (1) or not (0).",
    source: "the scrape",
    otel: "plumbline.engine.up",
    labels: ENGINE,
};

pub static SCRAPE_ERRORS_TOTAL: Series = Series {
    name: "plumbline_engine_scrape_errors_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Scrapes of the engine that gave nothing, by reason.",
    source: "the scrape",
    otel: "plumbline.engine.scrape_errors",
    labels: &["engine", "reason"],
};

pub static SCRAPE_DURATION_SECONDS: Series = Series {
    name: "plumbline_engine_scrape_duration_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    help: "How long the newest scrape took, from connecting to the last byte or the error.",
    source: "the scrape",
    otel: "plumbline.engine.scrape_duration",
    labels: ENGINE,
};

pub static SAMPLE_AGE_SECONDS: Series = Series {
    name: "plumbline_engine_sample_age_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    help: "Age of the newest good reading of the engine at the end of the newest scrape; absent before the first.",
    source: "the scrape",
    otel: "plumbline.engine.sample_age",
    labels: ENGINE,
};

pub static UNUSABLE_LINES_TOTAL: Series = Series {
    name: "plumbline_engine_unusable_lines_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Lines of the engine's pages that were not valid text, stood twice, or held a value that their kind cannot \
           have.",
    source: "the scrape",
    otel: "plumbline.engine.unusable_lines",
    labels: ENGINE,
};
