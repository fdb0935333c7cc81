//! Running the checks that need root: the kernel checks on the kernel at hand, and the end-to-end checks.
//!
//! Both are programs of the package `plumbline-tests` that print one line per check, as the virtual machines do. They are
//! built as the user and run as root, with what they need from outside in environment variables.

use std::path::PathBuf;
use std::process::Command;

use crate::build::Build;
use crate::cache::Cache;
use crate::cmd;
use crate::engine::Llama;
use crate::error::Result;
use crate::nvidia;
use crate::privilege;
use crate::promtool;
use crate::python::Python;
use crate::report::{Report, Tally};
use crate::tools::Tools;
use crate::workspace;

/// Step and program, in the order in which they tell most.
const PROGRAMS: [(&str, &str); 2] = [("kernel checks on this kernel", "vm-init"), ("end-to-end checks", "end-to-end")];

/// Builds the checks and what they load.
pub(crate) fn build() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root()).args([
        "build",
        "--package",
        "plumbline-tests",
        "--package",
        "fake-cuda",
        "--package",
        "fake-nccl",
        "--package",
        "fake-nvml",
        "--package",
        "fake-disk",
    ]);
    cmd::run(&mut cargo)
}

/// Runs what [`build`] built.
pub(crate) fn run_all(cache: &Cache, full: bool, report: &mut Report) {
    let mut variables = variables(cache);
    if full {
        variables.push(("PLUMBLINE_KILLS", PathBuf::from("1000")));
    }
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    let runner = match privilege::silent_runner(&names) {
        Ok(runner) => runner,
        Err(why) => return PROGRAMS.iter().for_each(|(step, _)| report.not_run(step, why)),
    };
    for (step, program) in PROGRAMS {
        report.step(step, || {
            let path = workspace::target().join("debug").join(program);
            let mut words = runner.iter().map(PathBuf::from).chain([path]);
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words).envs(variables.iter().map(|(name, value)| (name, value)));
            checks(&mut command)
        });
    }
}

/// Where these are missing, the checks that want them say so and count as skipped.
fn variables(cache: &Cache) -> Vec<(&'static str, PathBuf)> {
    let mut variables = vec![
        ("PLUMBLINE_BIN", Build::default().binary()),
        ("PLUMBLINE_FAKE_NVML", workspace::target().join("debug/libfake_nvml.so")),
    ];
    variables.extend(Python::for_tests(cache).ok().map(|python| ("PLUMBLINE_PYTHON", python.program)));
    variables.extend(promtool::set_up(cache).ok().map(|promtool| ("PLUMBLINE_PROMTOOL", promtool)));
    variables.extend(nvidia::set_up(cache).ok().map(|libraries| ("PLUMBLINE_NVIDIA", libraries)));
    variables.extend(Tools::set_up(cache).ok().map(|tools| ("PLUMBLINE_TOOLS", tools.directory().to_owned())));
    if let Some(llama) = Llama::cached(cache) {
        variables.extend([("PLUMBLINE_LLAMA_SERVER", llama.server), ("PLUMBLINE_LLAMA_MODEL", llama.model)]);
    }
    variables
}

/// Runs one program of checks and adds its lines up.
fn checks(command: &mut Command) -> Result<Tally> {
    let mut tally = Tally::default();
    let status = cmd::stream(command, |line| {
        tally += Tally::of_console_line(line).unwrap_or_default();
        println!("{line}");
    })?;
    println!("{tally}");
    let told_nothing = tally == Tally::default();
    if told_nothing || (!status.success() && tally.failed == 0) {
        println!("not ok: `{}` ended with {status}", cmd::line(command));
        tally += Tally::FAILED;
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Tally {
        checks(Command::new("sh").args(["-c", script])).expect("there is a shell")
    }

    #[test]
    fn each_line_counts_once() {
        assert_eq!(
            shell("echo 'ok a'; echo 'skip b: not run, because c'; echo '# d'"),
            Tally { passed: 1, failed: 0, skipped: 1 }
        );
    }

    #[test]
    fn a_program_that_dies_or_says_nothing_is_a_failure() {
        assert_eq!(shell("echo 'ok a'; exit 1"), Tally { passed: 1, failed: 1, skipped: 0 });
        assert_eq!(shell("true"), Tally::FAILED);
    }
}
