//! The message of a rule: text with `{placeholders}` that facts fill.
//!
//! Placeholders are checked when the policy is read. What is filled in comes from processes that may be hostile: bytes
//! that are not UTF-8 and control characters are shown escaped, long values are cut.

use std::fmt::Write as _;

use crate::facts::{Facts, Object, Taken};
use crate::problem::{Problem, did_you_mean, one_of, quoted};
use crate::shape::Words;

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
    User,
    Image,
    Access,
    Percent,
    How,
    Object,
    Family,
    FindingKind,
    Severity,
    Entity,
    Text,
}

impl Words for Placeholder {
    const WORDS: &'static [(&'static str, Self)] = &[
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
        ("user", Self::User),
        ("image", Self::Image),
        ("access", Self::Access),
        ("percent", Self::Percent),
        ("how", Self::How),
        ("object", Self::Object),
        ("family", Self::Family),
        ("kind", Self::FindingKind),
        ("severity", Self::Severity),
        ("entity", Self::Entity),
        ("text", Self::Text),
    ];
}

impl Placeholder {
    /// What every process fills.
    pub(crate) const OF_PROCESSES: &'static [Self] = &[
        Self::Pid,
        Self::Uid,
        Self::User,
        Self::Comm,
        Self::Exe,
        Self::Cgroup,
        Self::Container,
        Self::Image,
        Self::Pod,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Placeholder),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    /// Reads a message whose rule can fill the `known` placeholders.
    pub(crate) fn parse(text: &str, at: &std::ops::Range<usize>, known: &[Placeholder]) -> Result<Self, Problem> {
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
            pieces.push(Piece::Value(placeholder(word, at, known)?));
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

pub(crate) fn placeholder(
    word: &str,
    at: &std::ops::Range<usize>,
    known: &[Placeholder],
) -> Result<Placeholder, Problem> {
    if let Some(&found) = known.iter().find(|placeholder| placeholder.word() == word) {
        return Ok(found);
    }
    let known = || known.iter().map(|placeholder| placeholder.word());
    let problem =
        Problem::new(at, format!("the message has an unknown placeholder {}", quoted(&format!("{{{word}}}"))));
    Err(match did_you_mean(word, known()) {
        Some(meant) => problem.help(format!("write `{{{meant}}}`")),
        None => problem.help(format!("in braces write {}", one_of(known()))),
    })
}

pub(crate) fn fill(out: &mut String, placeholder: Placeholder, facts: &Facts<'_>) {
    let subject = &facts.subject;
    match (placeholder, &facts.object) {
        (Placeholder::Pid, _) => number(out, subject.pid),
        (Placeholder::Uid, _) => match subject.uid {
            Some(uid) => number(out, uid),
            None => bytes(out, None),
        },
        (Placeholder::Comm, _) => bytes(out, Some(subject.comm)),
        (Placeholder::Exe, _) => bytes(out, subject.exe),
        (Placeholder::Cgroup, _) => bytes(out, subject.cgroup),
        (Placeholder::Container, _) => bytes(out, subject.container.map(str::as_bytes)),
        (Placeholder::Pod, _) => match subject.pod {
            Some(pod) => bytes(out, Some(format!("{}/{}", pod.namespace, pod.name).as_bytes())),
            None => bytes(out, subject.pod_uid.map(str::as_bytes)),
        },
        (Placeholder::User, _) => bytes(out, subject.user.map(str::as_bytes)),
        (Placeholder::Image, _) => bytes(out, subject.image.map(str::as_bytes)),
        (Placeholder::Path, Object::File(file)) => {
            if file.path_truncated {
                out.push('…');
            }
            bytes(out, Some(file.path));
        }
        (Placeholder::Path, Object::Exec { path, .. } | Object::Device { path, .. } | Object::Local { name: path }) => {
            bytes(out, Some(path));
        }
        (Placeholder::Access, Object::File(file)) => out.push_str(&file.accesses.words()),
        (Placeholder::Access, Object::Exec { .. }) => out.push_str("exec"),
        (Placeholder::Percent, Object::File(file)) => match file.percent {
            Some(percent) => number(out, percent),
            None => bytes(out, None),
        },
        (Placeholder::How, Object::Memory { how }) => out.push_str(how.word()),
        (Placeholder::How, Object::Bpf { how, .. }) => out.push_str(how.word()),
        (Placeholder::Object, Object::Bpf { kind, name, .. }) => {
            out.push_str(kind.word());
            out.push(' ');
            bytes(out, Some(name).filter(|name| !name.is_empty()).copied());
        }
        (Placeholder::Family, Object::Socket { family }) => bytes(out, Some(family.as_bytes())),
        (Placeholder::FindingKind, Object::Finding { kind, .. }) => bytes(out, Some(kind.as_bytes())),
        (Placeholder::Severity, Object::Finding { severity, .. }) => out.push_str(severity.word()),
        (Placeholder::Entity, Object::Finding { entity, .. }) => bytes(out, Some(entity.as_bytes())),
        (Placeholder::Text, Object::Finding { text, .. }) => bytes(out, Some(text.as_bytes())),
        (Placeholder::Address, Object::Connect { address, .. }) => number(out, address.to_canonical()),
        (Placeholder::Port, Object::Connect { port, .. }) => number(out, port),
        (Placeholder::Protocol, Object::Connect { protocol, .. }) => out.push_str(protocol.word()),
        (Placeholder::Names, Object::Connect { names, .. }) => {
            bytes(out, Some(names.join(" or ").as_bytes()).filter(|names| !names.is_empty()));
        }
        (Placeholder::Read, _) => read(out, subject.has_read),
        // `placeholder` let in only what the rule's events have.
        _ => bytes(out, None),
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
