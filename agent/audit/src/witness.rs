//! C2SP tlog-witness: somebody elsewhere who signs a log's checkpoint only if it continues the one signed before.
//!
//! Protocol: <https://c2sp.org/tlog-witness>. A request is `old <size>`, at most 63 base64 hashes of a consistency proof, an
//! empty line and the checkpoint; the answer is signature lines. What a witness signed for a log can never be taken back
//! by that log: a rollback or a second history shows. HTTP is the caller's business, and so is the clock.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::checkpoint::{Checkpoint, SignedCheckpoint, parse_size};
use crate::files;
use crate::key::{SigningKey, VerifierKey};
use crate::merkle::Hash;
use crate::note::{NoteError, SignedNote, cosign};
use crate::proof::is_consistent;

/// Where a witness takes checkpoints.
pub const PATH: &str = "/add-checkpoint";
/// The content type of the answer that tells the size the witness knows.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";
/// No longer request is read.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;
const MAX_HASHES: usize = 63;

/// What a log sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The size of the tree that the witness is believed to know.
    pub old: u64,
    pub proof: Vec<Hash>,
    /// The signed note.
    pub checkpoint: String,
}

impl Request {
    pub fn to_text(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| format!("{}\n", hash.to_base64())).collect();
        format!("old {}\n{proof}\n{}", self.old, self.checkpoint)
    }

    pub fn parse(body: &[u8]) -> Option<Self> {
        let (head, checkpoint) = str::from_utf8(body).ok()?.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old = parse_size(lines.next()?.strip_prefix("old ")?)?;
        let proof = lines.map(Hash::from_base64).collect::<Option<Vec<_>>>()?;
        (proof.len() <= MAX_HASHES).then(|| Request { old, proof, checkpoint: checkpoint.to_owned() })
    }
}

/// What a witness answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: its signature lines for the checkpoint.
    Cosigned(String),
    /// 400: not a request, or an old size beyond the new one.
    Malformed,
    /// 403: no signature by the log's key.
    BadSignature,
    /// 404: a log that this witness does not know.
    UnknownLog,
    /// 409: the witness knows a tree of this size, and the proof must begin there.
    Conflict { known: u64 },
    /// 422: the proof does not show that the new tree continues the known one.
    BadProof,
}

impl Answer {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Answer::Cosigned(_) => 200,
            Answer::Malformed => 400,
            Answer::BadSignature => 403,
            Answer::UnknownLog => 404,
            Answer::Conflict { .. } => 409,
            Answer::BadProof => 422,
        }
    }
}

/// A witness and what it has signed, one file for each log.
#[derive(Debug)]
pub struct Witness {
    key: SigningKey,
    logs: Vec<VerifierKey>,
    dir: PathBuf,
}

impl Witness {
    /// Keeps its state in `dir`; two witnesses must not share one.
    pub fn new(dir: &Path, key: SigningKey, logs: Vec<VerifierKey>) -> io::Result<Self> {
        files::create_private_dir(dir)?;
        Ok(Witness { key: key.into_witness(), logs, dir: dir.to_owned() })
    }

    pub fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// The file that holds the last checkpoint signed for a log, cosignature included.
    pub fn kept(&self, origin: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
        let digest = Sha256::digest(origin);
        let readable: String = origin.chars().map(plain).take(100).collect();
        self.dir
            .join(format!("{readable}-{:02x}{:02x}{:02x}{:02x}.checkpoint", digest[0], digest[1], digest[2], digest[3]))
    }

    /// Answers one request. What is signed is durable before it is answered.
    pub fn add_checkpoint(&mut self, body: &[u8], unix_seconds: u64) -> io::Result<Answer> {
        let Some(Request { old, proof, checkpoint: note }) = Request::parse(body) else { return Ok(Answer::Malformed) };
        let claimed = SignedNote::parse(note.as_bytes()).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
        let Some(claimed) = claimed else { return Ok(Answer::Malformed) };
        let Some(log) = self.logs.iter().find(|log| log.name() == claimed.origin) else {
            return Ok(Answer::UnknownLog);
        };
        let Ok(SignedCheckpoint { checkpoint, .. }) =
            SignedCheckpoint::open(note.as_bytes(), std::slice::from_ref(log))
        else {
            return Ok(Answer::BadSignature);
        };
        if old > checkpoint.size {
            return Ok(Answer::Malformed);
        }
        let path = self.kept(&checkpoint.origin);
        let known = match fs::read(&path) {
            Ok(kept) => SignedCheckpoint::open(&kept, std::slice::from_ref(log)).map_err(io::Error::other)?.checkpoint,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Checkpoint::of(&checkpoint.origin, &crate::merkle::Frontier::new())
            }
            Err(error) => return Err(error),
        };
        if old != known.size || (old == checkpoint.size && checkpoint.root != known.root) {
            return Ok(Answer::Conflict { known: known.size });
        }
        if !is_consistent(old, &known.root, checkpoint.size, &checkpoint.root, &proof) {
            return Ok(Answer::BadProof);
        }
        let line = cosign(&checkpoint.to_text(), &self.key, unix_seconds);
        let (_, signatures) = note.rsplit_once("\n\n").unwrap_or_default();
        let log_lines = format!("{}\n{signatures}", checkpoint.to_text());
        files::replace(&path, format!("{log_lines}{line}").as_bytes())?;
        Ok(Answer::Cosigned(line))
    }
}

/// The note with the witness's signature lines behind its own, if they are by `witness` and fit.
pub fn cosigned(note: &str, lines: &str, witness: &VerifierKey) -> Result<String, NoteError> {
    let cosigned = format!("{note}{lines}");
    let parsed = SignedNote::parse(cosigned.as_bytes())?;
    parsed.verify(std::slice::from_ref(witness))?;
    Ok(cosigned)
}
