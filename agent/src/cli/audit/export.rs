//! `plumbline audit export`: the log for somebody else.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use plumbline_audit::{
    Report, VerifierKey,
    checkpoint::SignedCheckpoint,
    evidence::copy_sealed,
    log::CHECKPOINT_FILE,
    tiles,
    verify::{self, checkpoint_from_file, verify},
};
use sha2::{Digest as _, Sha256};

use super::{
    Keys, LogDir, Outcome,
    report::{ReportFormat, render},
};
use crate::{
    cli::{ConfigFile, say},
    config::Config,
    review::{controls, time::WindowArguments},
};

/// What a reviewer needs beside the log, in every bundle.
const VERIFIER: &str = include_str!("../../../../tests/verify_log.py");
const FORMAT: &str = include_str!("../../../../docs/audit-format.md");

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    log: LogDir,
    #[command(flatten)]
    keys: Keys,
    /// The directory to write; it must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Segments, checkpoint, key, tiles, policies, report, controls, the format, a verifier, and SHA256SUMS
    #[arg(long, group = "what")]
    evidence: bool,
    /// Only C2SP tiles (tlog-tiles): a directory that any static web server can serve
    #[arg(long, group = "what")]
    tiles: bool,
    #[command(flatten)]
    window: WindowArguments,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = arguments.log.path()?;
    let trusted = arguments.keys.trusted(&directory)?;
    let out = &arguments.out;
    if out.exists() && fs::read_dir(out)?.next().is_some() {
        return Err(format!("{} is not empty", out.display()).into());
    }
    let signed = checkpoint_from_file(&directory.join(CHECKPOINT_FILE), &trusted)?;
    if arguments.tiles {
        let exported = tiles::export(&directory, &signed, out)?;
        say(&format!("{} records: {} tiles, {} bundles", signed.checkpoint.size, exported.tiles, exported.bundles));
        return Ok(0);
    }
    let log = out.join("log");
    let (signed, report) = sealed_copy(&directory, signed, &log, &trusted)?;
    tiles::export(&log, &signed, &out.join("tiles"))?;
    let key = format!("{}\n", report.key.clone().unwrap_or_default());
    let window = arguments.window.window()?;
    let files = [
        ("node.vkey", key),
        ("report.md", render(&log, &trusted, &window, ReportFormat::Markdown)?.0),
        ("report.html", render(&log, &trusted, &window, ReportFormat::Html)?.0),
        ("controls.md", controls::page()),
        ("audit-format.md", FORMAT.to_owned()),
        ("verify_log.py", VERIFIER.to_owned()),
        ("README", readme(&report.to_string())),
    ];
    for (name, text) in files {
        fs::write(out.join(name), text)?;
    }
    policies(&arguments.config, &out.join("policies"))?;
    copy_files(&directory.with_file_name("witness"), &out.join("witness"))?;
    fs::write(out.join("SHA256SUMS"), sums(out)?)?;
    say(report.to_string().trim_end());
    say(&format!("written to {}", out.display()));
    Ok(report.exit_code())
}

/// What is handed over is what is verified, as whoever gets it will do. A writer that prunes meanwhile changes segments
/// under the copy; then it is made again, under a later checkpoint.
fn sealed_copy(
    directory: &Path,
    mut signed: SignedCheckpoint,
    log: &Path,
    trusted: &[VerifierKey],
) -> Result<(SignedCheckpoint, Report), Box<dyn std::error::Error>> {
    let at_rest = verify::Options { at_rest: true, ..verify::Options::default() };
    loop {
        copy_sealed(directory, &signed, log)?;
        let report = verify(log, trusted, &at_rest)?;
        let later = checkpoint_from_file(&directory.join(CHECKPOINT_FILE), trusted)?;
        if matches!(report.exit_code(), 0 | 2) || later == signed {
            return Ok((signed, report));
        }
        fs::remove_dir_all(log)?;
        signed = later;
    }
}

fn readme(report: &str) -> String {
    format!(
        "Evidence from a Plumbline audit log. When it was written, verifying said:\n\n{report}\n\
         Trust the key in node.vkey only if it is the one that was enrolled: compare it with your inventory. A checkpoint\n\
         that left the node earlier shows whether anything was cut off: give it with --expect-at-least.\n\n\
         sha256sum -c SHA256SUMS\n\
         plumbline-verify log --key node.vkey --at-rest\n\
         python3 verify_log.py log \"$(cat node.vkey)\" --at-rest\n\n\
         tiles/ is the same log as C2SP tlog-tiles; policies/ holds the policies configured when this was written, and the\n\
         digest in each record says which were in force then. witness/, if it is there, holds the last checkpoint with the\n\
         signature of each witness.\n"
    )
}

/// The policies of the configuration, built-in ones included.
fn policies(config: &ConfigFile, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(out)?;
    match Config::load(config.config.as_deref())?.0.policies {
        None => {
            for (name, text) in plumbline_policy::EMBEDDED {
                fs::write(out.join(name), text)?;
            }
        }
        Some(directory) => copy_files(&directory, out)?,
    }
    Ok(())
}

/// The files of a directory, if there is one.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// As `sha256sum` writes and checks them.
fn sums(out: &Path) -> io::Result<String> {
    let (mut files, mut directories) = (Vec::new(), vec![out.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut text = String::new();
    for path in files {
        let mut digest = Sha256::new();
        let mut reader = BufReader::with_capacity(1 << 20, fs::File::open(&path)?);
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            digest.update(bytes);
            let count = bytes.len();
            reader.consume(count);
        }
        let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{hex}  {}\n", path.strip_prefix(out).unwrap_or(&path).display());
    }
    Ok(text)
}
