//! What serving engines say of themselves, in one vocabulary, and what the daemon says of the asking.
//!
//! `engine` is the name of the target in the configuration, or the one discovery gave it; `model` is empty where
//! neither the engine's page nor its command line names one. Which of an engine's metrics each comes from, and what its numbers
//! mean there: `docs/engines.md`, from the tables in `agent/src/engines/dialect`.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] = &[
    &REQUESTS_RUNNING,
    &REQUESTS_WAITING,
    &REQUESTS_WAITING_BY_REASON,
    &REQUESTS_MAX,
    &KV_CACHE_USAGE_RATIO,
    &KV_CACHE_CAPACITY_TOKENS,
    &PREEMPTIONS_TOTAL,
    &PROMPT_TOKENS_TOTAL,
    &PROMPT_TOKENS_CACHED_TOTAL,
    &GENERATION_TOKENS_TOTAL,
    &REQUESTS_FINISHED_TOTAL,
    &REQUESTS_REJECTED_TOTAL,
    &HTTP_REQUESTS_TOTAL,
    &PREFIX_CACHE_QUERY_TOKENS_TOTAL,
    &PREFIX_CACHE_HIT_TOKENS_TOTAL,
    &SPECULATIVE_DRAFTS_TOTAL,
    &SPECULATIVE_DRAFT_TOKENS_TOTAL,
    &SPECULATIVE_ACCEPTED_TOKENS_TOTAL,
    &SPECULATIVE_ACCEPTANCE_RATIO,
    &STEPS_TOTAL,
    &STEP_TOKENS_TOTAL,
    &BUSY_SECONDS_TOTAL,
    &IDLE_SECONDS_TOTAL,
    &TIME_TO_FIRST_TOKEN_SECONDS,
    &INTER_TOKEN_LATENCY_SECONDS,
    &TIME_PER_OUTPUT_TOKEN_SECONDS,
    &REQUEST_DURATION_SECONDS,
    &QUEUE_TIME_SECONDS,
    &PREFILL_TIME_SECONDS,
    &DECODE_TIME_SECONDS,
    &REQUEST_PROMPT_TOKENS,
    &REQUEST_GENERATION_TOKENS,
    &INFO,
    &UP,
    &SCRAPE_ERRORS_TOTAL,
    &SCRAPE_DURATION_SECONDS,
    &SAMPLE_AGE_SECONDS,
    &UNUSABLE_LINES_TOTAL,
    &UNMAPPED_FAMILIES,
];

/// The labels that every series of an engine's page begins with.
pub const ENGINE_MODEL: &[&str] = &["engine", "model"];
const ENGINE: &[&str] = &["engine"];
const REASON: &[&str] = &["engine", "model", "reason"];
const PHASE: &[&str] = &["engine", "model", "phase"];

/// A number of an engine's page; which metric it is there, its dialect says.
const fn said(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    otel: &'static str,
    help: &'static str,
) -> Series {
    Series { name, kind, unit, help, source: "the engine's page; docs/engines.md", otel, labels }
}

/// What the daemon says of the asking.
const fn asked(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    otel: &'static str,
    help: &'static str,
) -> Series {
    Series { name, kind, unit, help, source: "the scrape", otel, labels }
}

pub static REQUESTS_RUNNING: Series = said(
    "plumbline_engine_requests_running",
    Kind::Gauge,
    Unit::None,
    ENGINE_MODEL,
    "plumbline.engine.requests.running",
    "Requests in the engine's running batch.",
);

pub static REQUESTS_WAITING: Series = said(
    "plumbline_engine_requests_waiting",
    Kind::Gauge,
    Unit::None,
    ENGINE_MODEL,
    "plumbline.engine.requests.waiting",
    "Requests that the engine has accepted and not yet begun.",
);

pub static REQUESTS_WAITING_BY_REASON: Series = said(
    "plumbline_engine_requests_waiting_by_reason",
    Kind::Gauge,
    Unit::None,
    REASON,
    "plumbline.engine.requests.waiting.by_reason",
    "The same by why they wait: for `capacity`, or `deferred` by something else (adapters, transfers, what blocks \
     them).",
);

pub static REQUESTS_MAX: Series = said(
    "plumbline_engine_requests_max",
    Kind::Gauge,
    Unit::None,
    ENGINE_MODEL,
    "plumbline.engine.requests.max",
    "Requests that the engine runs at once, at most.",
);

pub static KV_CACHE_USAGE_RATIO: Series = said(
    "plumbline_engine_kv_cache_usage_ratio",
    Kind::Gauge,
    Unit::Ratio,
    ENGINE_MODEL,
    "plumbline.engine.kv_cache.usage",
    "Share of the KV cache that is in use, 0 to 1; of several engine ranks the fullest.",
);

pub static KV_CACHE_CAPACITY_TOKENS: Series = said(
    "plumbline_engine_kv_cache_capacity_tokens",
    Kind::Gauge,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.kv_cache.capacity",
    "Tokens that the KV cache holds.",
);

pub static PREEMPTIONS_TOTAL: Series = said(
    "plumbline_engine_preemptions_total",
    Kind::Counter,
    Unit::None,
    ENGINE_MODEL,
    "plumbline.engine.preemptions",
    "Running requests that the engine put back because the KV cache was full.",
);

pub static PROMPT_TOKENS_TOTAL: Series = said(
    "plumbline_engine_prompt_tokens_total",
    Kind::Counter,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.prompt_tokens",
    "Prompt tokens that the engine computed; tokens served from a cache are not among them, but where the engine \
     does not tell them apart.",
);

pub static PROMPT_TOKENS_CACHED_TOTAL: Series = said(
    "plumbline_engine_prompt_tokens_cached_total",
    Kind::Counter,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.prompt_tokens_cached",
    "Prompt tokens that the engine took from a cache instead of computing them.",
);

pub static GENERATION_TOKENS_TOTAL: Series = said(
    "plumbline_engine_generation_tokens_total",
    Kind::Counter,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.generation_tokens",
    "Tokens that the engine generated; some count them at each step, some when a request finishes.",
);

pub static REQUESTS_FINISHED_TOTAL: Series = said(
    "plumbline_engine_requests_finished_total",
    Kind::Counter,
    Unit::None,
    REASON,
    "plumbline.engine.requests.finished",
    "Requests that ended: `stop`, `length`, `abort`, `error`, `unspecified` where the engine counts without a \
     reason, `other`. What a client gave up may be in none.",
);

pub static REQUESTS_REJECTED_TOTAL: Series = said(
    "plumbline_engine_requests_rejected_total",
    Kind::Counter,
    Unit::None,
    REASON,
    "plumbline.engine.requests.rejected",
    "Requests that the engine refused to queue, by its own reason.",
);

pub static HTTP_REQUESTS_TOTAL: Series = said(
    "plumbline_engine_http_requests_total",
    Kind::Counter,
    Unit::None,
    &["engine", "model", "status"],
    "plumbline.engine.http.requests",
    "Answers of the engine's HTTP server, by the class of their status (`2xx`).",
);

pub static PREFIX_CACHE_QUERY_TOKENS_TOTAL: Series = said(
    "plumbline_engine_prefix_cache_query_tokens_total",
    Kind::Counter,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.prefix_cache.query_tokens",
    "Prompt tokens that were looked for in the prefix cache.",
);

pub static PREFIX_CACHE_HIT_TOKENS_TOTAL: Series = said(
    "plumbline_engine_prefix_cache_hit_tokens_total",
    Kind::Counter,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.prefix_cache.hit_tokens",
    "Prompt tokens that were found in the prefix cache.",
);

pub static SPECULATIVE_DRAFTS_TOTAL: Series = said(
    "plumbline_engine_speculative_drafts_total",
    Kind::Counter,
    Unit::None,
    ENGINE_MODEL,
    "plumbline.engine.speculative.drafts",
    "Drafts of speculative decoding.",
);

pub static SPECULATIVE_DRAFT_TOKENS_TOTAL: Series = said(
    "plumbline_engine_speculative_draft_tokens_total",
    Kind::Counter,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.speculative.draft_tokens",
    "Tokens that were drafted.",
);

pub static SPECULATIVE_ACCEPTED_TOKENS_TOTAL: Series = said(
    "plumbline_engine_speculative_accepted_tokens_total",
    Kind::Counter,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.speculative.accepted_tokens",
    "Drafted tokens that were accepted.",
);

pub static SPECULATIVE_ACCEPTANCE_RATIO: Series = said(
    "plumbline_engine_speculative_acceptance_ratio",
    Kind::Gauge,
    Unit::Ratio,
    ENGINE_MODEL,
    "plumbline.engine.speculative.acceptance",
    "Share of drafted tokens that were accepted lately, where the engine says only that, 0 to 1.",
);

pub static STEPS_TOTAL: Series = said(
    "plumbline_engine_steps_total",
    Kind::Counter,
    Unit::None,
    ENGINE_MODEL,
    "plumbline.engine.steps",
    "Steps of the engine's scheduler: forward passes of a batch.",
);

pub static STEP_TOKENS_TOTAL: Series = said(
    "plumbline_engine_step_tokens_total",
    Kind::Counter,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.step_tokens",
    "Tokens of all steps, prompts and outputs; by `plumbline_engine_steps_total`, the size of a batch in tokens.",
);

pub static BUSY_SECONDS_TOTAL: Series = said(
    "plumbline_engine_busy_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    PHASE,
    "plumbline.engine.busy.time",
    "Time that the engine computed, by phase (`prefill`, `decode`, `mixed`); wall time of the GPU, or of each request's slot, as \
     docs/engines.md says.",
);

pub static IDLE_SECONDS_TOTAL: Series = said(
    "plumbline_engine_idle_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    ENGINE_MODEL,
    "plumbline.engine.idle.time",
    "Time that the engine's scheduler had nothing to do.",
);

pub static TIME_TO_FIRST_TOKEN_SECONDS: Series = said(
    "plumbline_engine_time_to_first_token_seconds",
    Kind::Histogram,
    Unit::Seconds,
    ENGINE_MODEL,
    "plumbline.engine.time_to_first_token",
    "Time from a request's arrival at the engine to its first token, in the engine's own buckets.",
);

pub static INTER_TOKEN_LATENCY_SECONDS: Series = said(
    "plumbline_engine_inter_token_latency_seconds",
    Kind::Histogram,
    Unit::Seconds,
    ENGINE_MODEL,
    "plumbline.engine.inter_token_latency",
    "Time between successive outputs of a request, in the engine's own buckets; one output may hold several \
     tokens under speculative decoding.",
);

pub static TIME_PER_OUTPUT_TOKEN_SECONDS: Series = said(
    "plumbline_engine_time_per_output_token_seconds",
    Kind::Histogram,
    Unit::Seconds,
    ENGINE_MODEL,
    "plumbline.engine.time_per_output_token",
    "Mean time per token after the first, one observation for each request, in the engine's own buckets.",
);

pub static REQUEST_DURATION_SECONDS: Series = said(
    "plumbline_engine_request_duration_seconds",
    Kind::Histogram,
    Unit::Seconds,
    ENGINE_MODEL,
    "plumbline.engine.request.duration",
    "Time from a request's arrival to its end, in the engine's own buckets.",
);

pub static QUEUE_TIME_SECONDS: Series = said(
    "plumbline_engine_queue_time_seconds",
    Kind::Histogram,
    Unit::Seconds,
    ENGINE_MODEL,
    "plumbline.engine.queue_time",
    "Time that a request waited before it was begun, in the engine's own buckets.",
);

pub static PREFILL_TIME_SECONDS: Series = said(
    "plumbline_engine_prefill_time_seconds",
    Kind::Histogram,
    Unit::Seconds,
    ENGINE_MODEL,
    "plumbline.engine.prefill_time",
    "Time that a request spent on its prompt, in the engine's own buckets.",
);

pub static DECODE_TIME_SECONDS: Series = said(
    "plumbline_engine_decode_time_seconds",
    Kind::Histogram,
    Unit::Seconds,
    ENGINE_MODEL,
    "plumbline.engine.decode_time",
    "Time that a request spent on its output after the first token, in the engine's own buckets.",
);

pub static REQUEST_PROMPT_TOKENS: Series = said(
    "plumbline_engine_request_prompt_tokens",
    Kind::Histogram,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.request.prompt_tokens",
    "Prompt tokens of a request, in the engine's own buckets.",
);

pub static REQUEST_GENERATION_TOKENS: Series = said(
    "plumbline_engine_request_generation_tokens",
    Kind::Histogram,
    Unit::Tokens,
    ENGINE_MODEL,
    "plumbline.engine.request.generation_tokens",
    "Generated tokens of a request, in the engine's own buckets.",
);

pub static INFO: Series = asked(
    "plumbline_engine_info",
    Kind::Gauge,
    Unit::None,
    &["engine", "dialect", "version", "url"],
    "plumbline.engine.info",
    "Always 1: an engine that answers, the dialect of its page and what its names tell of its version.",
);

pub static UP: Series = asked(
    "plumbline_engine_up",
    Kind::Gauge,
    Unit::None,
    ENGINE,
    "plumbline.engine.up",
    "Whether the newest scrape of the engine gave a page that a dialect understands (1) or not (0).",
);

pub static SCRAPE_ERRORS_TOTAL: Series = asked(
    "plumbline_engine_scrape_errors_total",
    Kind::Counter,
    Unit::None,
    &["engine", "reason"],
    "plumbline.engine.scrape_errors",
    "Scrapes of the engine that gave nothing, by reason.",
);

pub static SCRAPE_DURATION_SECONDS: Series = asked(
    "plumbline_engine_scrape_duration_seconds",
    Kind::Gauge,
    Unit::Seconds,
    ENGINE,
    "plumbline.engine.scrape_duration",
    "How long the newest scrape took, from connecting to the last byte or the error.",
);

pub static SAMPLE_AGE_SECONDS: Series = asked(
    "plumbline_engine_sample_age_seconds",
    Kind::Gauge,
    Unit::Seconds,
    ENGINE,
    "plumbline.engine.sample_age",
    "Age of the newest good reading of the engine at the end of the newest scrape; absent before the first.",
);

pub static UNUSABLE_LINES_TOTAL: Series = asked(
    "plumbline_engine_unusable_lines_total",
    Kind::Counter,
    Unit::None,
    ENGINE,
    "plumbline.engine.unusable_lines",
    "Lines of the engine's pages that were not valid text, stood twice, or held a value that their kind cannot \
     have.",
);

pub static UNMAPPED_FAMILIES: Series = asked(
    "plumbline_engine_unmapped_families",
    Kind::Gauge,
    Unit::None,
    ENGINE,
    "plumbline.engine.unmapped_families",
    "Metrics of the engine's newest page, by name, that the dialect has no use for; `plumbline engines explain` \
     names them.",
);
