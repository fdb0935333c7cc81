//! C2SP signed notes (v1.0.0): writing, parsing, verifying.
//!
//! Layout: <https://c2sp.org/signed-note>. A note is UTF-8 text ending in a newline, an empty line, then one line
//! `— <key name> <base64(key id ‖ signature)>` for each signature. Signatures by unknown keys are ignored, as the format
//! demands; other signature types are unknown keys here, so a note has room for signatures of kinds to come.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::key::{Algorithm, SigningKey, VerifierKey};

/// More lines than this are not a note of ours but an attempt to make us work (the format asks for at least 16).
const MAX_SIGNATURES: usize = 64;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("the note is not UTF-8")]
    Utf8,
    #[error("the note holds a control character")]
    Control,
    #[error("the note has no empty line between its text and its signatures")]
    Separator,
    #[error("signature line {line} does not read `— <key name> <base64>`")]
    SignatureLine { line: usize },
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    #[error("the note has no signature by a key that is trusted here")]
    NoTrustedSignature,
    #[error("the signature by key {key} does not fit the text")]
    WrongSignature { key: String },
}

/// A note as it was read: well formed, its signatures not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl SignedNote {
    pub fn parse(note: &[u8]) -> Result<Self, NoteError> {
        let note = str::from_utf8(note).map_err(|_| NoteError::Utf8)?;
        if note.contains(|c| c < ' ' && c != '\n') {
            return Err(NoteError::Control);
        }
        let separator = note.rfind("\n\n").ok_or(NoteError::Separator)?;
        let (text, lines) = (&note[..=separator], &note[separator + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Separator)?;
        let mut signatures = Vec::new();
        for (index, line) in lines.split('\n').enumerate() {
            if index >= MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(parse_signature(line).ok_or(NoteError::SignatureLine { line: index + 1 })?);
        }
        Ok(SignedNote { text: text.to_owned(), signatures })
    }

    /// The text, unverified.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `key` is among the signers, and its signature fits.
    pub fn is_signed_by(&self, key: &VerifierKey) -> bool {
        self.verify(std::slice::from_ref(key)).is_ok()
    }

    /// The text, once at least one trusted key signed it and every signature that names a trusted key fits.
    pub fn verify(&self, trusted: &[VerifierKey]) -> Result<&str, NoteError> {
        let mut good = false;
        for signature in &self.signatures {
            for key in trusted.iter().filter(|key| key.name() == signature.name && key.id() == signature.id) {
                if !key.verifies(&self.text, &signature.bytes) {
                    return Err(NoteError::WrongSignature { key: key.to_string() });
                }
                good = true;
            }
        }
        if good { Ok(&self.text) } else { Err(NoteError::NoTrustedSignature) }
    }
}

/// Signs `text`, which must end in a newline, with each key and returns the whole note.
pub fn sign(text: &str, keys: &[&SigningKey]) -> String {
    let mut note = format!("{text}\n");
    keys.iter().for_each(|key| note += &key.signature_line(text, 0));
    note
}

/// A witness's signature lines for `text`; `unix_seconds` says when it saw the checkpoint.
pub fn cosign(text: &str, key: &SigningKey, unix_seconds: u64) -> String {
    debug_assert_eq!(key.verifier().algorithm(), Algorithm::Cosignature, "a witness signs with its time");
    key.signature_line(text, unix_seconds)
}

fn parse_signature(line: &str) -> Option<NoteSignature> {
    let (name, data) = line.strip_prefix("— ")?.split_once(' ')?;
    let data = BASE64.decode(data).ok()?;
    let (id, bytes) = data.split_first_chunk::<4>()?;
    let fits = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+') && !bytes.is_empty();
    fits.then(|| NoteSignature { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The test vector of the C2SP specification.
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n— example.com/foo \
        Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn key(name: &str, seed: u8) -> SigningKey {
        SigningKey::from_seed(name, &[seed; 32]).unwrap()
    }

    fn open<'a>(note: &str, trusted: &[VerifierKey], into: &'a mut Option<SignedNote>) -> Result<&'a str, NoteError> {
        into.insert(SignedNote::parse(note.as_bytes())?).verify(trusted)
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "an expectation is written in place")]
    fn check(note: &str, trusted: &[VerifierKey], expect: Result<&str, NoteError>) {
        assert_eq!(open(note, trusted, &mut None), expect);
    }

    #[test]
    fn the_test_vector_of_the_specification_verifies() {
        let key: VerifierKey = VKEY.parse().unwrap();
        assert_eq!(key.to_string(), VKEY);
        check(NOTE, &[key], Ok("This is an example message.\n"));
    }

    #[test]
    fn a_changed_text_does_not_verify() {
        let key: VerifierKey = VKEY.parse().unwrap();
        let expect = Err(NoteError::WrongSignature { key: VKEY.to_owned() });
        check(&NOTE.replace("example message", "exemple message"), &[key], expect);
    }

    #[test]
    fn signatures_by_unknown_keys_are_ignored_and_never_enough() {
        let (ours, other) = (key("log.example/a", 1), key("witness.example", 2));
        let ours_first = sign("hello\n", &[&ours]);
        let both = format!("{ours_first}{}", sign("hello\n", &[&other]).split_once("\n\n").unwrap().1);
        check(&both, &[ours.verifier().clone()], Ok("hello\n"));
        check(&both, &[other.verifier().clone()], Ok("hello\n"));
        check(&both, &[ours.verifier().clone(), other.verifier().clone()], Ok("hello\n"));
        check(&ours_first, &[other.verifier().clone()], Err(NoteError::NoTrustedSignature));
        check(&ours_first, &[], Err(NoteError::NoTrustedSignature));
    }

    #[test]
    fn one_wrong_signature_by_a_trusted_key_spoils_the_note() {
        let (ours, other) = (key("log.example/a", 1), key("witness.example", 2));
        let wrong = sign("other text\n", &[&other]);
        let note = format!("{}{}", sign("hello\n", &[&ours]), wrong.split_once("\n\n").unwrap().1);
        let trusted = [ours.verifier().clone(), other.verifier().clone()];
        check(&note, &trusted, Err(NoteError::WrongSignature { key: other.verifier().to_string() }));
    }

    #[test]
    fn a_key_of_the_same_name_is_not_the_same_key() {
        let (ours, namesake) = (key("log.example/a", 1), key("log.example/a", 2));
        check(&sign("hello\n", &[&ours]), &[namesake.verifier().clone()], Err(NoteError::NoTrustedSignature));
    }

    #[test]
    fn sixteen_signatures_are_accepted_and_a_flood_is_refused() {
        let ours = key("log.example/a", 1);
        let line = sign("hello\n", &[&ours]).split_once("\n\n").unwrap().1.to_owned();
        check(&format!("hello\n\n{}", line.repeat(16)), &[ours.verifier().clone()], Ok("hello\n"));
        check(&format!("hello\n\n{}", line.repeat(65)), &[], Err(NoteError::TooManySignatures));
    }

    #[test]
    fn malformed_notes_say_what_is_wrong() {
        check("no signatures\n", &[], Err(NoteError::Separator));
        check("text\n\n", &[], Err(NoteError::Separator));
        check("text\n\n— a AAAAAAA=", &[], Err(NoteError::Separator));
        check("te\txt\n\n— a AAAAAAA=\n", &[], Err(NoteError::Control));
        check("text\n\n- a AAAAAAA=\n", &[], Err(NoteError::SignatureLine { line: 1 }));
        check("text\n\n— a AAAAAA==\n", &[], Err(NoteError::SignatureLine { line: 1 }));
        check("text\n\n— a+b AAAAAAA=\n", &[], Err(NoteError::SignatureLine { line: 1 }));
        assert_eq!(SignedNote::parse(b"\xff\n\n\n"), Err(NoteError::Utf8));
    }

    proptest! {
        #[test]
        fn what_was_signed_verifies(text in "[^\u{0}-\u{1f}]{0,40}(\n[^\u{0}-\u{1f}]{0,40}){0,4}\n", seed: [u8; 32]) {
            let key = SigningKey::from_seed("log.example/a", &seed).unwrap();
            let note = SignedNote::parse(sign(&text, &[&key]).as_bytes()).unwrap();
            prop_assert_eq!(note.verify(&[key.verifier().clone()]), Ok(text.as_str()));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..150) {
            let _ = SignedNote::parse(&bytes);
            let mut near = NOTE.as_bytes().to_vec();
            let end = near.len().min(at + bytes.len());
            let start = at.min(end);
            near[start..end].copy_from_slice(&bytes[..end - start]);
            let _ = SignedNote::parse(&near);
        }
    }
}
