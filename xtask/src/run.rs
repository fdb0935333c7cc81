//! `cargo xtask run`: build, then become the daemon, as root.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::build::Build;
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};
use crate::privilege;
use crate::workspace;

/// Build the daemon and run it as root.
///
/// Everything is built as the user; only the daemon is elevated, with `sudo` where needed.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask run\n  cargo xtask run --release -- --listen 127.0.0.1:9500\n  cargo xtask run --trace\n  cargo xtask run --simulate h100x8"
)]
pub(crate) struct Run {
    /// Optimise the daemon.
    #[arg(long)]
    release: bool,
    /// Add log lines inside the kernel programs.
    #[arg(long)]
    trace: bool,
    /// Simulated GPUs: a scenario of `tests/fake-nvml/scenarios`, such as h100x8.
    #[arg(long, value_name = "SCENARIO")]
    simulate: Option<String>,
    /// Arguments of `plumbline run`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Run {
    /// Does not return if all goes well: this process becomes the daemon, so that signals reach it.
    pub(crate) fn run(&self, cache: &Cache) -> Result<()> {
        let build = Build { release: self.release, trace: self.trace, bpf_only: false };
        build.run(cache)?;
        let binary = build.binary();
        let mut daemon = match &self.simulate {
            None => privilege::elevated(&binary)?,
            Some(scenario) => self.simulated(scenario, &binary)?,
        };
        let source = daemon.arg("run").args(&self.arguments).exec();
        Err(Error::Start { program: binary.display().to_string(), source })
    }

    /// The daemon with a library that makes its GPUs up: everything that it feeds is labelled `simulated="true"`.
    fn simulated(&self, scenario: &str, binary: &Path) -> Result<Command> {
        let directory = workspace::root().join("tests/fake-nvml/scenarios");
        let file = directory.join(format!("{scenario}.yaml"));
        if !file.is_file() {
            let known = scenarios(&directory).join(", ");
            return Err(Error::said(format!("there is no scenario {scenario:?}; expected one of {known}")));
        }
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace::root()).args(["build", "--package", "fake-nvml"]);
        if self.release {
            cargo.arg("--release");
        }
        cmd::run(&mut cargo)?;
        let library = binary.with_file_name("libfake_nvml.so");
        // By a program of its own, since `sudo` hands no variables on.
        let mut daemon = privilege::elevated(Path::new("/usr/bin/env"))?;
        daemon.arg(variable("PLUMBLINE_NVML", &library)).arg(variable("FAKE_NVML_SCENARIO", &file)).arg(binary);
        Ok(daemon)
    }
}

fn variable(name: &str, value: &Path) -> OsString {
    let mut variable = OsString::from(name);
    variable.push("=");
    variable.push(value);
    variable
}

/// Their names, in order.
fn scenarios(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = files.filter_map(|file| Some(file.path().file_stem()?.to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_is_not_there_is_refused_with_those_that_are() {
        let run = Run { release: false, trace: false, simulate: None, arguments: Vec::new() };
        let error = run.simulated("h200x9", Path::new("plumbline")).unwrap_err().to_string();
        assert!(error.contains("h100x8, hang, l4"), "{error}");
    }
}
