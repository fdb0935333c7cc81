//! Patterns of paths: globs of files, and directories to watch.
//!
//! One glob language for executables, files and cgroups, matched on bytes: `*` any run within one component, `?` one
//! byte of a component, `[ab]` a class, `{a,b}` alternatives, `**` as a whole component any number of components.
//! Matching never touches the file system; only [`WatchPath::expand`] does.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::problem::{Problem, quoted};

const MAX_PATTERN_BYTES: usize = 1024;
/// What one pattern may expand to; a machine with more homes than this has to name its caches.
const MAX_EXPANSION: usize = 4096;
/// `~/…` means these homes: the daemon has none of its own.
const HOMES: [&str; 2] = ["/root", "/home/*"];

/// Globs of which any may match.
#[derive(Debug, Clone)]
pub(crate) struct Globs {
    set: Arc<GlobSet>,
    /// As compiled: what is written, and what it stands for.
    patterns: Arc<[String]>,
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Globs {}

impl std::hash::Hash for Globs {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.patterns.hash(state);
    }
}

impl Globs {
    pub(crate) fn matches(&self, bytes: &[u8]) -> bool {
        self.set.is_match_candidate(&Candidate::from_bytes(bytes))
    }

    /// Whether what matches `other` matches this, as far as patterns can be compared: by being the same, by matching a
    /// plain text, or by being all that lies below a plain directory. `false` where that cannot be seen.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let is_covered = |pattern: &String| {
            self.patterns.contains(pattern)
                || (is_plain(pattern) && self.matches(pattern.as_bytes()))
                || self.patterns.iter().any(|mine| {
                    let above = mine.strip_suffix("/**").filter(|above| is_plain(above));
                    above.is_some_and(|above| pattern.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')))
                })
        };
        other.patterns.iter().all(is_covered)
    }

    /// Patterns as they were compiled.
    pub(crate) fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Patterns of whole absolute paths.
    pub(crate) fn of_files(patterns: &[(&str, Range<usize>)]) -> Result<Self, Vec<Problem>> {
        build(patterns, |pattern, at| {
            absolute(pattern, at, "/**/")?;
            restrictive(pattern, at)?;
            Ok(vec![pattern.to_owned()])
        })
    }

    /// Patterns of directories of the cgroup tree; each covers what lies below it.
    pub(crate) fn of_cgroups(patterns: &[(&str, Range<usize>)]) -> Result<Self, Vec<Problem>> {
        build(patterns, |pattern, at| {
            absolute(pattern, at, "/**/")?;
            restrictive(pattern, at)?;
            Ok(vec![pattern.to_owned(), format!("{pattern}/**")])
        })
    }

    /// Patterns of the names of systemd units.
    pub(crate) fn of_units(patterns: &[(&str, Range<usize>)]) -> Result<Self, Vec<Problem>> {
        build(patterns, |pattern, at| {
            if pattern.contains('/') {
                let problem = Problem::new(at, format!("{} is not the name of a systemd unit", quoted(pattern)));
                return Err(problem.help("write a name such as `vllm.service`; for a path use `cgroup`"));
            }
            restrictive(pattern, at)?;
            Ok(vec![pattern.to_owned()])
        })
    }

    /// Patterns of words without slashes: namespaces, names of pods, kinds of findings.
    pub(crate) fn of_words(patterns: &[(&str, Range<usize>)]) -> Result<Self, Vec<Problem>> {
        build(patterns, |pattern, at| {
            restrictive(pattern, at)?;
            Ok(vec![pattern.to_owned()])
        })
    }

    /// Patterns of images of containers and of repositories of models, whose parts are set apart by slashes.
    pub(crate) fn of_images(patterns: &[(&str, Range<usize>)]) -> Result<Self, Vec<Problem>> {
        Self::of_words(patterns)
    }

    /// Patterns of local sockets: whole absolute paths, and abstract names.
    pub(crate) fn of_sockets(patterns: &[(&str, Range<usize>)]) -> Result<Self, Vec<Problem>> {
        build(patterns, |pattern, at| {
            if !pattern.starts_with('@') {
                absolute(pattern, at, "/**/")?;
            }
            restrictive(pattern, at)?;
            Ok(vec![pattern.to_owned()])
        })
    }

    /// What lies at or below the watched directories.
    pub(crate) fn covered_by(watched: &[WatchPath]) -> Result<Self, globset::Error> {
        let patterns: Vec<String> =
            watched.iter().map(WatchPath::pattern).flat_map(|path| [path.to_owned(), format!("{path}/**")]).collect();
        let mut set = GlobSetBuilder::new();
        for pattern in &patterns {
            set.add(glob(pattern)?);
        }
        Ok(Self { set: Arc::new(set.build()?), patterns: patterns.into() })
    }
}

type Expand = fn(&str, &Range<usize>) -> Result<Vec<String>, Problem>;

fn build(patterns: &[(&str, Range<usize>)], expand: Expand) -> Result<Globs, Vec<Problem>> {
    let mut set = GlobSetBuilder::new();
    let mut compiled = Vec::new();
    let mut problems = Vec::new();
    for (pattern, at) in patterns {
        match well_formed(pattern, at).and_then(|()| expand(pattern, at)) {
            Ok(expanded) => {
                for pattern in expanded {
                    match glob(&pattern) {
                        Ok(glob) => {
                            set.add(glob);
                            compiled.push(pattern);
                        }
                        Err(error) => problems.push(bad_glob(at, &error)),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // Each glob alone compiled; together they can only be too large.
    match set.build() {
        Ok(set) => Ok(Globs { set: Arc::new(set), patterns: compiled.into() }),
        Err(error) => Err(vec![bad_glob(&patterns.first().map_or(0..0, |(_, at)| at.clone()), &error)]),
    }
}

pub(crate) fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()
}

/// Nothing in it stands for anything else.
pub(crate) fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

fn bad_glob(at: &Range<usize>, error: &globset::Error) -> Problem {
    Problem::new(at, format!("the glob does not parse: {}", error.kind()))
        .help("to mean one of `*?[]{}` itself, put a backslash before it")
}

/// What holds for every pattern.
fn well_formed(pattern: &str, at: &Range<usize>) -> Result<(), Problem> {
    if pattern.len() > MAX_PATTERN_BYTES {
        let message = format!("the pattern is {} bytes long; it may have {MAX_PATTERN_BYTES}", pattern.len());
        return Err(Problem::new(at, message));
    }
    if let Some(class) = class_with_slash(pattern) {
        return Err(Problem::new(
            at,
            format!("the class {} stands for `/` as well, which parts components", quoted(class)),
        )
        .help("write the characters that are meant, as in `[a-z]`"));
    }
    let partly = pattern.split('/').any(|component| component.contains("**") && component != "**");
    if partly {
        return Err(Problem::new(at, "`**` stands beside other characters")
            .help("`**` must be a whole component, as in `/opt/**/vllm`; within a component write `*`"));
    }
    Ok(())
}

/// A class of characters that `/` is one of: all classes that say what is not meant, and ranges that begin before it.
fn class_with_slash(pattern: &str) -> Option<&str> {
    let mut rest = pattern;
    while let Some(open) = rest.find(['[', '\\']) {
        if rest[open..].starts_with('\\') {
            rest = rest.get(open + 2..).unwrap_or_default();
            continue;
        }
        let body = &rest[open + 1..];
        // A `]` that comes first is one of the class.
        let from = usize::from(body.starts_with(']'));
        let end = body.get(from..)?.find(']')? + from;
        let class: Vec<char> = body[..end].chars().collect();
        let in_range = class.windows(3).any(|three| three[1] == '-' && (three[0]..=three[2]).contains(&'/'));
        if matches!(class.first(), Some('!' | '^')) || class.contains(&'/') || in_range {
            return Some(&rest[open..open + end + 2]);
        }
        rest = &body[end + 1..];
    }
    None
}

fn absolute(pattern: &str, at: &Range<usize>, anywhere: &str) -> Result<(), Problem> {
    if pattern.starts_with('/') {
        return Ok(());
    }
    let problem = Problem::new(at, format!("{} is a relative path", quoted(pattern))).label("does not begin with `/`");
    Err(problem.help(match pattern.strip_prefix("~/") {
        Some(rest) => format!("write out the home, as in `/home/*/{rest}`"),
        None => format!("write the whole path, or `{anywhere}{pattern}` for any directory"),
    }))
}

/// A pattern that matches all would excuse all.
fn restrictive(pattern: &str, at: &Range<usize>) -> Result<(), Problem> {
    if pattern.split('/').all(|component| component.chars().all(|character| character == '*')) {
        return Err(Problem::new(at, format!("{} matches everything", quoted(pattern))).help("name what you mean"));
    }
    Ok(())
}

/// A directory to watch, or a pattern of directories; one file may stand for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchPath {
    /// One directory.
    Literal(String),
    /// A glob of directories, each component matched by itself.
    Pattern(String),
}

impl WatchPath {
    /// The path as a glob, whatever it is.
    pub(crate) fn pattern(&self) -> &str {
        match self {
            Self::Literal(path) | Self::Pattern(path) => path,
        }
    }

    /// Reads one `watch` entry; `~/…` gives one path per kind of home.
    pub(crate) fn parse(text: &str, at: &Range<usize>) -> Result<Vec<Self>, Problem> {
        if let Some(rest) = text.strip_prefix("~/") {
            return HOMES.iter().map(|home| Self::parse_absolute(&format!("{home}/{rest}"), at)).collect();
        }
        Ok(vec![Self::parse_absolute(text, at)?])
    }

    fn parse_absolute(text: &str, at: &Range<usize>) -> Result<Self, Problem> {
        well_formed(text, at)?;
        if !text.starts_with('/') {
            return Err(Problem::new(at, format!("{} is a relative path", quoted(text)))
                .label("does not begin with `/`")
                .help("write the whole path; `~/` stands for every home"));
        }
        let path = text.strip_suffix('/').unwrap_or(text);
        if path.is_empty() {
            return Err(Problem::new(at, "watching `/` would make an event of every file that is opened")
                .help("name the directories that hold what you protect"));
        }
        for component in path[1..].split('/') {
            match component {
                "" | "." | ".." => {
                    return Err(Problem::new(at, format!("{} is not a normalized path", quoted(text)))
                        .help("leave out `.`, `..` and double slashes"));
                }
                "**" => {
                    return Err(Problem::new(at, "`**` in a watched directory would search the whole tree")
                        .help("a watched directory covers all that lies below it; write `*` for one component"));
                }
                // Each by itself, as `expand` follows them: alternatives cannot span components.
                _ => drop(glob(component).map_err(|error| bad_glob(at, &error))?),
            }
        }
        restrictive(path, at)?;
        Ok(if is_plain(path) { Self::Literal(path.to_owned()) } else { Self::Pattern(path.to_owned()) })
    }

    /// The directories that exist now, sorted; or the one file that is named. A pattern is followed component by component; what cannot be read is
    /// passed over, as what does not exist is. At most 4096.
    pub fn expand(&self) -> Vec<PathBuf> {
        let path = match self {
            Self::Literal(path) => {
                return Some(PathBuf::from(path)).filter(|path| can_be_watched(path)).into_iter().collect();
            }
            Self::Pattern(path) => path,
        };
        let mut found = vec![PathBuf::from("/")];
        for component in path[1..].split('/') {
            let Ok(matcher) = glob(component).map(|glob| glob.compile_matcher()) else { return Vec::new() };
            let plain = is_plain(component);
            found = found
                .iter()
                .flat_map(|parent| if plain { vec![parent.join(component)] } else { children(parent) })
                .filter(|path| plain || path.file_name().is_some_and(|name| matcher.is_match(Path::new(name))))
                .filter(|path| path.is_dir())
                .take(MAX_EXPANSION)
                .collect();
        }
        found.sort();
        found
    }
}

/// A directory, or a regular file; the daemon opens neither pipes nor devices.
fn can_be_watched(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_dir() || meta.is_file())
}

fn children(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).take(MAX_EXPANSION).collect())
        .unwrap_or_default()
}

/// Whether one component of a watched directory's pattern matches this name.
pub(crate) fn component_matches(component: &str, name: &str) -> bool {
    component == name || glob(component).is_ok_and(|glob| glob.compile_matcher().is_match(name))
}
