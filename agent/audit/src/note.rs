//! C2SP signed notes (v1.0.0) with Ed25519: keys, signing, parsing, verifying.
//!
//! Layout: <https://c2sp.org/signed-note>. A note is UTF-8 text ending in a newline, an empty line, then one line
//! `— <key name> <base64(key id ‖ signature)>` for each signature. Keys are written as Go's `x/mod/sumdb/note`
//! writes them: `<name>+<id>+<base64>` to verify, `PRIVATE+KEY+<name>+<id>+<base64>` to sign.
//! Signatures by unknown keys are ignored, as the format demands; other signature types are unknown keys here.
//! Where a secret key is kept, and with which file mode, is the caller's business.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

/// The signature type of plain Ed25519.
const ED25519: u8 = 0x01;
const SECRET_PREFIX: &str = "PRIVATE+KEY+";
/// A name is in every segment header and in every record: it must leave room for the rest.
const MAX_NAME_BYTES: usize = 255;
/// More lines than this are not a note of ours but an attempt to make us work (the format asks for at least 16).
const MAX_SIGNATURES: usize = 64;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key name is 1 to {MAX_NAME_BYTES} bytes without white space, plus signs and control characters")]
    Name,
    #[error("a verifier key reads `<name>+<8 hexadecimal digits>+<base64>`")]
    VerifierForm,
    #[error("a signing key reads `PRIVATE+KEY+<name>+<8 hexadecimal digits>+<base64>`")]
    SigningForm,
    #[error("this is a signing key; a verifier key is wanted")]
    SecretGiven,
    #[error("the key is not an Ed25519 key")]
    Algorithm,
    #[error("the key id in the text does not belong to the name and key beside it")]
    Id,
    #[error("cannot get random bytes for a new key from the operating system: {0}")]
    Entropy(String),
}

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

/// The public half of a key: who signed, and how to check it.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    public: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, public: ed25519_dalek::VerifyingKey) -> Result<Self, KeyError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
        if !fits || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            return Err(KeyError::Name);
        }
        let digest =
            Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(public.as_bytes()).finalize();
        Ok(VerifierKey { name: name.to_owned(), id: [digest[0], digest[1], digest[2], digest[3]], public })
    }

    /// The key name; of a log's key, also the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Whether `signature` is this key's over exactly `text`.
    pub fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
        self.public.verify_strict(text.as_bytes(), &signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", key_text(&self.name, self.id, self.public.as_bytes()))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.starts_with(SECRET_PREFIX) {
            return Err(KeyError::SecretGiven);
        }
        let (name, id, bytes) = parse_key(text, KeyError::VerifierForm)?;
        let public = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Algorithm)?;
        let key = VerifierKey::new(name, public)?;
        if key.id == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

/// The secret half of a key. Wiped from memory when dropped; never shown by `Debug`.
#[derive(Clone)]
pub struct SigningKey {
    secret: ed25519_dalek::SigningKey,
    verifier: VerifierKey,
}

impl SigningKey {
    /// A new key from the operating system's entropy.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| KeyError::Entropy(error.to_string()))?;
        Self::from_seed(name, &seed)
    }

    /// The key of a known 32-byte seed.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, secret.verifying_key())?;
        Ok(SigningKey { secret, verifier })
    }

    /// Reads `PRIVATE+KEY+<name>+<id>+<base64>`; white space around it (a file's last newline) is no part of it.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let rest = text.trim().strip_prefix(SECRET_PREFIX).ok_or(KeyError::SigningForm)?;
        let (name, id, seed) = parse_key(rest, KeyError::SigningForm)?;
        let key = Self::from_seed(name, &seed)?;
        if key.verifier.id == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The text of a key file, secret included.
    pub fn to_text(&self) -> String {
        let seed = self.secret.to_bytes();
        format!("{SECRET_PREFIX}{}\n", key_text(&self.verifier.name, self.verifier.id, &seed))
    }

    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs `text`, which must end in a newline, and returns the whole note.
    pub fn sign(&self, text: &str) -> String {
        debug_assert!(text.ends_with('\n'), "a note's text ends in a newline");
        let mut bytes = self.verifier.id.to_vec();
        bytes.extend_from_slice(&self.secret.sign(text.as_bytes()).to_bytes());
        format!("{text}\n— {} {}\n", self.verifier.name, BASE64.encode(bytes))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifier)
    }
}

fn key_text(name: &str, id: [u8; 4], key: &[u8; 32]) -> String {
    let mut data = vec![ED25519];
    data.extend_from_slice(key);
    format!("{name}+{:08x}+{}", u32::from_be_bytes(id), BASE64.encode(data))
}

/// Splits `<name>+<id>+<base64(type ‖ key)>`; `form` is the error for text of another shape.
fn parse_key(text: &str, form: KeyError) -> Result<(&str, [u8; 4], [u8; 32]), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else { return Err(form) };
    if id.len() != 8 || !id.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(form);
    }
    let Ok(id) = u32::from_str_radix(id, 16) else { return Err(form) };
    let Ok(data) = BASE64.decode(data) else { return Err(form) };
    let [ED25519, key @ ..] = data.as_slice() else { return Err(KeyError::Algorithm) };
    let key = key.try_into().map_err(|_| KeyError::Algorithm)?;
    Ok((name, id.to_be_bytes(), key))
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

    /// The text, once at least one trusted key signed it and every signature that names a trusted key fits.
    pub fn verify(&self, trusted: &[VerifierKey]) -> Result<&str, NoteError> {
        let mut good = false;
        for signature in &self.signatures {
            for key in trusted.iter().filter(|key| key.name == signature.name && key.id == signature.id) {
                if !key.verifies(&self.text, &signature.bytes) {
                    return Err(NoteError::WrongSignature { key: key.to_string() });
                }
                good = true;
            }
        }
        if good { Ok(&self.text) } else { Err(NoteError::NoTrustedSignature) }
    }
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
        let ours_first = ours.sign("hello\n");
        let both = format!("{ours_first}{}", other.sign("hello\n").split_once("\n\n").unwrap().1);
        check(&both, &[ours.verifier().clone()], Ok("hello\n"));
        check(&both, &[other.verifier().clone()], Ok("hello\n"));
        check(&both, &[ours.verifier().clone(), other.verifier().clone()], Ok("hello\n"));
        check(&ours_first, &[other.verifier().clone()], Err(NoteError::NoTrustedSignature));
        check(&ours_first, &[], Err(NoteError::NoTrustedSignature));
    }

    #[test]
    fn one_wrong_signature_by_a_trusted_key_spoils_the_note() {
        let (ours, other) = (key("log.example/a", 1), key("witness.example", 2));
        let wrong = other.sign("other text\n");
        let note = format!("{}{}", ours.sign("hello\n"), wrong.split_once("\n\n").unwrap().1);
        let trusted = [ours.verifier().clone(), other.verifier().clone()];
        check(&note, &trusted, Err(NoteError::WrongSignature { key: other.verifier().to_string() }));
    }

    #[test]
    fn a_key_of_the_same_name_is_not_the_same_key() {
        let (ours, namesake) = (key("log.example/a", 1), key("log.example/a", 2));
        check(&ours.sign("hello\n"), &[namesake.verifier().clone()], Err(NoteError::NoTrustedSignature));
    }

    #[test]
    fn sixteen_signatures_are_accepted_and_a_flood_is_refused() {
        let ours = key("log.example/a", 1);
        let line = ours.sign("hello\n").split_once("\n\n").unwrap().1.to_owned();
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

    #[test]
    fn malformed_keys_say_what_is_wrong() {
        #[track_caller]
        fn check(text: &str, expect: KeyError) {
            assert_eq!(text.parse::<VerifierKey>(), Err(expect));
        }
        check("", KeyError::VerifierForm);
        check("example.com/foo", KeyError::VerifierForm);
        check(&VKEY.replace("530d903a", "530d903"), KeyError::VerifierForm);
        check(&VKEY.replace("530d903a", "530d903b"), KeyError::Id);
        check(&VKEY.replace("foo", "bar"), KeyError::Id);
        check(&VKEY.replace("+Aeky", "+Beky"), KeyError::Algorithm);
        check(&key("a", 1).to_text(), KeyError::SecretGiven);
        assert_eq!(SigningKey::generate("two words").err(), Some(KeyError::Name));
        assert_eq!(SigningKey::generate("a+b").err(), Some(KeyError::Name));
        assert_eq!(SigningKey::from_text(VKEY).err(), Some(KeyError::SigningForm));
    }

    #[test]
    fn a_key_file_reads_back_and_debug_keeps_the_secret() {
        let key = SigningKey::generate("node-17.example.com/plumbline").unwrap();
        let text = key.to_text();
        let again = SigningKey::from_text(&text).unwrap();
        assert_eq!(again.verifier(), key.verifier());
        assert_eq!(again.sign("x\n"), key.sign("x\n"));
        let secret = text.trim_end().splitn(5, '+').last().unwrap();
        assert_eq!(secret.len(), 44, "33 bytes in base64, which may hold a plus sign");
        assert!(!format!("{key:?}").contains(secret));
    }

    proptest! {
        #[test]
        fn what_was_signed_verifies(text in "[^\u{0}-\u{1f}]{0,40}(\n[^\u{0}-\u{1f}]{0,40}){0,4}\n", seed: [u8; 32]) {
            let key = SigningKey::from_seed("log.example/a", &seed).unwrap();
            let note = SignedNote::parse(key.sign(&text).as_bytes()).unwrap();
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
            let _ = String::from_utf8_lossy(&bytes).parse::<VerifierKey>();
        }
    }
}
