//! Running other programs: a failure names the whole command line and shows the tail of what it said.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{Error, Result};

/// Runs to the end with the terminal's own output; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    check(command, status, "")
}

/// Runs to the end in silence and returns the standard output; a failure shows what the program said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().map_err(|source| start_error(command, source))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&done.stderr);
    check(command, done.status, &format!("{said}\n{complaint}"))?;
    Ok(said)
}

/// Runs to the end, gives every line of the standard output to `on_line`, and returns how it ended.
pub(crate) fn stream(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|source| start_error(command, source))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(std::io::Result::ok) {
            on_line(&String::from_utf8_lossy(&line));
        }
    }
    child.wait().map_err(|source| start_error(command, source))
}

/// Whether `program` answers `--version`, that is, is installed and starts.
pub(crate) fn exists(program: &str) -> bool {
    output(Command::new(program).arg("--version")).is_ok()
}

/// The command line as one would type it.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .map(|word| if word.contains([' ', '"', '\'', '$']) { format!("'{word}'") } else { word.into_owned() })
        .collect::<Vec<_>>()
        .join(" ")
}

fn check(command: &Command, status: ExitStatus, output: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { command: line(command), status: status.to_string(), output: output.to_owned() })
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check_failure(script: &str, expected: &Expect) {
        let error = output(Command::new("sh").args(["-c", script])).expect_err("the script fails");
        expected.assert_eq(&error.chain());
    }

    #[test]
    fn a_failed_command_names_itself_its_status_and_its_last_words() {
        check_failure(
            "echo first; echo last >&2; exit 3",
            &expect![[r"
                `sh -c 'echo first; echo last >&2; exit 3'` failed (exit status: 3):
                  first
                  last"]],
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program")).expect_err("there is no such program");
        expect!["cannot start `no-such-program`: No such file or directory (os error 2)"].assert_eq(&error.chain());
    }
}
