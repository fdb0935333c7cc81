//! `plumbline audit …`: the log, for those who hold the node as well as for those who only hold its key.

use std::{path::PathBuf, process::ExitCode};

use plumbline_audit::{
    Reader,
    verify::{self, verify},
};

use super::{failed, say};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Prove the log: exit 0 intact, 1 tampered, 2 incomplete but declared, 3 untrusted key, 4 usage
    Verify(Verify),
    /// Print records, one JSON object per line, byte for byte as they were hashed
    Cat(Cat),
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The log's directory
    directory: PathBuf,
    /// The node's verifier key, or a file that holds it
    #[arg(long, value_name = "VKEY")]
    key: String,
    /// A checkpoint kept elsewhere, which the log must contain
    #[arg(long, value_name = "FILE")]
    expect_at_least: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Human,
    Json,
}

#[derive(Debug, clap::Args)]
pub(super) struct Cat {
    /// The log's directory
    directory: PathBuf,
    /// The first record
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    from: u64,
}

/// `verify` has no answer at all.
const USAGE: u8 = 4;

pub(super) fn main(command: &Command) -> ExitCode {
    match command {
        Command::Verify(arguments) => match verify_log(arguments) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                failed(error.as_ref());
                ExitCode::from(USAGE)
            }
        },
        Command::Cat(arguments) => match cat(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
    }
}

fn verify_log(arguments: &Verify) -> Result<u8, Box<dyn std::error::Error>> {
    let trusted = [verify::key_from_text_or_file(&arguments.key)?];
    let expected = arguments.expect_at_least.as_deref();
    let options = verify::Options {
        expect_at_least: expected.map(|path| verify::checkpoint_from_file(path, &trusted)).transpose()?,
        ..verify::Options::default()
    };
    let report = verify(&arguments.directory, &trusted, &options)?;
    match arguments.format {
        Format::Human => say(report.to_string().trim_end()),
        Format::Json => say(&serde_json::to_string(&report)?),
    }
    Ok(report.exit_code())
}

fn cat(arguments: &Cat) -> Result<(), plumbline_audit::reader::ReadError> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    for entry in Reader::from_seq(&arguments.directory, arguments.from)? {
        // A reader who left (`| head`) is no error.
        if out.write_all(&entry?.bytes).and_then(|()| out.write_all(b"\n")).is_err() {
            break;
        }
    }
    Ok(())
}
