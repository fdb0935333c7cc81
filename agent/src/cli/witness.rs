//! `plumbline witness`: signs the checkpoints of other machines' logs, if each continues the one before.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::post,
};
use plumbline_audit::{
    SigningKey,
    verify::key_from_text_or_file,
    witness::{Answer, MAX_REQUEST_BYTES, PATH, SIZE_CONTENT_TYPE, Witness},
};

use super::{failed, say};
use crate::{clock, core::chain, custody::keys::read_private};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  plumbline audit keygen --name witness.example/w1 --witness --out witness.key
  plumbline witness --key witness.key --log node-17.vkey --listen 0.0.0.0:9479 --state-dir /var/lib/plumbline-witness
The protocol is C2SP tlog-witness. The last checkpoint of each log, signed by log and witness, is a file in the state
directory: give it to `plumbline-verify --expect-at-least`.")]
pub(super) struct Arguments {
    /// The witness's own key, a file of mode 600
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A log to witness: its verifier key, or a file that holds it; can be given more than once
    #[arg(long, value_name = "VKEY|FILE", required = true)]
    log: Vec<String>,
    /// Where what was signed is kept
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9479")]
    listen: SocketAddr,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error.as_ref()),
    }
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let key: SigningKey = read_private(&arguments.key)?;
    let logs = arguments.log.iter().map(|log| key_from_text_or_file(log)).collect::<Result<Vec<_>, _>>()?;
    let witness = Witness::new(&arguments.state_dir, key, logs)?;
    let vkey = witness.verifier().to_string();
    let router = Router::new()
        .route(PATH, post(add_checkpoint))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(Arc::new(Mutex::new(witness)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = crate::http::bind(arguments.listen).await?;
        say(&format!("witness {vkey} listens on {}", listener.local_addr()?));
        axum::serve(listener, router).await?;
        Ok(())
    })
}

async fn add_checkpoint(State(witness): State<Arc<Mutex<Witness>>>, body: Bytes) -> Response {
    // The flush to the disk is short, and one request at a time is the point.
    let mut witness = witness.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = match witness.add_checkpoint(&body, clock::unix_ns() / 1_000_000_000) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("plumbline: cannot keep what was to be signed: {}", chain(&error));
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match answer {
        Answer::Cosigned(lines) => (status, lines).into_response(),
        Answer::Conflict { known } => {
            (status, [(CONTENT_TYPE, SIZE_CONTENT_TYPE)], format!("{known}\n")).into_response()
        }
        _ => status.into_response(),
    }
}
