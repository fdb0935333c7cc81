//! What a token costs, idle time included. Pure but for `kept`: samples and the time come in, points go out.
//!
//! | file | its one job |
//! |---|---|
//! | `currency` | ISO 4217 codes |
//! | `prices` | the `prices` part of the configuration |
//! | `cumulative` | counters that survive resets, and sums over the last while |
//! | `ledger` | what was spent and for how many tokens |
//! | `kept` | the ledger over a restart of the daemon |
//!
//! The formula, over a window of five minutes and since the start:
//!
//! ```text
//! cost per token = Σ price per hour × hours ÷ tokens
//! energy per token = Σ GPU energy ÷ tokens
//! ```
//!
//! # Worked example
//!
//! One GPU at 3.60 EUR an hour, five minutes, of them two minutes idle. The engine computed 40 000 prompt tokens and
//! generated 60 000; the GPU drew 400 W on average.
//!
//! * spend: 3.60 EUR/h × 300 s ÷ 3600 s/h = 0.30 EUR, the idle minutes included
//! * per generated token: 0.30 EUR ÷ 60 000 = 0.000 005 EUR
//! * per token of any kind: 0.30 EUR ÷ (40 000 + 60 000) = 0.000 003 EUR
//! * energy: 400 W × 300 s = 120 000 J; 120 000 J ÷ 60 000 = 2 J per generated token
//!
//! The test `the_worked_example` holds these very numbers. What the numbers assume is in `docs/cost.md`.

mod cumulative;
mod currency;
mod kept;
mod ledger;
mod prices;

pub use currency::Currency;
pub use kept::LedgerFile;
pub use ledger::Ledger;
pub use prices::{GpuPattern, GpuPrice, PerHour, PriceBook, PriceError};
