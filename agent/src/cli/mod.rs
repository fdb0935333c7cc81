//! The command line: one file per command.

mod audit;
mod check;
mod config;
mod doctor;
mod run;
mod status;
mod witness;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// From the token down to the silicon: an observability and audit daemon for nodes that serve large language models.
#[derive(Debug, Parser)]
#[command(name = "plumbline", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this node until SIGTERM or SIGINT
    Run(run::Arguments),
    /// Say what this node can and cannot see, and what to change
    Doctor(doctor::Arguments),
    /// Check policies and run their own tests
    Check(check::Arguments),
    /// Ask the running daemon how it fares
    Status(status::Arguments),
    /// Check the configuration, or show the one that holds
    #[command(subcommand)]
    Config(config::Command),
    /// Sign the checkpoints of other machines' logs (C2SP tlog-witness)
    Witness(witness::Arguments),
    /// Ends at once: what the daemon's self-test starts
    #[command(hide = true)]
    Canary,
    /// Verify, read, prove, report and export the audit log
    #[command(subcommand)]
    Audit(Box<audit::Command>),
}

/// Which configuration a command uses.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file [default: /etc/plumbline/config.yaml if it exists, else built-in defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command that was asked for.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Of `audit`, 2 is an answer.
            let of_audit = std::env::args_os().nth(1).is_some_and(|first| first == "audit") && error.use_stderr();
            return if of_audit {
                audit::usage()
            } else {
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            };
        }
    };
    match arguments.command {
        Command::Run(arguments) => run::main(arguments),
        Command::Doctor(arguments) => doctor::main(&arguments),
        Command::Check(arguments) => check::main(&arguments),
        Command::Status(arguments) => status::main(&arguments),
        Command::Config(command) => config::main(&command),
        Command::Witness(arguments) => witness::main(&arguments),
        Command::Canary => ExitCode::SUCCESS,
        Command::Audit(command) => audit::main(&command),
    }
}

/// Prints why a command failed, once, with its causes.
fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("plumbline: {}", crate::core::chain(error));
    ExitCode::FAILURE
}

/// Writes a line to standard output; a reader who left (`| head`) is no error.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
