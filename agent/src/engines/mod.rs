//! Scrapes serving engines and translates each dialect into one vocabulary, [`crate::series::engine`].
//!
//! | file | its one job |
//! |---|---|
//! | `config` | the `engines` part of the configuration |
//! | `access`, `connect` | how a page is reached: TLS, tokens, unix sockets, other network namespaces; the stream to it |
//! | `discover` | engine processes of this node and where they listen |
//! | `scrape` | one bounded HTTP request for a page |
//! | `translate` | a page into canonical points, by a dialect's table |
//! | `dialect/` | one table per engine; a new engine is one file and its entry there |
//! | `watch` | the tasks: one per engine, one for discovery; the only place with a clock |
//!
//! Of each engine two samples leave, both as [`crate::message::Message::Sample`]: `engine:<name>` is what the engine
//! said, or why it said nothing; `scrape:<name>` is how the asking went, and is always there.

pub mod access;
pub mod config;
mod connect;
pub mod dialect;
pub mod discover;
pub mod scrape;
pub mod translate;
mod watch;

pub use watch::{Places, run};
