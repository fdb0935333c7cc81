//! `plumbline audit stat`: what the log holds and how fast it grows.

use std::fs;

use plumbline_audit::{Reader, log::CHECKPOINT_FILE, record::Envelope, segment, verify::checkpoint_from_file};
use serde::Serialize;

use super::{Keys, LogDir, Outcome, Output};
use crate::{cli::say, config::LEAST_RETENTION_DAYS, review::time::rfc3339_ms};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    log: LogDir,
    #[command(flatten)]
    keys: Keys,
    /// Days for which the size is projected
    #[arg(long, default_value_t = LEAST_RETENTION_DAYS)]
    days: u64,
    #[command(flatten)]
    output: Output,
}

/// A rate over less time than this tells nothing.
const LEAST_SECONDS: u64 = 600;

/// Bytes are of segments; the hashes beside them are 32 bytes a record and more.
#[derive(Debug, Default, Serialize)]
struct Stat {
    origin: String,
    segments: usize,
    bytes: u64,
    /// Records with bytes.
    records: u64,
    pruned: u64,
    /// Records that the published checkpoint signs, which are durable.
    signed: u64,
    root: String,
    first_time: Option<String>,
    last_time: Option<String>,
    seconds: Option<u64>,
    records_per_day: Option<u64>,
    bytes_per_day: Option<u64>,
    projected_days: u64,
    projected_bytes: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = arguments.log.path()?;
    let trusted = arguments.keys.trusted(&directory)?;
    let signed = checkpoint_from_file(&directory.join(CHECKPOINT_FILE), &trusted)?.checkpoint;
    let segments = segment::list(&directory)?;
    let mut stat = Stat {
        origin: signed.origin,
        segments: segments.len(),
        signed: signed.size,
        root: signed.root.to_base64(),
        projected_days: arguments.days,
        ..Stat::default()
    };
    for segment in &segments {
        stat.bytes += fs::metadata(&segment.path)?.len();
    }
    let (mut first_ms, mut last_ms, mut next) = (None, None, 0);
    for entry in Reader::from_seq(&directory, 0)? {
        let entry = entry?;
        stat.records += 1;
        stat.pruned += entry.seq - next;
        next = entry.seq + 1;
        if let Some(time) = Envelope::parse(&entry.bytes).ok().and_then(|envelope| envelope.time_ms()) {
            first_ms.get_or_insert(time);
            last_ms = Some(time);
        }
    }
    stat.first_time = first_ms.map(rfc3339_ms);
    stat.last_time = last_ms.map(rfc3339_ms);
    if let (Some(first), Some(last)) = (first_ms, last_ms) {
        let seconds = last.saturating_sub(first) / 1000;
        let per_day =
            |amount: u64| (seconds >= LEAST_SECONDS).then(|| u128::from(amount) * 86_400 / u128::from(seconds));
        let whole = |amount: u128| u64::try_from(amount).unwrap_or(u64::MAX);
        stat.seconds = Some(seconds);
        stat.records_per_day = per_day(stat.records).map(whole);
        stat.bytes_per_day = per_day(stat.bytes).map(whole);
        stat.projected_bytes = per_day(stat.bytes).map(|bytes| whole(bytes * u128::from(arguments.days)));
    }
    if arguments.output.is_json() {
        say(&serde_json::to_string(&stat)?);
    } else {
        show(&stat);
    }
    Ok(0)
}

fn show(stat: &Stat) {
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "not known: too little time".to_owned());
    say(&format!("log        {}", stat.origin.escape_debug()));
    say(&format!("segments   {}, {} bytes", stat.segments, stat.bytes));
    say(&format!("records    {}, and {} whose bytes were pruned", stat.records, stat.pruned));
    say(&format!("signed     {}, root {}", stat.signed, stat.root));
    say(&format!("from       {}", or_unknown(stat.first_time.clone())));
    say(&format!("to         {}", or_unknown(stat.last_time.clone())));
    say(&format!("a day      {} records", or_unknown(stat.records_per_day.map(|number| number.to_string()))));
    let mib = stat.projected_bytes.map(|bytes| format!("{} MiB at this rate", bytes >> 20));
    say(&format!("{:<3} days   {}", stat.projected_days, or_unknown(mib)));
}
