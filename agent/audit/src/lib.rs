//! The audit log: records, the Merkle tree over them, signed checkpoints, and the verifier.
//!
//! The log is a transparency log in the public C2SP formats (signed notes, checkpoints, RFC 6962 hashing), kept in
//! append-only segment files. `docs/audit-format.md` describes every byte of it, so that anyone can write a verifier.
//!
//! From the bytes up:
//! [`merkle`] hashes, [`note`] signs, [`checkpoint`] says what a tree is;
//! [`frame`] and [`segment`] lay bytes out in files, [`record`] turns an OCSF event into sealed bytes;
//! [`log`] writes, [`reader`] reads by cursor, [`verify`](mod@verify) proves.
//!
//! What is not here: no clock is read (time is passed in), no thread is started, nothing waits, nothing is sent, and
//! what an event *means* is the caller's business: this crate adds the chain fields and keeps the exact bytes.
#![forbid(unsafe_code)]

mod chain;
pub mod checkpoint;
mod files;
pub mod frame;
pub mod log;
pub mod merkle;
pub mod note;
pub mod reader;
pub mod record;
mod recovery;
pub mod report;
pub mod segment;
pub mod verify;
mod writer;

pub use chain::Violation;
pub use log::{Appended, Log, LogError, Options};
pub use note::{SigningKey, VerifierKey};
pub use reader::Reader;
pub use record::{Draft, MAX_RECORD_BYTES};
pub use recovery::Recovery;
pub use report::{Report, Verdict};
pub use verify::verify;
