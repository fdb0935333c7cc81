//! `plumbline run`: the daemon.

use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use tracing_subscriber::EnvFilter;

use super::{ConfigFile, failed};
use crate::{config::Config, daemon};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Where the log and the node's key are kept
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A directory of policies, instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Where /metrics is served
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let filter = EnvFilter::try_from_env("PLUMBLINE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let (mut config, origin) = match Config::load(arguments.config.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => return failed(&error),
    };
    tracing::info!(%origin, "configuration");
    if let Some(state_dir) = arguments.state_dir {
        config.state_dir = state_dir;
    }
    if arguments.policies.is_some() {
        config.policies = arguments.policies;
    }
    if arguments.listen.is_some() {
        config.listen = arguments.listen;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(daemon::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}
