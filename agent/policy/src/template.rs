//! The message of a rule: text with `{placeholders}` that facts fill.
//!
//! Placeholders are checked when the policy is read. What is filled in comes from processes that may be hostile: bytes
//! that are not UTF-8 and control characters are shown escaped, long values are cut.

use std::fmt::Write as _;

use crate::facts::{Facts, Object, Taken};
use crate::problem::{Problem, did_you_mean, one_of, quoted};

/// The longest value that is filled in, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placeholder {
    Pid,
    Uid,
    Comm,
    Exe,
    Cgroup,
    Container,
    Pod,
    Path,
    Address,
    Port,
    Protocol,
    Names,
    Read,
}

impl Placeholder {
    const WORDS: &[(&str, Self)] = &[
        ("pid", Self::Pid),
        ("uid", Self::Uid),
        ("comm", Self::Comm),
        ("exe", Self::Exe),
        ("cgroup", Self::Cgroup),
        ("container", Self::Container),
        ("pod", Self::Pod),
        ("path", Self::Path),
        ("address", Self::Address),
        ("port", Self::Port),
        ("protocol", Self::Protocol),
        ("names", Self::Names),
        ("read", Self::Read),
    ];

    /// Whether a rule of this kind can fill it.
    fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Path => kind == Kind::File,
            Self::Address | Self::Port | Self::Protocol | Self::Names => kind != Kind::File,
            Self::Read => kind == Kind::ConnectAfterReading,
            _ => true,
        }
    }
}

/// What a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Connect,
    ConnectAfterReading,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Placeholder),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    /// Reads a message; `kind` says of what the rule speaks.
    pub(crate) fn parse(text: &str, at: &std::ops::Range<usize>, kind: Kind) -> Result<Self, Problem> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            plain.push_str(&rest[..brace]);
            let (this, after) = rest[brace..].split_at(1);
            if after.starts_with(this) {
                plain.push_str(this);
                rest = &after[1..];
                continue;
            }
            let Some(close) = after.find('}').filter(|_| this == "{") else {
                let message = format!("the message has a `{this}` without its partner");
                return Err(Problem::new(at, message).help("write `{{` or `}}` for a brace that is meant as text"));
            };
            let word = &after[..close];
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Value(placeholder(word, at, kind)?));
            rest = &after[close + 1..];
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(pieces))
    }

    pub(crate) fn render(&self, facts: &Facts<'_>) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(placeholder) => fill(&mut out, *placeholder, facts),
            }
        }
        out
    }
}

fn placeholder(word: &str, at: &std::ops::Range<usize>, kind: Kind) -> Result<Placeholder, Problem> {
    let fits = |placeholder: Placeholder| placeholder.fits(kind);
    let known = || Placeholder::WORDS.iter().filter(|&&(_, placeholder)| fits(placeholder)).map(|&(word, _)| word);
    if let Some(&(_, found)) = Placeholder::WORDS.iter().find(|&&(name, value)| name == word && fits(value)) {
        return Ok(found);
    }
    let problem =
        Problem::new(at, format!("the message has an unknown placeholder {}", quoted(&format!("{{{word}}}"))));
    Err(match did_you_mean(word, known()) {
        Some(meant) => problem.help(format!("write `{{{meant}}}`")),
        None => problem.help(format!("in braces write {}", one_of(known()))),
    })
}

fn fill(out: &mut String, placeholder: Placeholder, facts: &Facts<'_>) {
    let subject = &facts.subject;
    match (placeholder, &facts.object) {
        (Placeholder::Pid, _) => number(out, subject.pid),
        (Placeholder::Uid, _) => number(out, subject.uid),
        (Placeholder::Comm, _) => bytes(out, Some(subject.comm)),
        (Placeholder::Exe, _) => bytes(out, subject.exe),
        (Placeholder::Cgroup, _) => bytes(out, subject.cgroup),
        (Placeholder::Container, _) => bytes(out, subject.container.map(str::as_bytes)),
        (Placeholder::Pod, _) => bytes(out, subject.pod_uid.map(str::as_bytes)),
        (Placeholder::Path, Object::File { path, path_truncated, .. }) => {
            if *path_truncated {
                out.push('…');
            }
            bytes(out, Some(path));
        }
        (Placeholder::Address, Object::Connect { address, .. }) => number(out, address.to_canonical()),
        (Placeholder::Port, Object::Connect { port, .. }) => number(out, port),
        (Placeholder::Protocol, Object::Connect { protocol, .. }) => out.push_str(protocol.as_str()),
        (Placeholder::Names, Object::Connect { names, .. }) => {
            bytes(out, Some(names.join(" or ").as_bytes()).filter(|names| !names.is_empty()));
        }
        (Placeholder::Read, _) => read(out, subject.has_read),
        // `placeholder` let in only what the rule's events have.
        (
            Placeholder::Path | Placeholder::Address | Placeholder::Port | Placeholder::Protocol | Placeholder::Names,
            _,
        ) => bytes(out, None),
    }
}

/// The first file, and whether there are others.
fn read(out: &mut String, files: &[Taken<'_>]) {
    bytes(out, files.first().and_then(|taken| taken.path.or(taken.watched)));
    if files.len() > 1 {
        out.push_str(" and others");
    }
}

fn number(out: &mut String, value: impl std::fmt::Display) {
    // Writing into a `String` cannot fail.
    let _ = write!(out, "{value}");
}

fn bytes(out: &mut String, value: Option<&[u8]>) {
    let Some(value) = value else {
        out.push_str("(unknown)");
        return;
    };
    let shown = &value[..value.len().min(MAX_VALUE_BYTES)];
    for chunk in shown.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                out.extend(character.escape_default());
            } else {
                out.push(character);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    if shown.len() < value.len() {
        out.push('…');
    }
}
