//! Set-up, build, run and test of this repository: `cargo xtask --help`.
//!
//! Needs a Debian with git and Rust; everything else is fetched into one cache directory. Nothing is installed.

mod apt;
mod bench;
mod build;
mod cache;
mod cmd;
mod distro;
mod end_to_end;
mod engine;
mod error;
mod gpu_e2e;
mod lint;
mod nvidia;
mod portable;
mod privilege;
mod promtool;
mod python;
mod report;
mod run;
mod setup;
mod test;
mod toolchain;
mod tools;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cache::Cache;
use crate::error::Result;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set-up, build, run and test of Plumbline",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Setup(setup::Setup),
    Build(build::Build),
    Run(run::Run),
    Test(test::Test),
    Vm(vm::Vm),
    Engine(engine::Engine),
    Bench(bench::Bench),
    #[command(name = "gpu-e2e")]
    GpuE2e(gpu_e2e::GpuE2e),
    Distro(distro::Distro),
    Lint(lint::Lint),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well; where something did not, it has been said.
fn run(task: Task) -> Result<bool> {
    match task {
        Task::Setup(setup) => setup.run(&Cache::open()?).map(|()| true),
        Task::Build(build) => build.run(&Cache::open()?).map(|()| true),
        Task::Run(run) => run.run(&Cache::open()?).map(|()| true),
        Task::Test(test) => Ok(test.run(&Cache::open()?)),
        Task::Vm(vm) => vm.run(&Cache::open()?),
        Task::Engine(engine) => engine.run(&Cache::open()?).map(|()| true),
        Task::GpuE2e(gpu_e2e) => gpu_e2e.run(&Cache::open()?),
        Task::Bench(bench) => bench.run().map(|()| true),
        Task::Distro(distro) => distro.run(&Cache::open()?).map(|()| true),
        Task::Lint(lint) => Ok(lint.run()),
    }
}
