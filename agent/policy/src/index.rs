//! Which rules an event could match, found without asking each: a set of a thousand policies costs an event about what
//! one does.
//!
//! Of files, all watched directories of all rules are one set of globs, which tells in one pass the rules whose directories
//! lie above a path. Of other objects, the rules of their kind. What is found is asked; what is not could not match.

use std::sync::Arc;

use globset::{Candidate, GlobSet, GlobSetBuilder};

use crate::facts::{Facts, Object};
use crate::object::When;
use crate::pattern;
use crate::policy::Policy;

/// A policy and a rule, by their places.
pub(crate) type Place = (usize, usize);

#[derive(Debug, Default)]
pub(crate) struct Index {
    watched: GlobSet,
    /// The rule of each glob.
    of_glob: Vec<Place>,
    files: Vec<Place>,
    /// By the name of the kind.
    others: Vec<(&'static str, Vec<Place>)>,
}

impl Index {
    pub(crate) fn of(policies: &[Arc<Policy>]) -> Self {
        let mut set = GlobSetBuilder::new();
        let (mut of_glob, mut files) = (Vec::new(), Vec::new());
        let mut others: Vec<(&'static str, Vec<Place>)> = Vec::new();
        for (index, policy) in policies.iter().enumerate() {
            for (number, rule) in policy.rules.iter().enumerate() {
                let place = (index, number);
                let When::File(file) = &rule.when else {
                    let kind = rule.when.kind().name;
                    match others.iter_mut().find(|(name, _)| *name == kind) {
                        Some((_, places)) => places.push(place),
                        None => others.push((kind, vec![place])),
                    }
                    continue;
                };
                files.push(place);
                for glob in file.watched.patterns().iter().filter_map(|text| pattern::glob(text).ok()) {
                    set.add(glob);
                    of_glob.push(place);
                }
            }
        }
        // Too large for one set: then every rule of files is asked.
        let watched = set.build().unwrap_or_else(|_| {
            of_glob.clear();
            GlobSet::empty()
        });
        Self { watched, of_glob, files, others }
    }

    /// The rules that could match, in the order of policies and of rules in them.
    pub(crate) fn candidates(&self, facts: &Facts<'_>) -> Vec<Place> {
        let kind = |name: &str| self.others.iter().find(|(kind, _)| *kind == name).map(|(_, places)| &places[..]);
        match &facts.object {
            Object::File(file) if self.of_glob.is_empty() || (file.path_truncated && file.watched.is_none()) => {
                self.files.clone()
            }
            Object::File(file) => {
                let path = Some(file.path).filter(|_| !file.path_truncated);
                self.files_of([file.watched, path].into_iter().flatten())
            }
            // Rules of files speak of programs by their path.
            Object::Exec { path, .. } => {
                let files =
                    if self.of_glob.is_empty() { self.files.clone() } else { self.files_of([*path].into_iter()) };
                let mut places = [kind("exec").unwrap_or_default(), &files].concat();
                places.sort_unstable();
                places
            }
            object => kind(object.kind()).unwrap_or_default().to_vec(),
        }
    }

    /// The rules of files whose directories lie at or above a path; `None` where they were too many for one set.
    pub(crate) fn watching(&self, path: &[u8]) -> Option<Vec<Place>> {
        (!self.of_glob.is_empty()).then(|| self.files_of([path].into_iter()))
    }

    fn files_of<'a>(&self, paths: impl Iterator<Item = &'a [u8]>) -> Vec<Place> {
        let mut places: Vec<Place> = paths
            .flat_map(|path| self.watched.matches_candidate(&Candidate::from_bytes(path)))
            .filter_map(|glob| self.of_glob.get(glob).copied())
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}
