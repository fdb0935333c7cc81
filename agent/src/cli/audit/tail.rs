//! `plumbline audit tail`: the last records as lines, and those to come.

use std::{io::Write as _, time::Duration};

use plumbline_audit::{Reader, reader::Entry, segment};

use super::{LogDir, Outcome, Output};
use crate::review::line::line;

/// How often a followed log is asked for more.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    log: LogDir,
    /// How many of the last records
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    lines: usize,
    /// Go on with the records to come
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = arguments.log.path()?;
    // Enough segments from the end to hold so many records, and no more.
    let starts: Vec<u64> = segment::list(&directory)?.iter().map(|segment| segment.first_seq).collect();
    let mut last: Vec<Entry> = Vec::new();
    let mut reader = Reader::from_seq(&directory, starts.last().copied().unwrap_or(0))?;
    for start in starts.iter().rev() {
        reader = Reader::from_seq(&directory, *start)?;
        last = reader.by_ref().collect::<Result<_, _>>()?;
        if last.len() >= arguments.lines {
            break;
        }
    }
    let skip = last.len().saturating_sub(arguments.lines);
    let mut out = std::io::stdout().lock();
    let mut print = |entry: &Entry| {
        if arguments.output.is_json() {
            out.write_all(&entry.bytes).and_then(|()| out.write_all(b"\n"))
        } else {
            writeln!(out, "{}", line(&entry.bytes))
        }
        .and_then(|()| out.flush())
    };
    for entry in &last[skip..] {
        if print(entry).is_err() {
            return Ok(0);
        }
    }
    if !arguments.follow {
        return Ok(0);
    }
    loop {
        match reader.next().transpose()? {
            // A reader who left is no error.
            Some(entry) if print(&entry).is_err() => return Ok(0),
            Some(_) => {}
            None => std::thread::sleep(POLL),
        }
    }
}
