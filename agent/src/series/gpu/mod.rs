//! What the GPUs' driver says of them, one file per subject.
//!
//! `UUID` names the GPU and `gpu` is its index, as dcgm-exporter has them, so that both join; an index may mean another
//! GPU after a restart of the driver. `simulated` is `true` when the library that answers is the test bench's, so that no
//! made-up number passes for a measured one. A GPU that does not know an answer has no such series: absent is not zero.
//!
//! Which call or field each number comes from, on which hardware, and how often it is read: `docs/gpu-series.md`, from
//! the questions in `agent/src/gpu/question`.

pub mod activity;
pub mod clock;
pub mod dcgm;
pub mod ecc;
pub mod fabric;
pub mod holder;
pub mod identity;
pub mod memory;
pub mod mig;
pub mod nvlink;
pub mod pcie;
pub mod power;
pub mod process;
pub mod temperature;
pub mod throttle;
pub mod xid;

use super::{Kind, Series, Unit};

/// The labels that every series of a GPU begins with.
pub const GPU: &[&str] = &["UUID", "gpu", "simulated"];

/// A number of now.
const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    otel: &'static str,
    source: &'static str,
    help: &'static str,
) -> Series {
    Series { name, kind: Kind::Gauge, unit, help, source, otel, labels }
}

/// A number that the driver or the GPU counts up: what happened between two readings is in it.
const fn counter(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    otel: &'static str,
    source: &'static str,
    help: &'static str,
) -> Series {
    Series { name, kind: Kind::Counter, unit, help, source, otel, labels }
}
