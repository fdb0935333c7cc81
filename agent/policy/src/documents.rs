//! The documents of a directory → policies: lists first, which policies include, and exceptions last, which add to
//! policies, whatever their files are called.
//!
//! A policy that was read before and whose file and lists are the same is not read again: most of a reload is YAML.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::exceptions;
use crate::fields::Problems;
use crate::lists::{self, Lists};
use crate::parse::{Document, DocumentKind, kind_of};
use crate::policy::Policy;
use crate::problem::{InvalidPolicy, Problem};
use crate::tetragon;
use crate::yaml::{self, Node};

/// A file's name and its text.
type File<'a> = (&'a str, &'a str);

type Hash = [u8; 32];

/// Policies as they stand in their files, by the hash of the file, each with that of the lists that it was read with.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known(HashMap<Hash, (Hash, Arc<Policy>)>);

/// What became of a directory's documents.
#[derive(Debug)]
pub(crate) struct Reading {
    /// In the order of their files.
    pub(crate) policies: Vec<Arc<Policy>>,
    pub(crate) invalid: Vec<InvalidPolicy>,
    pub(crate) known: Known,
}

/// A document as it is read: that of the file, or what was made of it.
struct Source<'a> {
    name: Cow<'a, str>,
    text: Cow<'a, str>,
    root: Node,
}

impl<'a> Source<'a> {
    fn read((name, text): File<'a>) -> Result<Self, InvalidPolicy> {
        let root = yaml::parse(text).map_err(|problem| InvalidPolicy::new(name, text, vec![problem]))?;
        if !tetragon::is_tracing_policy(&root) {
            return Ok(Self { name: name.into(), text: text.into(), root });
        }
        // Tetragon's policies are taken as they are; a mistake that shows only afterwards is shown in what was made of them.
        let converted = tetragon::convert(&root).map_err(|problems| InvalidPolicy::new(name, text, problems))?;
        let name = format!("{name} (converted)");
        let root = yaml::parse(&converted).map_err(|problem| InvalidPolicy::new(&name, &converted, vec![problem]))?;
        Ok(Self { name: name.into(), text: converted.into(), root })
    }
}

/// Reads documents, sorted by name.
pub(crate) fn read(files: &[File<'_>], before: &Known) -> Reading {
    let mut reading = Reading { policies: Vec::new(), invalid: Vec::new(), known: Known::default() };
    let (mut lists, mut exceptions, mut policies) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_lists = Sha256::new();
    for &file in files {
        let hash = hash(file);
        if before.0.contains_key(&hash) {
            policies.push((file, hash, None));
            continue;
        }
        match Source::read(file) {
            Ok(source) => match kind_of(&source.root) {
                DocumentKind::Lists => {
                    of_lists.update(hash);
                    lists.push(source);
                }
                DocumentKind::Exceptions => exceptions.push(source),
                DocumentKind::Policy => policies.push((file, hash, Some(source))),
            },
            Err(mistakes) => reading.invalid.push(mistakes),
        }
    }
    let mut names = Names::default();
    let library = library(lists, &mut names, &mut reading.invalid);
    let Some(library) = library else { return reading };
    let of_lists: Hash = of_lists.finalize().into();
    for (file, hash, source) in policies {
        match policy(file, source, before.0.get(&hash).filter(|(lists, _)| *lists == of_lists), &library) {
            Ok(policy) => match names.take(&policy.name, file, &policy.name_at) {
                Ok(()) => {
                    reading.known.0.insert(hash, (of_lists, Arc::clone(&policy)));
                    reading.policies.push(policy);
                }
                Err(twin) => reading.invalid.push(twin),
            },
            Err(mistakes) => reading.invalid.push(mistakes),
        }
    }
    for Source { name, text, mut root } in exceptions {
        let mut problems = Problems::new();
        lists::expand(&mut root, &library, &mut problems);
        let called = exceptions::add(&root, &mut reading.policies, !reading.invalid.is_empty(), &mut problems);
        let taken = called.map_or(Ok(()), |(called, at)| names.take(&called, (&name, &text), &at));
        match taken {
            _ if !problems.is_empty() => reading.invalid.push(InvalidPolicy::new(&name, &text, problems)),
            Ok(()) => {}
            Err(twin) => reading.invalid.push(twin),
        }
    }
    reading
}

/// The lists; `None` where some are wrong: what their absence would make wrong is not worth telling.
fn library(sources: Vec<Source<'_>>, names: &mut Names, invalid: &mut Vec<InvalidPolicy>) -> Option<Vec<Lists>> {
    let before = invalid.len();
    let mut library = Vec::new();
    for Source { name, text, root } in sources {
        match Document::read(&name, &text, root, &library) {
            Ok(Document::Lists(lists)) => match names.take(&lists.name, (&name, &text), &lists.name_at) {
                Ok(()) => library.push(lists),
                Err(twin) => invalid.push(twin),
            },
            Ok(Document::Policy(_)) => {}
            Err(mistakes) => invalid.push(mistakes),
        }
    }
    (invalid.len() == before).then_some(library)
}

fn policy(
    file: File<'_>,
    source: Option<Source<'_>>,
    before: Option<&(Hash, Arc<Policy>)>,
    library: &[Lists],
) -> Result<Arc<Policy>, InvalidPolicy> {
    if let Some((_, policy)) = before {
        return Ok(Arc::clone(policy));
    }
    let Source { name, text, root } = source.map_or_else(|| Source::read(file), Ok)?;
    match Document::read(&name, &text, root, library)? {
        Document::Policy(policy) => Ok(Arc::new(*policy)),
        Document::Lists(_) => {
            Err(InvalidPolicy::new(&name, &text, vec![Problem::new(&(0..0), "this is not a policy any more")]))
        }
    }
}

fn hash((name, text): File<'_>) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    // No name of a file holds it.
    hasher.update([0]);
    hasher.update(text.as_bytes());
    hasher.finalize().into()
}

/// Names that documents have taken.
#[derive(Default)]
struct Names(HashMap<String, ()>);

impl Names {
    /// The mistake of a second document with a name that is taken.
    fn take(&mut self, name: &str, (file, text): File<'_>, at: &Range<usize>) -> Result<(), InvalidPolicy> {
        if self.0.insert(name.to_owned(), ()).is_none() {
            return Ok(());
        }
        let problem = Problem::new(at, format!("another file has a document called `{name}` as well"))
            .help("give each its own name");
        Err(InvalidPolicy::new(file, text, vec![problem]))
    }
}
