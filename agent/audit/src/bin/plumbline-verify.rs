//! `plumbline-verify`: verifies an audit log on any machine, with a public key and nothing else.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use plumbline_audit::checkpoint::CheckpointError;
use plumbline_audit::note::NoteError;
use plumbline_audit::verify::{Options, VerifyError, checkpoint_from_file, key_from_text_or_file, verify};
use plumbline_audit::{Report, VerifierKey};

const UNTRUSTED: u8 = 3;
const NO_ANSWER: u8 = 4;

/// Verify that an audit log is what its node wrote: nothing changed, removed, added or reordered.
///
/// Reads the files of the log and nothing else; the log may be a copy, and it may be written meanwhile.
#[derive(Debug, Parser)]
#[command(
    name = "plumbline-verify",
    version,
    after_help = "\
Exit codes:
  0  intact
  1  tampered: the place, what was expected and what was found are printed
  2  intact but incomplete: records declare that events were lost
  3  signed with a key that is not trusted
  4  no answer: wrong usage, or the log cannot be read

Records after the last checkpoint are counted as not yet signed. That records were cut off from the end since
a checkpoint left the node shows only against that checkpoint: give it with --expect-at-least."
)]
struct Arguments {
    /// Directory of the log.
    dir: PathBuf,
    /// Key to trust: `<name>+<id>+<base64>`, or a file that holds it. Can be given more than once.
    #[arg(long, value_name = "VKEY|FILE", required = true)]
    key: Vec<String>,
    /// Signed checkpoint kept outside the node, which the log must contain.
    #[arg(long, value_name = "FILE")]
    expect_at_least: Option<PathBuf>,
    /// The log is at rest: records after its last checkpoint are tampering, and not the work of a running writer.
    #[arg(long)]
    at_rest: bool,
    /// Segments checked side by side [default: as many as there are processors].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Human,
    Json,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { NO_ANSWER } else { 0 });
        }
    };
    match run(&arguments) {
        Ok(report) => {
            print(&report, arguments.format);
            ExitCode::from(report.exit_code())
        }
        Err(error) => {
            eprintln!("plumbline-verify: {}", with_causes(&error));
            ExitCode::from(match error {
                VerifyError::Checkpoint {
                    source: CheckpointError::Note(NoteError::NoTrustedSignature | NoteError::WrongSignature { .. }),
                    ..
                } => UNTRUSTED,
                _ => NO_ANSWER,
            })
        }
    }
}

fn run(arguments: &Arguments) -> Result<Report, VerifyError> {
    let trusted =
        arguments.key.iter().map(|key| key_from_text_or_file(key)).collect::<Result<Vec<VerifierKey>, _>>()?;
    let expect_at_least =
        arguments.expect_at_least.as_deref().map(|path| checkpoint_from_file(path, &trusted)).transpose()?;
    let Arguments { dir, at_rest, threads, .. } = arguments;
    verify(dir, &trusted, &Options { expect_at_least, at_rest: *at_rest, threads: *threads })
}

fn print(report: &Report, format: Format) {
    use std::io::Write as _;
    let text = match format {
        Format::Human => report.to_string(),
        Format::Json => serde_json::to_string_pretty(report).expect("a report is plain data") + "\n",
    };
    // A closed pipe must not change the exit code, which is the answer.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
