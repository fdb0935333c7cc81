//! C2SP tlog-checkpoint (v1.0.0): the text that says what a log's tree is.
//!
//! Layout: <https://c2sp.org/tlog-checkpoint>. Three lines (origin, tree size in decimal, base64 of the RFC 6962
//! root), carried by a signed note. Extension lines are legal and ignored; we never write one, and no time is in it:
//! time belongs in a record.

use crate::key::{SigningKey, VerifierKey};
use crate::merkle::{Frontier, Hash};
use crate::note::{self, NoteError, SignedNote};

/// What a log promises: the first `size` records of `origin` have this `root`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("the checkpoint's text does not end in a newline")]
    Newline,
    #[error("the checkpoint's first line, the origin, is empty or missing")]
    Origin,
    #[error("the checkpoint's second line is not a tree size in decimal")]
    Size,
    #[error("the checkpoint's third line is not the base64 of 32 bytes")]
    Root,
    #[error("the checkpoint has an empty extension line")]
    Extension,
}

impl Checkpoint {
    pub fn of(origin: &str, tree: &Frontier) -> Self {
        Checkpoint { origin: origin.to_owned(), size: tree.size(), root: tree.root() }
    }

    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root.to_base64())
    }

    /// The signed note, as it is kept and published.
    pub fn sign(self, keys: &[&SigningKey]) -> SignedCheckpoint {
        SignedCheckpoint { note: note::sign(&self.to_text(), keys), checkpoint: self }
    }

    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Newline)?.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::Origin)?;
        let size = lines.next().and_then(parse_size).ok_or(CheckpointError::Size)?;
        let root = lines.next().and_then(Hash::from_base64).ok_or(CheckpointError::Root)?;
        if lines.any(str::is_empty) {
            return Err(CheckpointError::Extension);
        }
        Ok(Checkpoint { origin: origin.to_owned(), size, root })
    }

    /// Reads a signed note and believes it only if a trusted key signed it.
    pub fn open(note: &[u8], trusted: &[VerifierKey]) -> Result<Self, CheckpointError> {
        Self::parse(SignedNote::parse(note)?.verify(trusted)?)
    }
}

/// A checkpoint together with the note that signs it: what is kept, published and shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    pub checkpoint: Checkpoint,
    pub note: String,
}

impl SignedCheckpoint {
    pub fn open(note: &[u8], trusted: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::open(note, trusted)?;
        let note = String::from_utf8(note.to_vec()).map_err(|_| NoteError::Utf8)?;
        Ok(SignedCheckpoint { checkpoint, note })
    }

    /// Whether `key` signed it too.
    pub fn is_signed_by(&self, key: &VerifierKey) -> bool {
        SignedNote::parse(self.note.as_bytes()).is_ok_and(|note| note.is_signed_by(key))
    }
}

/// Decimal digits without a leading zero, nothing else (`u64::from_str` would take `+7` and `007`).
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    text.parse().ok().filter(|size: &u64| size.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOT: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "an expectation is written in place")]
    fn check(text: &str, expect: Result<u64, CheckpointError>) {
        assert_eq!(Checkpoint::parse(text).map(|checkpoint| checkpoint.size), expect);
    }

    #[test]
    fn the_empty_tree_has_the_text_everyone_else_writes() {
        let checkpoint = Checkpoint::of("log.example/a", &Frontier::new());
        assert_eq!(checkpoint.to_text(), format!("log.example/a\n0\n{ROOT}\n"));
    }

    #[test]
    fn extension_lines_are_accepted() {
        check(&format!("o\n7\n{ROOT}\nextension\n"), Ok(7));
    }

    #[test]
    fn malformed_checkpoints_say_which_line_is_wrong() {
        check("", Err(CheckpointError::Newline));
        check(&format!("o\n7\n{ROOT}"), Err(CheckpointError::Newline));
        check(&format!("\n7\n{ROOT}\n"), Err(CheckpointError::Origin));
        check("o\n", Err(CheckpointError::Size));
        check(&format!("o\n07\n{ROOT}\n"), Err(CheckpointError::Size));
        check(&format!("o\n+7\n{ROOT}\n"), Err(CheckpointError::Size));
        check(&format!("o\n18446744073709551616\n{ROOT}\n"), Err(CheckpointError::Size));
        check("o\n7\n", Err(CheckpointError::Root));
        check("o\n7\nAAAA\n", Err(CheckpointError::Root));
        check(&format!("o\n7\n{ROOT}\n\nx\n"), Err(CheckpointError::Extension));
    }

    proptest! {
        #[test]
        fn what_was_signed_reads_back(size: u64, root: [u8; 32], seed: [u8; 32]) {
            let key = SigningKey::from_seed("log.example/a", &seed).unwrap();
            let written = Checkpoint { origin: "log.example/a".into(), size, root: Hash::from_bytes(root) };
            let signed = written.sign(&[&key]);
            prop_assert_eq!(SignedCheckpoint::open(signed.note.as_bytes(), &[key.verifier().clone()]), Ok(signed));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(\\PC|\n){0,100}") {
            if let Ok(checkpoint) = Checkpoint::parse(&text) {
                prop_assert!(text.starts_with(&checkpoint.to_text()));
            }
        }
    }
}
