//! What leaves the node by itself: series by OTLP metrics, and the records of the audit log by OTLP logs.
//!
//! Records are read by cursor from the log, which is the only buffer: nothing here holds the core up, and a receiver
//! that is down costs nothing but lag. Exporters share one thread with a runtime of its own, so that their disk waits
//! stop nobody else. A further sink of records is a [`tail::Tail`] with a cursor of its own and what turns a batch
//! into a request, started here.

mod account;
pub mod cursor;
pub mod http;
mod logs;
mod metrics;
mod otlp;
mod tail;

use std::{io, thread::JoinHandle, time::Duration};

use plumbline_audit::VerifierKey;
use tokio::sync::watch;

use crate::{config::Config, core::SharedStore};

/// How long a stop waits for receivers; what they did not take then, the next start ships.
const FLUSH_AT_STOP: Duration = Duration::from_secs(2);

/// How long a runtime that ends waits for a name look-up that hangs.
const RUNTIME_END: Duration = Duration::from_millis(100);

/// Starts what is configured; `None` when nothing is. `key` is the log's own.
pub fn start(
    config: &Config,
    store: &SharedStore,
    node: &str,
    key: &VerifierKey,
    mut stop: watch::Receiver<bool>,
) -> io::Result<Option<JoinHandle<()>>> {
    let Some(otlp) = &config.otlp else { return Ok(None) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut metrics = metrics::Exporter::new(otlp, store, node);
    let mut logs =
        logs::Exporter::new(otlp, store, node, (&config.log_dir(), key.clone()), &config.cursor_dir().join("otlp"));
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = stop.wait_for(|&stop| stop) => {}
                _ = async { tokio::join!(metrics.run(), logs.run()) } => {}
            }
            let flush = async { tokio::join!(metrics.send(), logs.drain()) };
            if !matches!(tokio::time::timeout(FLUSH_AT_STOP, flush).await, Ok(((), Ok(())))) {
                tracing::warn!("the receiver did not take every record before the end; the next start goes on");
            }
        });
        runtime.shutdown_timeout(RUNTIME_END);
    };
    std::thread::Builder::new().name("ship".to_owned()).spawn(run).map(Some)
}
