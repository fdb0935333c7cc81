//! What a log says of itself, in records: keys, recoveries, prunings.
//!
//! A statement is the object `unmapped.plumbline.statement` of a record of class 1008. It is set by the log alone, as the
//! chain fields are, and it is what the verifier acts on; the event around it, which the [`Keeper`] makes, is for people
//! and SIEMs. Pruning never removes such a record.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One thing that the log declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    Epoch(Epoch),
    Recovered(Recovered),
    Pruned(Pruned),
}

/// From the checkpoint after this record on, a new key signs beside the node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// 0, 1, 2, … without a gap.
    pub number: u64,
    /// The verifier key of the epoch; its name is `<origin>/e<number>`.
    pub key: String,
    pub opened_by: Opener,
    /// No more records than this are ever unsigned while this epoch lasts.
    pub max_unsigned: u64,
}

/// Whose signature vouches for a new epoch's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opener {
    /// The key of the epoch before: an unbroken chain.
    Epoch,
    /// The node's key alone, because the epoch before ended with its process.
    Node,
}

/// The writer before did not close the log; records that it had not made durable may be missing before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The last record that was found whole.
    pub last_seq: Option<u64>,
    /// Records that the last checkpoint before covers; what was found beyond it was not signed by its own epoch.
    pub signed: u64,
    /// Bytes of an unfinished final frame that were dropped.
    pub dropped_bytes: u64,
}

/// The bytes of records `from` to before `to`, which are one segment, are removed; their leaf hashes stay. Records of the
/// log's own life (classes 1008 and 6002) among them stay too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    pub from: u64,
    pub to: u64,
    /// How many of the records stay, …
    pub kept: u64,
    /// … and SHA-256 over their leaf hashes in order, hexadecimal: none of them can be taken for pruned.
    pub kept_sha256: String,
    /// Why, in words.
    pub reason: String,
}

impl Statement {
    /// What this statement is about, in one word: the `kind` of its record.
    pub fn kind(&self) -> &'static str {
        match self {
            Statement::Epoch(_) => "epoch",
            Statement::Recovered(_) => "recovered",
            Statement::Pruned(_) => "pruned",
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Epoch(Epoch { number, opened_by: Opener::Epoch, .. }) => {
                write!(f, "epoch {number} begins, vouched for by the key of epoch {}", number.saturating_sub(1))
            }
            Statement::Epoch(Epoch { number, .. }) => write!(f, "epoch {number} begins, vouched for by the node's key"),
            Statement::Recovered(Recovered { last_seq: Some(seq), dropped_bytes, .. }) => write!(
                f,
                "the log was not closed: it is recovered up to record {seq}, {dropped_bytes} bytes of an unfinished frame \
                 dropped; records that were not yet durable may be missing"
            ),
            Statement::Recovered(_) => write!(f, "the log was not closed, and it held no record"),
            Statement::Pruned(Pruned { from, to, reason, .. }) => {
                write!(f, "records {from} to {} are pruned: {reason}", to.saturating_sub(1))
            }
        }
    }
}

/// Makes the events around the log's statements: whoever opens a log knows its schema, its clock and its node.
pub trait Keeper: fmt::Debug + Send + Sync {
    /// The event that carries `statement`. Its `class_uid` must be 1008; the statement itself is put in by the log.
    fn event(&self, statement: &Statement) -> Map<String, Value>;
}

/// A keeper that says the least: class, kind, message. For tests and tools.
#[derive(Clone, Copy, Debug)]
pub struct PlainKeeper;

impl Keeper for PlainKeeper {
    fn event(&self, statement: &Statement) -> Map<String, Value> {
        let own = Map::from_iter([("kind".to_owned(), Value::from(statement.kind()))]);
        let unmapped = Map::from_iter([("plumbline".to_owned(), own.into())]);
        Map::from_iter([
            ("class_uid".to_owned(), crate::record::EVENT_LOG_ACTIVITY.into()),
            ("message".to_owned(), statement.to_string().into()),
            ("unmapped".to_owned(), unmapped.into()),
        ])
    }
}
