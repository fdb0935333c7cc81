//! The command line: one file per command.

mod activity;
mod audit;
mod config;
mod daemon;
mod doctor;
mod engines;
mod gpu;
mod incident;
mod policy;
mod probes;
mod run;
mod span;
mod status;
mod timeline;
mod trace;
mod witness;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

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
    Check(policy::check::Arguments),
    /// Run the policies' own tests, and ask for silence on what is known to be good
    Test(policy::test::Arguments),
    /// Explain, learn, list, import policies
    #[command(subcommand)]
    Policy(Box<policy::Command>),
    /// Ask the running daemon how it fares
    Status(status::Arguments),
    /// Check the configuration, or show the one that holds
    #[command(subcommand)]
    Config(config::Command),
    /// Sign the checkpoints of other machines' logs (C2SP tlog-witness)
    Witness(witness::Arguments),
    /// Show the serving engines that are read, and explain an engine's page
    Engines(engines::Arguments),
    /// Show what a series was in the last while, up to an hour
    Timeline(timeline::Arguments),
    /// Show the GPUs and what they do not tell, let go of them for a driver's upgrade, take them back
    Gpu(gpu::Arguments),
    /// Look more closely for a while, and end that
    #[command(subcommand)]
    Incident(incident::Command),
    /// Show or change how much the running daemon looks at
    #[command(subcommand)]
    Probes(probes::Command),
    /// Show what one process asks of CUDA's driver and NCCL, all of it, for a while
    Trace(trace::Arguments),
    /// Asks the GPUs for the daemon, over the socket that is its standard input
    #[command(hide = true)]
    GpuWorker(gpu::WorkerArguments),
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
        Command::Check(arguments) => policy::check::main(&arguments),
        Command::Test(arguments) => policy::test::main(&arguments),
        Command::Policy(command) => policy::main(&command),
        Command::Status(arguments) => status::main(&arguments),
        Command::Config(command) => config::main(&command),
        Command::Witness(arguments) => witness::main(&arguments),
        Command::Engines(arguments) => engines::main(&arguments),
        Command::Timeline(arguments) => timeline::main(&arguments),
        Command::Gpu(arguments) => gpu::main(&arguments),
        Command::Incident(command) => incident::main(&command),
        Command::Probes(command) => probes::main(&command),
        Command::Trace(arguments) => trace::main(&arguments),
        Command::GpuWorker(arguments) => gpu::work(&arguments),
        Command::Canary => ExitCode::SUCCESS,
        Command::Audit(command) => audit::main(&command),
    }
}

/// How long the daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the running daemon. One request, one answer: HTTP/1.0, so that the end of the connection is the end of the body.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    request(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// Says something to the running daemon that it wants a token for.
fn post(address: SocketAddr, path: &str, token: &str, body: &str) -> std::io::Result<String> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
    );
    request(address, &(head + body))
}

fn request(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(8 << 20).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("not an HTTP answer"))?;
    if !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200") {
        let status = head.lines().next().unwrap_or_default();
        return Err(std::io::Error::other(format!("{status} {}", body.trim_end()).trim_end().to_owned()));
    }
    Ok(body.to_owned())
}

/// Prints why a command failed, once, with its causes.
fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    match error.downcast_ref::<plumbline_policy::LoadError>() {
        Some(error) => eprint!("{}", crate::daemon::explain(error)),
        None => eprintln!("plumbline: {}", crate::core::chain(error)),
    }
    ExitCode::FAILURE
}

/// Writes a line to standard output; a reader who left (`| head`) is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
