//! `plumbline audit cat`: the records' exact bytes.

use std::io::Write as _;

use plumbline_audit::Reader;

use super::{LogDir, Outcome};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    log: LogDir,
    /// The first record
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    from: u64,
    /// Just that record
    #[arg(long, conflicts_with = "from", value_name = "SEQ")]
    seq: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let from = arguments.seq.unwrap_or(arguments.from);
    let mut out = std::io::stdout().lock();
    for entry in Reader::from_seq(&arguments.log.path()?, from)? {
        let entry = entry?;
        if arguments.seq.is_some_and(|seq| seq != entry.seq) {
            return Err(format!("record {from} has no bytes any more: it was pruned").into());
        }
        // A reader who left (`| head`) is no error.
        if out.write_all(&entry.bytes).and_then(|()| out.write_all(b"\n")).is_err() || arguments.seq.is_some() {
            return Ok(0);
        }
    }
    match arguments.seq {
        Some(seq) => Err(format!("there is no record {seq} yet").into()),
        None => Ok(0),
    }
}
