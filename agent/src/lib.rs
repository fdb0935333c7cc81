//! The daemon, stage by stage, in the order in which data meets them; `ARCHITECTURE.md` has the map.

pub mod clock;
pub mod event;
pub mod identity;
pub mod message;
pub mod probes;
pub mod series;
