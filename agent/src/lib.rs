//! The daemon, stage by stage, in the order in which data meets them; `ARCHITECTURE.md` has the map.

pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod cost;
pub mod custody;
pub mod daemon;
pub mod diagnose;
pub mod engines;
pub mod event;
pub mod gpu;
pub mod http;
pub mod identity;
pub mod incident;
pub mod infiniband;
pub mod kubelet;
pub mod message;
pub mod own;
pub mod patience;
pub mod probes;
pub mod record;
pub mod review;
pub mod series;
pub mod ship;
pub mod upkeep;
pub mod verdict;
