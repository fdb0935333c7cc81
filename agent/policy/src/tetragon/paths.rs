//! Prefixes, suffixes and whole paths, which Tetragon compares character by character, as globs.

/// Where files lie.
#[derive(Debug)]
pub(super) enum Base {
    /// All that lies below.
    Directory(String),
    /// All whose path begins with these characters.
    Prefix(String),
    Exact(String),
}

impl Base {
    /// The directory to watch; empty for `/`.
    pub(super) fn directory(&self) -> &str {
        match self {
            Self::Directory(directory) => directory,
            Self::Prefix(path) | Self::Exact(path) => path.rsplit_once('/').map_or("", |(parent, _)| parent),
        }
    }

    /// Globs of its files whose path ends so.
    pub(super) fn patterns(&self, end: &str) -> Vec<String> {
        match self {
            Self::Directory(directory) => vec![format!("{}/{}", escaped(directory), suffix(end))],
            Self::Prefix(path) => {
                let last = escaped(end);
                let below = format!("{}*/{}", escaped(path), suffix(end));
                // What ends in another component lies below.
                if end.contains('/') { vec![below] } else { vec![format!("{}*{last}", escaped(path)), below] }
            }
            Self::Exact(path) if path.ends_with(end) => vec![escaped(path)],
            Self::Exact(_) => Vec::new(),
        }
    }
}

/// Globs of what ends so, behind a slash.
pub(super) fn suffix(end: &str) -> String {
    match end.strip_prefix('/') {
        Some(rest) => format!("**/{}", escaped(rest)),
        None => format!("**/*{}", escaped(end)),
    }
}

/// A glob that matches this text alone.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
