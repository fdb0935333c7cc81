//! Opening the log: key, recorder, recovery, and what is said first.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use plumbline_audit::{Log, LogError, Options, Recovery, VerifierKey};
use plumbline_policy::PolicySet;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    keeper::{DaemonKeeper, InForce},
    keys::{self, NodeKey, NodeKeyError},
    room,
};
use crate::{
    clock,
    config::{Config, LEAST_RETENTION_DAYS},
    event::{Gap, Hook, Start, What},
    record::{Recorder, redact::Redactor},
};

/// The log, and what its opening brought along.
pub struct Opened {
    pub log: Log,
    pub recovery: Recovery,
    pub recorder: Recorder,
    pub in_force: Arc<Mutex<InForce>>,
    pub vkey: VerifierKey,
    key_source: String,
}

/// Why there is no log to write.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("cannot use the state directory {}", path.display())]
    State { path: PathBuf, source: io::Error },
    #[error("the node's key cannot be used")]
    Key(#[from] NodeKeyError),
    #[error("the audit log cannot be opened")]
    Log(#[source] LogError),
}

/// Opens the log with the node's key, both made at the first start.
pub fn open(config: &Config, node: &str, policies: &PolicySet) -> Result<Opened, OpenError> {
    let state = |source| OpenError::State { path: config.state_dir.clone(), source };
    fs::create_dir_all(&config.state_dir).map_err(state)?;
    let NodeKey { key, source: key_source } = keys::node_key(&config.key_file(), node)?;
    let vkey = key.verifier().clone();
    fs::write(config.vkey_file(), format!("{vkey}\n"))
        .map_err(|source| OpenError::State { path: config.vkey_file(), source })?;
    let recorder = Recorder {
        hostname: node.to_owned(),
        boot_id: clock::boot_id(),
        build: build_digest(),
        redactor: Arc::new(Redactor::new(&config.audit.redact).unwrap_or_default()),
        processes: config.audit.record_processes,
    };
    let in_force = InForce { digest: policies.digest().to_owned(), generation: policies.generation() };
    let in_force = Arc::new(Mutex::new(in_force));
    let (commit_every_records, commit_every) = config.audit.commit_every();
    let options = Options {
        segment_bytes: config.audit.segment_bytes,
        checkpoint_every_records: config.audit.checkpoint_records,
        checkpoint_every: config.audit.checkpoint_every(),
        commit_every_records,
        commit_every,
        epoch_every: config.audit.epoch_every(),
        keeper: Arc::new(DaemonKeeper { recorder: recorder.clone(), in_force: Arc::clone(&in_force) }),
        ..Options::new(key)
    };
    let opened = Log::open(&config.log_dir(), options.clone());
    // A log that was filled to the last byte is opened with the room of its ballast.
    let (log, recovery) = match opened {
        Err(error) if error.is_storage_full() && room::remove_ballast(&config.log_dir()) => {
            Log::open(&config.log_dir(), options)
        }
        opened => opened,
    }
    .map_err(OpenError::Log)?;
    tracing::info!(dir = %config.log_dir().display(), %vkey, previous = describe(&recovery), "audit log is open");
    Ok(Opened { log, recovery, recorder, in_force, vkey, key_source })
}

/// How the log is kept, in words: what a reviewer must know to judge it.
pub fn keeping(config: &Config, opened: &Opened, memory: String) -> Vec<(String, String)> {
    let audit = &config.audit;
    let (records, every) = audit.commit_every();
    let retention = match &audit.retention_override {
        Some(reason) if audit.retention_days < LEAST_RETENTION_DAYS => {
            format!("{} days, OVERRIDE: {reason}", audit.retention_days)
        }
        _ => format!("{} days", audit.retention_days),
    };
    [
        ("commit", format!("after {records} records or {every:?}; severe records at once")),
        ("checkpoint", format!("after {} records or {:?}", audit.checkpoint_records, audit.checkpoint_every())),
        ("epoch", format!("every {:?}", audit.epoch_every())),
        ("retention", retention),
        ("key", opened.key_source.clone()),
        ("memory", memory),
    ]
    .into_iter()
    .map(|(name, state)| (name.to_owned(), state))
    .collect()
}

/// What is said before anything else: that nobody watched until now, that somebody does, and with what.
pub fn starting(recovery: &Recovery, hooks: Vec<Hook>, start: Start) -> Vec<What> {
    let last: Option<serde_json::Value> =
        recovery.last_record.as_ref().and_then(|record| serde_json::from_slice(record).ok());
    let last = last.unwrap_or_default();
    let gap = Gap {
        from_unix_ns: last["unmapped"]["plumbline"]["unix_ns"].as_u64(),
        reboot: last["device"]["boot_uid"].as_str().is_some_and(|boot| boot != clock::boot_id()),
        orderly: recovery.clean_stop,
    };
    let gap = (!recovery.created).then_some(What::Gap(gap));
    gap.into_iter().chain([What::Start(start)]).chain(hooks.into_iter().map(What::Hook)).collect()
}

pub fn describe(recovery: &Recovery) -> String {
    let Recovery { created, last_seq, clean_stop, dropped_bytes, .. } = recovery;
    match last_seq {
        _ if *created => "new".to_owned(),
        None => "empty".to_owned(),
        Some(seq) if *clean_stop => format!("closed in order after record {seq}"),
        Some(seq) => format!("not closed; recovered up to record {seq}, {dropped_bytes} bytes of a torn frame dropped"),
    }
}

/// SHA-256 of the running executable, kernel programs included, since they are part of it.
pub fn build_digest() -> String {
    static DIGEST: Mutex<Option<String>> = Mutex::new(None);
    let mut digest = DIGEST.lock().unwrap_or_else(PoisonError::into_inner);
    digest
        .get_or_insert_with(|| {
            let bytes = fs::read("/proc/self/exe").unwrap_or_default();
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recovery(last: Option<serde_json::Value>, clean_stop: bool) -> Recovery {
        Recovery {
            created: last.is_none(),
            last_seq: last.as_ref().map(|_| 7),
            clean_stop,
            signed: 8,
            dropped_bytes: 0,
            last_record: last.map(|record| record.to_string().into_bytes()),
        }
    }

    /// What is said first, in words.
    #[track_caller]
    fn check(recovery: &Recovery, expect: Option<Gap>) {
        let start = Start { coverage: Vec::new(), previous: String::new(), keeping: Vec::new() };
        let said = starting(recovery, Vec::new(), start.clone());
        let gap = expect.map(What::Gap);
        assert_eq!(said, gap.into_iter().chain([What::Start(start)]).collect::<Vec<_>>());
    }

    #[test]
    fn a_start_tells_since_when_nobody_watched_and_whether_the_machine_was_started_anew() {
        let last = |boot: &str| json!({"device": {"boot_uid": boot}, "unmapped": {"plumbline": {"unix_ns": 5}}});
        let gap = |reboot, orderly| Some(Gap { from_unix_ns: Some(5), reboot, orderly });
        check(&recovery(None, true), None);
        check(&recovery(Some(last(&clock::boot_id())), true), gap(false, true));
        check(&recovery(Some(last(&clock::boot_id())), false), gap(false, false));
        check(&recovery(Some(last("another boot")), true), gap(true, true));
        let unreadable = Recovery { last_record: Some(b"\xff".to_vec()), ..recovery(Some(json!({})), true) };
        check(&unreadable, Some(Gap { from_unix_ns: None, reboot: false, orderly: true }));
    }
}
