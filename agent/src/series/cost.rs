//! What the node's compute costs, in money and in energy, and per token.
//!
//! `basis` says what has a price: `gpu` (every GPU of the node), `gpu_simulated` (the same from a simulated driver)
//! or `node` (a node without GPU). The node's spend is shared by tokens: a token costs the same in all engines.
//! `docs/cost.md` has the formula and a worked example.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] =
    &[&TOTAL, &PER_HOUR, &PER_TOKEN, &WINDOW_TOKENS, &WINDOW_SECONDS, &ENERGY_PER_TOKEN_JOULES];

pub static TOTAL: Series = Series {
    name: "plumbline_cost_total",
    kind: Kind::Counter,
    unit: Unit::Currency,
    help: "Money spent on the priced compute since the ledger began, idle time included; time without a known \
           price is not in it.",
    source: "configured prices, GPUs present, boot clock",
    otel: "plumbline.cost",
    labels: &["currency", "basis"],
};

pub static PER_HOUR: Series = Series {
    name: "plumbline_cost_per_hour",
    kind: Kind::Gauge,
    unit: Unit::Currency,
    help: "What the priced compute costs per hour now; absent while something in use has no price.",
    source: "configured prices, GPUs present",
    otel: "plumbline.cost.per_hour",
    labels: &["currency", "basis"],
};

pub static PER_TOKEN: Series = Series {
    name: "plumbline_cost_per_token",
    kind: Kind::Gauge,
    unit: Unit::Currency,
    help: "Effective cost of one token: the node's spend in the window, idle time included, by the tokens of all its \
           engines (shared by tokens); kind=generated, or all = computed prompt tokens and generated. Absent without \
           tokens.",
    source: "plumbline_cost_total, plumbline_engine_generation_tokens_total, plumbline_engine_prompt_tokens_total",
    otel: "plumbline.cost.per_token",
    labels: &["currency", "basis", "engine", "model", "kind", "window"],
};

pub static WINDOW_TOKENS: Series = Series {
    name: "plumbline_cost_window_tokens",
    kind: Kind::Gauge,
    unit: Unit::Tokens,
    help: "Tokens in the window, as the cost per token counts them.",
    source: "plumbline_engine_generation_tokens_total, plumbline_engine_prompt_tokens_total",
    otel: "plumbline.cost.window.tokens",
    labels: &["engine", "model", "kind", "window"],
};

pub static WINDOW_SECONDS: Series = Series {
    name: "plumbline_cost_window_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    help: "How much time the window really covers: less than its name while the ledger is young, \
           more where no daemon ran.",
    source: "boot clock",
    otel: "plumbline.cost.window.duration",
    labels: &["window"],
};

pub static ENERGY_PER_TOKEN_JOULES: Series = Series {
    name: "plumbline_energy_per_token_joules",
    kind: Kind::Gauge,
    unit: Unit::Joules,
    help: "Energy of all GPUs in the window, idle time included, by the tokens of all engines of the node; absent \
           unless every GPU reports energy.",
    source: "plumbline_gpu_energy_joules_total, plumbline_engine_generation_tokens_total, \
             plumbline_engine_prompt_tokens_total",
    otel: "plumbline.energy.per_token",
    labels: &["engine", "model", "kind", "window"],
};
