//! The audit log: records, the Merkle tree over them, signed checkpoints, and the verifier.
//!
//! The log is a transparency log in the public C2SP formats (signed notes, checkpoints, RFC 6962 hashing), kept in
//! append-only segment files. `docs/audit-format.md` describes every byte of it, so that anyone can write a verifier.
//!
//! From the bytes up:
//! [`merkle`] hashes, [`key`] and [`note`] sign, [`checkpoint`] says what a tree is, [`proof`] what is in it;
//! [`frame`] and [`segment`] lay bytes out in files, [`record`] turns an OCSF event into sealed bytes, [`statement`] is
//! what the log says of itself; [`log`] writes, [`reader`] reads by cursor, [`verify`](mod@verify) proves; [`tlog_proof`]
//! and [`tiles`] carry proofs elsewhere, and [`witness`] signs there what this log said.
//!
//! What is not here: no clock is read (time is passed in), nothing waits, nothing is sent, and what an event *means* is
//! the caller's business: this crate adds the chain fields and keeps the exact bytes. Only verifying starts threads.
#![forbid(unsafe_code)]

mod chain;
pub mod checkpoint;
mod epoch;
pub mod evidence;
mod files;
pub mod frame;
pub mod key;
mod leaves;
pub mod log;
pub mod merkle;
pub mod note;
mod options;
pub mod proof;
pub mod prune;
pub mod reader;
pub mod record;
mod recovery;
pub mod report;
pub mod segment;
pub mod statement;
pub mod tiles;
pub mod tlog_proof;
mod tree;
pub mod verify;
pub mod witness;
mod writer;

pub use chain::Violation;
pub use epoch::SeedSource;
pub use key::{SigningKey, VerifierKey};
pub use log::{Appended, Log, LogError};
pub use options::Options;
pub use reader::Reader;
pub use record::{Draft, MAX_RECORD_BYTES};
pub use recovery::Recovery;
pub use report::{Report, Verdict};
pub use statement::Statement;
pub use tree::TreeReader;
pub use verify::verify;
