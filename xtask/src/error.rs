//! The one error type of the set-up and test commands: what was being done, with which thing, and why it failed.

use std::io;
use std::path::{Path, PathBuf};

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start `{program}`")]
    Start { program: String, source: io::Error },
    #[error("`{command}` failed ({status}){}", tail_of(output))]
    Command { command: String, status: String, output: String },
    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{0}")]
    Said(String),
}

impl Error {
    /// An error that is fully told by its own words.
    pub(crate) fn said(words: impl Into<String>) -> Self {
        Self::Said(words.into())
    }

    /// For `map_err`: a file operation that failed, with the verb and the path.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { action, path, source }
    }

    /// The error and its causes on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// The last lines of a failed command's output; the first are rarely the ones that matter.
fn tail_of(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(20)..];
    if tail.is_empty() { String::new() } else { format!(":\n  {}", tail.join("\n  ")) }
}
