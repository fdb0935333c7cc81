//! The policy language of Plumbline: what a user writes in YAML, checked offline and evaluated against events.
//!
//! The flow, one file per step:
//!
//! | step | file |
//! |---|---|
//! | text → tree of nodes that know their place | [`yaml`] |
//! | tree → checked [`Policy`], every mistake collected | [`parse`], [`fields`] |
//! | several policies → one [`PolicySet`] | [`set`] |
//! | [`Facts`] of an event → [`Verdict`] | [`decide`] |
//! | a directory → [`CheckReport`], the policies' own tests run | [`mod@check`], [`test_case`] |
//!
//! Beside the flow, each in its own file: [`shape`] is the grammar as data, from which [`schema`] makes the JSON Schema
//! and the reference page; [`subject`] and [`object`] hold the selectors of who and what; [`lists`], [`exceptions`] and
//! [`documents`] are what several files say together; [`guard`], [`lint`] and [`requires`] are what is refused or warned
//! of before it is in force; [`compile`] is what of it the kernel decides; [`index`] keeps a decision cheap and [`mod@explain`] says why it fell; [`learn`] and
//! [`tetragon`] write policies.
//!
//! It does not watch directories, read `/proc`, or talk to the kernel: facts come in, verdicts go out. It compiles on
//! any operating system, needs no privileges, and holds no `unsafe`. The language is described for its users in
//! `docs/policies.md`.

#![forbid(unsafe_code)]

mod check;
mod compile;
mod decide;
mod destination;
mod documents;
mod exceptions;
mod explain;
mod facts;
mod fields;
mod guard;
mod index;
mod learn;
mod lint;
mod lists;
mod object;
mod occurrence;
mod parse;
mod pattern;
mod policy;
mod ports;
mod problem;
mod requires;
mod schema;
mod set;
mod shape;
mod subject;
mod template;
mod test_case;
mod tetragon;
mod yaml;

pub use check::{CheckReport, TestOutcome, check};
pub use compile::{
    Clauses, Denials, MAX_EXCEPTIONS, MAX_NARROW, MAX_NETWORKS, MAX_PORTS, MAX_USERS, MAX_WIDE, NARROW_WORDS,
    TooManyDenials,
};
pub use decide::{Matched, Telling, Verdict};
pub use explain::{Explanation, RuleSays};
pub use facts::{
    Access, Accesses, Ancestor, BpfHow, BpfKind, DeviceKind, Facts, File, MemoryHow, Object, Pod, Protocol, Subject,
    Taken,
};
pub use learn::Learner;
pub use object::finding::FINDINGS;
pub use occurrence::{Occurrence, OwnedObject, OwnedPod, OwnedSubject, OwnedTaken};
pub use pattern::WatchPath;
pub use policy::{Effect, Mode, Otherwise, Policy, Severity};
pub use ports::prefixes;
pub use problem::{InvalidPolicy, Problem};
pub use requires::{KernelProfile, Need, Unmet};
pub use schema::{json_schema, reference};
pub use set::{EMBEDDED, LoadError, MAX_POLICIES, PolicySet};
pub use tetragon::import_tetragon;
pub use yaml::MAX_DOCUMENT_BYTES;
