//! What leaves the node by itself: series by OTLP metrics; records of the audit log by OTLP logs, to a file of lines, by a
//! signed webhook; and the log's checkpoints to a file and to witnesses.
//!
//! Records are read by cursor from the log, which is the only buffer: nothing here holds the core up, and a receiver
//! that is down costs nothing but lag. Exporters share one thread with a runtime of its own, so that their disk waits
//! stop nobody else. A further sink of records is one file with a [`sink::Sink`], started here.

mod account;
mod anchor;
pub mod cursor;
mod gen_ai;
pub mod http;
mod jsonl;
mod metrics;
mod otlp;
mod otlp_logs;
mod sink;
mod tail;
pub mod webhook;

use std::{future::Future, io, path::PathBuf, pin::Pin, thread::JoinHandle, time::Duration};

use plumbline_audit::VerifierKey;
use thiserror::Error;
use tokio::sync::watch;

use self::{
    anchor::Anchor,
    jsonl::Jsonl,
    otlp_logs::OtlpLogs,
    sink::{Exporter, Sink},
    webhook::{SecretError, Webhook},
};
use crate::{config::Config, core::SharedStore};

/// How long a stop waits for receivers; what they did not take then, the next start ships.
const FLUSH_AT_STOP: Duration = Duration::from_secs(2);

/// How long a runtime that ends waits for a name look-up that hangs.
const RUNTIME_END: Duration = Duration::from_millis(100);

#[derive(Debug, Error)]
pub enum ShipStartError {
    #[error("the operating system refused the thread of the exporters")]
    System(#[from] io::Error),
    #[error("the webhook cannot be used")]
    Webhook(#[from] SecretError),
}

/// The cursors of the exporters of records that are configured: what none of them has shipped is not pruned.
pub fn cursors(config: &Config) -> Vec<PathBuf> {
    let names = [
        config.otlp.is_some().then_some(OtlpLogs::CURSOR),
        config.jsonl.is_some().then_some(Jsonl::CURSOR),
        config.webhook.is_some().then_some(Webhook::CURSOR),
    ];
    names.into_iter().flatten().map(|name| config.cursor_dir().join(name)).collect()
}

/// What runs until the stop and then has a moment to finish; whether it did.
type Work = Pin<Box<dyn Future<Output = bool> + Send>>;

async fn records<S: Sink>(mut exporter: Exporter<S>, mut stop: watch::Receiver<bool>) -> bool {
    tokio::select! {
        _ = stop.wait_for(|&stop| stop) => {}
        never = exporter.run() => match never {},
    }
    tokio::time::timeout(FLUSH_AT_STOP, exporter.drain()).await.is_ok_and(|drained| drained.is_ok())
}

async fn series(mut exporter: metrics::Exporter, mut stop: watch::Receiver<bool>) -> bool {
    tokio::select! {
        _ = stop.wait_for(|&stop| stop) => {}
        never = exporter.run() => match never {},
    }
    tokio::time::timeout(FLUSH_AT_STOP, exporter.send()).await.is_ok()
}

async fn checkpoints(mut anchor: Anchor, mut stop: watch::Receiver<bool>) -> bool {
    tokio::select! {
        _ = stop.wait_for(|&stop| stop) => {}
        never = anchor.run() => match never {},
    }
    tokio::time::timeout(FLUSH_AT_STOP, anchor.step()).await.is_ok()
}

/// Starts what is configured; `None` when nothing is. `key` is the log's own.
pub fn start(
    config: &Config,
    store: &SharedStore,
    node: &str,
    key: &VerifierKey,
    stop: &watch::Receiver<bool>,
) -> Result<Option<JoinHandle<()>>, ShipStartError> {
    let (log_dir, cursor_dir) = (config.log_dir(), config.cursor_dir());
    let log = || (log_dir.as_path(), key.clone());
    let mut works: Vec<Work> = Vec::new();
    if let Some(otlp) = &config.otlp {
        works.push(Box::pin(series(metrics::Exporter::new(otlp, store, node), stop.clone())));
        let exporter = Exporter::new(OtlpLogs::new(otlp, node), store, log(), &cursor_dir);
        works.push(Box::pin(records(exporter, stop.clone())));
    }
    if let Some(jsonl) = &config.jsonl {
        works.push(Box::pin(records(Exporter::new(Jsonl::new(jsonl), store, log(), &cursor_dir), stop.clone())));
    }
    if let Some(webhook) = &config.webhook {
        works.push(Box::pin(records(Exporter::new(Webhook::new(webhook)?, store, log(), &cursor_dir), stop.clone())));
    }
    if let Some(anchor) = Anchor::new(&config.audit, store, log(), &config.state_dir) {
        works.push(Box::pin(checkpoints(anchor, stop.clone())));
    }
    if works.is_empty() {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        runtime.block_on(async {
            let tasks: Vec<_> = works.into_iter().map(tokio::spawn).collect();
            for task in tasks {
                if !task.await.unwrap_or(false) {
                    tracing::warn!("a receiver did not take everything before the end; the next start goes on");
                }
            }
        });
        runtime.shutdown_timeout(RUNTIME_END);
    };
    Ok(std::thread::Builder::new().name("ship".to_owned()).spawn(run).map(Some)?)
}
