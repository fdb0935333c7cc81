//! Set-up, build, run and test of this repository: `cargo xtask --help`.
//!
//! Needs a Debian with git and Rust; everything else is fetched into one cache directory. Nothing is installed.

mod apt;
mod build;
mod cache;
mod cmd;
mod error;
mod setup;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cache::Cache;
use crate::error::Result;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, run and test of Plumbline")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Setup(setup::Setup),
    Build(build::Build),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup(setup) => setup.run(&Cache::open()?)?,
        Task::Build(build) => build.run(&Cache::open()?)?,
    }
    Ok(ExitCode::SUCCESS)
}
