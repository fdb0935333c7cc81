//! C2SP tlog-proof: one record's place in a signed tree, in a file that proves itself offline.
//!
//! Layout: <https://c2sp.org/tlog-proof>. `c2sp.org/tlog-proof@v1`, an optional line `extra <base64>`, `index <number>`,
//! one base64 hash a line from the leaf's sibling to the root's child, an empty line, the checkpoint as it was signed.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, parse_size};
use crate::key::VerifierKey;
use crate::leaves::{self, Leaves};
use crate::log::CHECKPOINT_FILE;
use crate::merkle::{Hash, leaf_hash};
use crate::proof::{self, Nodes, root_from_inclusion};
use crate::reader::ReadError;
use crate::tree::TreeReader;
use crate::verify::{VerifyError, checkpoint_from_file};

const TITLE: &str = "c2sp.org/tlog-proof@v1";
/// A tree of 2^64 leaves has no longer path.
const MAX_HASHES: usize = 64;

/// A proof as it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The record's sequence number.
    pub index: u64,
    pub path: Vec<Hash>,
    /// The signed note, verbatim.
    pub checkpoint: String,
    /// Data of the application's own, not covered by the proof.
    pub extra: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("expected {expected} in line {line} of the proof")]
    Form { line: usize, expected: &'static str },
    #[error("the checkpoint in the proof")]
    Checkpoint(#[source] CheckpointError),
    #[error("the record, at place {index} of {size}, does not lead to the root that the checkpoint signs")]
    Root { index: u64, size: u64 },
}

/// Why no proof could be made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot read the hashes of the tree in {}", dir.display())]
    Tree { dir: PathBuf, source: io::Error },
    #[error("record {seq} is not signed yet: the checkpoint signs the first {size}")]
    NotSigned { seq: u64, size: u64 },
    #[error("the log has {size} signed records, and a tree of {wanted} was asked for")]
    NoSuchTree { wanted: u64, size: u64 },
    #[error("the records do not lead to the root that the checkpoint signs: verify the log")]
    Root,
}

impl TlogProof {
    pub fn to_text(&self) -> String {
        let mut text = format!("{TITLE}\n");
        if let Some(extra) = &self.extra {
            text += &format!("extra {}\n", BASE64.encode(extra));
        }
        text += &format!("index {}\n", self.index);
        self.path.iter().for_each(|hash| text += &format!("{}\n", hash.to_base64()));
        text + "\n" + &self.checkpoint
    }

    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let form = |line, expected| ProofError::Form { line, expected };
        let (head, checkpoint) = text.split_once("\n\n").ok_or(form(1, "an empty line before the checkpoint"))?;
        let mut lines = head.split('\n').enumerate().map(|(index, line)| (index + 1, line)).peekable();
        lines.next_if(|(_, line)| *line == TITLE).ok_or(form(1, "`c2sp.org/tlog-proof@v1`"))?;
        let mut extra = None;
        if let Some((line, text)) = lines.next_if(|(_, line)| line.starts_with("extra ")) {
            let bytes = text.strip_prefix("extra ").and_then(|text| BASE64.decode(text).ok());
            extra = Some(bytes.ok_or(form(line, "base64 after `extra `"))?);
        }
        let (line, index) = lines.next().unwrap_or((2, ""));
        let index = index.strip_prefix("index ").and_then(parse_size).ok_or(form(line, "`index ` and a number"))?;
        let mut path = Vec::new();
        for (line, text) in lines {
            if path.len() == MAX_HASHES {
                return Err(form(line, "no more than 64 hashes"));
            }
            path.push(Hash::from_base64(text).ok_or(form(line, "the base64 of 32 bytes"))?);
        }
        Ok(TlogProof { index, path, checkpoint: checkpoint.to_owned(), extra })
    }

    /// Believes the proof if a trusted key signed its checkpoint and the record leads to its root.
    pub fn check(&self, record: &[u8], trusted: &[VerifierKey]) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), trusted).map_err(ProofError::Checkpoint)?;
        self.leads_to(leaf_hash(record), &checkpoint)?;
        Ok(checkpoint)
    }

    fn leads_to(&self, leaf: Hash, checkpoint: &Checkpoint) -> Result<(), ProofError> {
        let (index, size) = (self.index, checkpoint.size);
        let root = root_from_inclusion(leaf, index, size, &self.path);
        if root == Some(checkpoint.root) { Ok(()) } else { Err(ProofError::Root { index, size }) }
    }
}

/// Proves that record `seq` is in the log in `dir`, under its published checkpoint.
pub fn prove(dir: &Path, seq: u64, trusted: &[VerifierKey]) -> Result<TlogProof, ProveError> {
    let signed = checkpoint_from_file(&dir.join(CHECKPOINT_FILE), trusted)?;
    let size = signed.checkpoint.size;
    if seq >= size {
        return Err(ProveError::NotSigned { seq, size });
    }
    let make = |nodes: &mut dyn Nodes<Error = io::Error>| {
        let (leaf, path) = (nodes.node(0, seq)?, proof::inclusion(nodes, seq, size)?);
        let proof = TlogProof { index: seq, path, checkpoint: signed.note.clone(), extra: None };
        Ok(proof.leads_to(leaf, &signed.checkpoint).is_ok().then_some(proof))
    };
    with_nodes(dir, size, make)
}

/// What proves that the first `old` records are the beginning of the published tree, and that tree.
pub fn prove_consistency(
    dir: &Path,
    old: u64,
    trusted: &[VerifierKey],
) -> Result<(Vec<Hash>, SignedCheckpoint), ProveError> {
    let signed = checkpoint_from_file(&dir.join(CHECKPOINT_FILE), trusted)?;
    let size = signed.checkpoint.size;
    if old > size {
        return Err(ProveError::NoSuchTree { wanted: old, size });
    }
    let make = |nodes: &mut dyn Nodes<Error = io::Error>| {
        let (old_root, path) = (proof::tree_root(nodes, old)?, proof::consistency(nodes, old, size)?);
        let new_root = &signed.checkpoint.root;
        let is_right =
            proof::tree_root(nodes, size)? == *new_root && proof::is_consistent(old, &old_root, size, new_root, &path);
        Ok(is_right.then_some(path))
    };
    Ok((with_nodes(dir, size, make)?, signed))
}

/// The root over the first `size` records, which a checkpoint of that size signs.
pub fn root_at(dir: &Path, size: u64) -> Result<Hash, ProveError> {
    with_nodes(dir, size, |nodes| proof::tree_root(nodes, size).map(Some))
}

/// Asks the hashes beside the log first, which may be damaged or missing in a copy, and then the records themselves.
/// `make` says `None` when what it made is not right.
fn with_nodes<T>(
    dir: &Path,
    size: u64,
    make: impl Fn(&mut dyn Nodes<Error = io::Error>) -> io::Result<Option<T>>,
) -> Result<T, ProveError> {
    if let Ok(Some(made)) = make(&mut TreeReader::new(dir)) {
        return Ok(made);
    }
    let mut hashes = Vec::new();
    leaves::for_each(dir, size, |leaf| {
        hashes.push(leaf);
        Ok::<_, ProveError>(())
    })?;
    let failed = |source| ProveError::Tree { dir: dir.to_owned(), source };
    make(&mut Leaves(hashes)).map_err(failed)?.ok_or(ProveError::Root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;
    use crate::merkle::Frontier;
    use proptest::prelude::*;

    fn proof() -> (TlogProof, SigningKey) {
        let key = SigningKey::from_seed("log.example/a", &[1; 32]).unwrap();
        let hashes: Vec<Hash> = (0..5u8).map(|number| leaf_hash(&[number])).collect();
        let tree: Frontier = hashes.iter().copied().collect();
        let checkpoint = Checkpoint::of("log.example/a", &tree).sign(&[&key]).note;
        let path = proof::inclusion(&mut Leaves(hashes), 2, 5).unwrap();
        (TlogProof { index: 2, path, checkpoint, extra: Some(b"why".to_vec()) }, key)
    }

    #[test]
    fn a_proof_reads_back_and_proves_its_record_and_no_other() {
        let (proof, key) = proof();
        let trusted = [key.verifier().clone()];
        assert_eq!(TlogProof::parse(&proof.to_text()).unwrap(), proof);
        assert_eq!(proof.check(&[2], &trusted).unwrap().size, 5);
        assert!(matches!(proof.check(&[3], &trusted), Err(ProofError::Root { index: 2, size: 5 })));
        assert!(matches!(proof.check(&[2], &[]), Err(ProofError::Checkpoint(_))));
        let elsewhere = TlogProof { index: 3, ..proof };
        assert!(matches!(elsewhere.check(&[2], &trusted), Err(ProofError::Root { .. })));
    }

    #[test]
    fn malformed_proofs_say_which_line_is_wrong() {
        #[track_caller]
        fn check(text: &str, expect: &str) {
            assert_eq!(TlogProof::parse(text).unwrap_err().to_string(), expect);
        }
        let good = proof().0.to_text();
        check("", "expected an empty line before the checkpoint in line 1 of the proof");
        check(&good.replace("@v1", "@v2"), "expected `c2sp.org/tlog-proof@v1` in line 1 of the proof");
        check(&good.replace("extra ", "extra !"), "expected base64 after `extra ` in line 2 of the proof");
        check(&good.replace("index 2", "index 02"), "expected `index ` and a number in line 3 of the proof");
        check(
            &good.replacen("index 2\n", "index 2\nAAAA\n", 1),
            "expected the base64 of 32 bytes in line 4 of the proof",
        );
        let flood = format!("index 2\n{}", format!("{}\n", Hash::ZERO.to_base64()).repeat(65));
        check(&good.replacen("index 2\n", &flood, 1), "expected no more than 64 hashes in line 68 of the proof");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(\\PC|\n){0,100}", at in 0usize..200) {
            let _ = TlogProof::parse(&text);
            let mut near = proof().0.to_text();
            if near.is_char_boundary(at) {
                near.insert_str(at, &text);
            }
            let _ = TlogProof::parse(&near);
        }
    }
}
