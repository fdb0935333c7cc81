//! Keys: who signs, who is believed, and how both are written.
//!
//! Keys are written as Go's `x/mod/sumdb/note` writes them: `<name>+<id>+<base64>` to verify,
//! `PRIVATE+KEY+<name>+<id>+<base64>` to sign (<https://c2sp.org/signed-note>). Two signature types are known: plain
//! Ed25519, with which a log signs, and the timestamped cosignature of a witness (<https://c2sp.org/tlog-cosignature>).
//! Where a secret key is kept, and with which file mode, is the caller's business.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const SECRET_PREFIX: &str = "PRIVATE+KEY+";
/// A name is in every segment header and in every record: it must leave room for the rest.
const MAX_NAME_BYTES: usize = 255;

/// What a signature line's bytes are, after the key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// An Ed25519 signature over the note's text.
    Ed25519 = 0x01,
    /// Eight bytes of Unix time, big-endian, and an Ed25519 signature over time and text.
    Cosignature = 0x04,
}

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

/// The public half of a key: who signed, and how to check it.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    algorithm: Algorithm,
    public: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, algorithm: Algorithm, public: ed25519_dalek::VerifyingKey) -> Result<Self, KeyError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
        if !fits || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            return Err(KeyError::Name);
        }
        let digest = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', algorithm as u8])
            .chain_update(public.as_bytes())
            .finalize();
        Ok(VerifierKey { name: name.to_owned(), id: [digest[0], digest[1], digest[2], digest[3]], algorithm, public })
    }

    /// The key name; of a log's key, also the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's over exactly `text`.
    pub fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Ed25519 => self.verifies_bytes(text.as_bytes(), signature),
            Algorithm::Cosignature => {
                let Some((time, signature)) = signature.split_first_chunk::<8>() else { return false };
                self.verifies_bytes(cosigned(u64::from_be_bytes(*time), text).as_bytes(), signature)
            }
        }
    }

    fn verifies_bytes(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
        self.public.verify_strict(message, &signature).is_ok()
    }
}

/// What a cosignature signs.
fn cosigned(unix_seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {unix_seconds}\n{text}")
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", key_text(&self.name, self.id, self.algorithm, self.public.as_bytes()))
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
        let (name, id, algorithm, bytes) = parse_key(text, KeyError::VerifierForm)?;
        let public = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Algorithm)?;
        let key = VerifierKey::new(name, algorithm, public)?;
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
        Self::from_seed(name, &Zeroizing::new(random_seed()?))
    }

    /// The key of a known 32-byte seed.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        Self::new(name, Algorithm::Ed25519, seed)
    }

    fn new(name: &str, algorithm: Algorithm, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, algorithm, secret.verifying_key())?;
        Ok(SigningKey { secret, verifier })
    }

    /// The same secret as a witness's: it signs with the time.
    pub fn into_witness(self) -> Self {
        let verifier = VerifierKey::new(&self.verifier.name, Algorithm::Cosignature, self.verifier.public);
        SigningKey { verifier: verifier.expect("the name is a key's already"), secret: self.secret }
    }

    /// Reads `PRIVATE+KEY+<name>+<id>+<base64>`; white space around it (a file's last newline) is no part of it.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let rest = text.trim().strip_prefix(SECRET_PREFIX).ok_or(KeyError::SigningForm)?;
        let (name, id, algorithm, seed) = parse_key(rest, KeyError::SigningForm)?;
        let key = Self::new(name, algorithm, &seed)?;
        if key.verifier.id == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The text of a key file, secret included.
    pub fn to_text(&self) -> String {
        let VerifierKey { name, id, algorithm, .. } = &self.verifier;
        format!("{SECRET_PREFIX}{}\n", key_text(name, *id, *algorithm, &self.secret.to_bytes()))
    }

    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// This key's signature line for `text`, newline included. The time is what a witness signs with it; plain keys
    /// leave it out.
    pub(crate) fn signature_line(&self, text: &str, unix_seconds: u64) -> String {
        debug_assert!(text.ends_with('\n'), "a note's text ends in a newline");
        let mut bytes = self.verifier.id.to_vec();
        match self.verifier.algorithm {
            Algorithm::Ed25519 => bytes.extend_from_slice(&self.secret.sign(text.as_bytes()).to_bytes()),
            Algorithm::Cosignature => {
                bytes.extend_from_slice(&unix_seconds.to_be_bytes());
                bytes.extend_from_slice(&self.secret.sign(cosigned(unix_seconds, text).as_bytes()).to_bytes());
            }
        }
        format!("— {} {}\n", self.verifier.name, BASE64.encode(bytes))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifier)
    }
}

/// 32 bytes of the operating system's entropy.
pub fn random_seed() -> Result<[u8; 32], KeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| KeyError::Entropy(error.to_string()))?;
    Ok(seed)
}

fn key_text(name: &str, id: [u8; 4], algorithm: Algorithm, key: &[u8; 32]) -> String {
    let mut data = vec![algorithm as u8];
    data.extend_from_slice(key);
    format!("{name}+{:08x}+{}", u32::from_be_bytes(id), BASE64.encode(data))
}

/// Name, id, algorithm and key bytes.
type Parts<'a> = (&'a str, [u8; 4], Algorithm, [u8; 32]);

/// Splits `<name>+<id>+<base64(type ‖ key)>`; `form` is the error for text of another shape.
fn parse_key(text: &str, form: KeyError) -> Result<Parts<'_>, KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else { return Err(form) };
    if id.len() != 8 || !id.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(form);
    }
    let Ok(id) = u32::from_str_radix(id, 16) else { return Err(form) };
    let Ok(data) = BASE64.decode(data) else { return Err(form) };
    let Some((&kind, key)) = data.split_first() else { return Err(KeyError::Algorithm) };
    let known = [Algorithm::Ed25519, Algorithm::Cosignature].into_iter().find(|known| *known as u8 == kind);
    let algorithm = known.ok_or(KeyError::Algorithm)?;
    let key = key.try_into().map_err(|_| KeyError::Algorithm)?;
    Ok((name, id.to_be_bytes(), algorithm, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The test vector of the C2SP specification.
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

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
        check(&SigningKey::from_seed("a", &[1; 32]).unwrap().to_text(), KeyError::SecretGiven);
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
        assert_eq!(again.signature_line("x\n", 0), key.signature_line("x\n", 0));
        let secret = text.trim_end().splitn(5, '+').last().unwrap();
        assert_eq!(secret.len(), 44, "33 bytes in base64, which may hold a plus sign");
        assert!(!format!("{key:?}").contains(secret));
    }

    #[test]
    fn a_cosignature_signs_its_time_too() {
        let witness = SigningKey::from_seed("witness.example/w", &[3; 32]).unwrap().into_witness();
        let line = witness.signature_line("log\n1\nroot\n", 1_790_000_000);
        let data = BASE64.decode(line.trim_end().rsplit(' ').next().unwrap()).unwrap();
        let (id, signature) = data.split_at(4);
        assert_eq!(id, witness.verifier().id());
        assert!(witness.verifier().verifies("log\n1\nroot\n", signature));
        let mut later = signature.to_vec();
        later[7] += 1;
        assert!(!witness.verifier().verifies("log\n1\nroot\n", &later));
        let again: VerifierKey = witness.verifier().to_string().parse().unwrap();
        assert_eq!(&again, witness.verifier());
        assert_eq!(SigningKey::from_text(&witness.to_text()).unwrap().verifier(), witness.verifier());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,90}|[a-z+0-9A-Z/=]{0,90}") {
            let _ = text.parse::<VerifierKey>();
            let _ = SigningKey::from_text(&format!("PRIVATE+KEY+{text}"));
        }
    }
}
