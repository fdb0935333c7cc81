//! The log as its users meet it: written, read, damaged, recovered, verified.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure, also in its helpers")]

mod commands;
mod documentation;
mod forging;
mod independent;
mod proving;
mod pruning;
mod reading;
mod recovery;
mod support;
mod tampering;
mod trust;
mod writing;
