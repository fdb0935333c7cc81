//! Writes an audit log as fast as it can and says after each commit how many records are durable, until it is killed.
//!
//! `log-writer DIR`: the other half of the check that kills it.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use plumbline_audit::{Draft, Log, Options, SigningKey};
use serde_json::json;

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("log-writer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("which directory?")?);
    let options = Options {
        segment_bytes: 64 << 10,
        checkpoint_every_records: 100,
        checkpoint_every: Duration::from_millis(30),
        commit_every_records: 16,
        epoch_every: Duration::from_millis(20),
        ..Options::new(SigningKey::from_seed("log.example/killed", &[1; 32])?)
    };
    let start = Instant::now();
    let (mut log, _) = Log::open(&dir, options)?;
    let mut out = std::io::stdout().lock();
    let mut told = 0;
    for number in 0.. {
        let event = json!({"class_uid": 1001, "message": "x".repeat(number % 700)});
        log.append(&Draft::new(event.as_object().cloned().unwrap_or_default())?)?;
        log.tick(start.elapsed())?;
        if log.durable() != told {
            told = log.durable();
            writeln!(out, "{told}")?;
            out.flush()?;
        }
        if number % 997 == 996 {
            log.prune(told / 2, "as a part of the check")?;
        }
    }
    Ok(())
}
