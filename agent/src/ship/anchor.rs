//! Checkpoints leave the node: to a file, and to witnesses who sign them.
//!
//! A line of the file is `{"unix_ms": …, "size": …, "checkpoint": "…"}`; on storage that cannot be written over, or tailed by a
//! collector, it holds the node to its word. A witness (C2SP tlog-witness) signs only what continues what it signed before;
//! the checkpoint with its signature is kept in the state directory, one file for each witness.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hyper::{StatusCode, body::Bytes};
use plumbline_audit::{
    VerifierKey,
    checkpoint::SignedCheckpoint,
    log::CHECKPOINT_FILE,
    note::NoteError,
    tlog_proof::{ProveError, prove_consistency},
    verify::{VerifyError, checkpoint_from_file},
    witness::{self, Request, cosigned},
};
use serde_json::json;
use thiserror::Error;

use super::{
    account::Account,
    http::{Client, SendError},
};
use crate::{
    clock,
    config::{AuditConfig, WitnessConfig},
    core::SharedStore,
    files,
};

/// How often it is looked whether there is a new checkpoint.
const POLL: Duration = Duration::from_millis(500);
/// After a failure a witness is left alone for so long.
const RETRY: Duration = Duration::from_secs(10);
/// A witness that knows less or more than was thought says so; once is enough to agree.
const ATTEMPTS: usize = 2;

#[derive(Debug, Error)]
enum AnchorError {
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Checkpoint(#[from] VerifyError),
    #[error("no proof for the witness")]
    Prove(#[from] ProveError),
    #[error("the witness did not sign")]
    Send(#[from] SendError),
    #[error("the witness's answer is no signature of its own")]
    Signature(#[from] NoteError),
    #[error("the witness does not say which size of the log it knows, or another one each time")]
    Unsettled,
    #[error("the witness knows a longer log of {known} records than this one of {size}: it was cut or rolled back")]
    Rollback { known: u64, size: u64 },
}

#[derive(Debug)]
pub(super) struct Anchor {
    log_dir: PathBuf,
    key: [VerifierKey; 1],
    file: Option<PathBuf>,
    file_account: Account,
    published: Option<SystemTime>,
    witnesses: Vec<Witness>,
}

#[derive(Debug)]
struct Witness {
    client: Client,
    vkey: VerifierKey,
    /// Where the checkpoint that it signed last is kept.
    kept: PathBuf,
    /// The size of that checkpoint.
    known: u64,
    account: Account,
    not_before: Option<tokio::time::Instant>,
}

impl Anchor {
    /// `None` when nothing is configured.
    pub(super) fn new(
        config: &AuditConfig,
        store: &SharedStore,
        log: (&Path, VerifierKey),
        state_dir: &Path,
    ) -> Option<Self> {
        if config.checkpoint_file.is_none() && config.witnesses.is_empty() {
            return None;
        }
        let key = [log.1];
        let witness = |config: &WitnessConfig| {
            let vkey = config.vkey.clone();
            let kept = state_dir.join("witness").join(file_name(vkey.name()));
            let known = checkpoint_from_file(&kept, &key).map_or(0, |signed| signed.checkpoint.size);
            let account = Account::new(&format!("witness:{}", vkey.name()), store);
            Witness { client: Client::new(config.url.clone()), vkey, kept, known, account, not_before: None }
        };
        Some(Self {
            log_dir: log.0.to_owned(),
            witnesses: config.witnesses.iter().map(witness).collect(),
            key,
            file: config.checkpoint_file.clone(),
            file_account: Account::new("checkpoint-file", store),
            published: None,
        })
    }

    pub(super) async fn run(&mut self) -> std::convert::Infallible {
        loop {
            self.step().await;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Takes a checkpoint that was published since the last step everywhere.
    pub(super) async fn step(&mut self) {
        let path = self.log_dir.join(CHECKPOINT_FILE);
        let published = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
        let signed = match checkpoint_from_file(&path, &self.key) {
            Ok(signed) => signed,
            Err(error) => return self.file_account.failed(&error),
        };
        if let Some(file) = &self.file
            && published != self.published
        {
            match append(file, &signed) {
                Ok(()) => {
                    self.file_account.succeeded(1);
                    self.published = published;
                }
                Err(source) => self.file_account.failed(&AnchorError::Write { path: file.clone(), source }),
            }
        }
        for witness in &mut self.witnesses {
            witness.account.lag(Some(signed.checkpoint.size.saturating_sub(witness.known)));
            let now = tokio::time::Instant::now();
            if (signed.checkpoint.size == witness.known && witness.kept.exists())
                || witness.not_before.is_some_and(|time| now < time)
            {
                continue;
            }
            match witness.ask(&self.log_dir, &self.key).await {
                Ok(()) => witness.account.succeeded(1),
                Err(error) => {
                    witness.account.failed(&error);
                    witness.not_before = Some(now + RETRY);
                }
            }
        }
    }
}

impl Witness {
    async fn ask(&mut self, log_dir: &Path, key: &[VerifierKey]) -> Result<(), AnchorError> {
        for _ in 0..ATTEMPTS {
            let (proof, signed) = prove_consistency(log_dir, self.known, key)?;
            let request = Request { old: self.known, proof, checkpoint: signed.note.clone() };
            match self.client.post_with(witness::PATH, Bytes::from(request.to_text()), &[]).await {
                Ok(lines) => {
                    let note = cosigned(&signed.note, &String::from_utf8_lossy(&lines), &self.vkey)?;
                    let write = |source| AnchorError::Write { path: self.kept.clone(), source };
                    files::replace(&self.kept, note.as_bytes()).map_err(write)?;
                    self.known = signed.checkpoint.size;
                    return Ok(());
                }
                Err(SendError::Refused { status: StatusCode::CONFLICT, answer, .. }) => {
                    let known = str::from_utf8(&answer).ok().and_then(|text| text.trim().parse().ok());
                    let known = known.ok_or(AnchorError::Unsettled)?;
                    let size = signed.checkpoint.size;
                    if known > size {
                        return Err(AnchorError::Rollback { known, size });
                    }
                    self.known = known;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(AnchorError::Unsettled)
    }
}

fn file_name(witness: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    witness.chars().map(plain).collect::<String>() + ".checkpoint"
}

fn append(path: &Path, signed: &SignedCheckpoint) -> io::Result<()> {
    let line = json!({
        "unix_ms": clock::unix_ns() / 1_000_000,
        "size": signed.checkpoint.size,
        "checkpoint": signed.note,
    });
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}
