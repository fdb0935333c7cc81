//! All policies in force, as one value that is replaced as a whole.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use miette::Diagnostic;
use sha2::{Digest as _, Sha256};

use crate::compile::{Denials, TooManyDenials};
use crate::decide::Verdict;
use crate::documents::{self, Known, Reading};
use crate::facts::Facts;
use crate::index::Index;
use crate::pattern::WatchPath;
use crate::policy::{Otherwise, Policy};
use crate::problem::{InvalidPolicy, Problem};
use crate::requires::{KernelProfile, Unmet};
use crate::yaml::{self, MAX_DOCUMENT_BYTES};

/// More files than this in one directory are taken for a mistake.
pub const MAX_POLICIES: usize = 4096;

/// One file of the repository's `policies/`, by its name.
macro_rules! shipped {
    ($file:literal) => {
        ($file, include_str!(concat!("../../../policies/", $file)))
    };
}

/// The policies the daemon starts with where no directory is configured.
pub const EMBEDDED: [(&str, &str); 15] = [
    shipped!("bulk-weight-read.yaml"),
    shipped!("cloud-metadata.yaml"),
    shipped!("egress.yaml"),
    shipped!("engine-telemetry.yaml"),
    shipped!("evidence.yaml"),
    shipped!("gpu-devices.yaml"),
    shipped!("gpu-health.yaml"),
    shipped!("gpu-thermal.yaml"),
    shipped!("lists.yaml"),
    shipped!("model-weights.yaml"),
    shipped!("tamper.yaml"),
    shipped!("unsafe-model-format.yaml"),
    shipped!("ways-around.yaml"),
    shipped!("weights-changed.yaml"),
    shipped!("weights-then-egress.yaml"),
];

/// Policies that were read and checked together.
#[derive(Debug)]
pub struct PolicySet {
    policies: Vec<Arc<Policy>>,
    pub(crate) index: Arc<Index>,
    /// Found when they are asked for.
    pub(crate) denials: OnceLock<Result<Arc<Denials>, TooManyDenials>>,
    known: Known,
    digest: String,
    generation: u64,
}

/// Why a directory gave no policy set.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[non_exhaustive]
pub enum LoadError {
    #[error("reading policies: {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("no policy in {}", path.display())]
    #[diagnostic(help("put at least one `*.yaml` file there; `plumbline check` tests them"))]
    Empty { path: PathBuf },
    #[error("{} has more than {MAX_POLICIES} policy files", path.display())]
    TooMany { path: PathBuf },
    #[error("{count} of the policy files cannot be used", count = files.len())]
    Invalid {
        #[related]
        files: Vec<InvalidPolicy>,
    },
}

impl PolicySet {
    /// Reads every `*.yaml` of a directory. All or nothing: one bad file, and the caller keeps the set it has.
    pub fn load(directory: &Path) -> Result<Self, LoadError> {
        Self::reload(directory, None)
    }

    /// As [`PolicySet::load`], without reading again what `previous` was read from and has not changed.
    pub fn reload(directory: &Path, previous: Option<&Self>) -> Result<Self, LoadError> {
        let (documents, mut invalid) = read(directory)?;
        let files = documents.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        match Self::of(files, previous) {
            Ok(set) if invalid.is_empty() => return Ok(set),
            Ok(_) => {}
            Err(found) => invalid.extend(found),
        }
        invalid.sort_by(|a, b| a.name().cmp(b.name()));
        Err(LoadError::Invalid { files: invalid })
    }

    /// Reads documents given as (file name, text). The order in which they are given does not matter.
    pub fn from_documents<'a>(
        documents: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<InvalidPolicy>> {
        Self::of(documents, None)
    }

    fn of<'a>(
        documents: impl IntoIterator<Item = (&'a str, &'a str)>,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<InvalidPolicy>> {
        let mut documents: Vec<_> = documents.into_iter().collect();
        documents.sort_unstable();
        let nothing = Known::default();
        let before = previous.map_or(&nothing, |previous| &previous.known);
        let Reading { policies, invalid, known } = documents::read(&documents, before);
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let index = Arc::new(Index::of(&policies));
        Ok(Self { index, denials: OnceLock::new(), policies, known, digest: digest(&documents), generation: 1 })
    }

    /// The policies built into the binary, those of the repository's `policies/`.
    pub fn embedded() -> Self {
        Self::from_documents(EMBEDDED).expect("a test of this crate parses the embedded policies")
    }

    /// Takes the place of `previous`: the generation goes on where the digest differs, and stays where nothing changed.
    #[must_use]
    pub fn following(mut self, previous: &Self) -> Self {
        self.generation = previous.generation + u64::from(self.digest != previous.digest);
        self
    }

    /// What the policies say of one event.
    pub fn decide(&self, facts: &Facts<'_>) -> Verdict {
        let rules = self.index.candidates(facts).into_iter();
        Verdict::of(rules.map(|(policy, rule)| (&*self.policies[policy], &self.policies[policy].rules[rule])), facts)
    }

    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// Adjusts the policies to what the kernel can do: those that may degrade monitor, and are told. `Err` with what is not
    /// met where a policy would rather not be in force at all.
    pub fn fit(&mut self, kernel: &KernelProfile) -> Result<Vec<Unmet>, Vec<Unmet>> {
        let unmet: Vec<Unmet> = self.policies.iter().flat_map(|policy| policy.unmet(kernel)).collect();
        let (refused, degraded): (Vec<_>, Vec<_>) =
            unmet.into_iter().partition(|unmet| unmet.otherwise == Otherwise::Refuse);
        if !refused.is_empty() {
            return Err(refused);
        }
        self.denials = OnceLock::new();
        for policy in &mut self.policies {
            if degraded.iter().any(|unmet| *unmet.policy == *policy.name) {
                let policy = Arc::make_mut(policy);
                policy.mode = policy.mode.without_enforcing();
            }
        }
        Ok(degraded)
    }

    /// Whether a policy asks what an executable holds.
    pub fn wants_digests(&self) -> bool {
        let of_rule = |rule: &crate::policy::Rule| {
            let excepted = rule.except.iter().map(|exception| &exception.who);
            rule.subjects.iter().chain(excepted).any(crate::subject::Selector::wants_digest)
        };
        self.policies.iter().any(|policy| {
            policy.subjects.iter().any(crate::subject::Selector::wants_digest) || policy.rules.iter().any(of_rule)
        })
    }

    /// SHA-256 of the sources, in hexadecimal: what `LC_ALL=C sha256sum *.yaml | sha256sum` prints in the directory.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Counts the sets that were in force since the start, from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The directories that the sensor has to watch, sorted, each once. Patterns have to be expanded, and again from
    /// time to time, since homes and caches appear.
    pub fn watched_paths(&self) -> Vec<WatchPath> {
        let rules = self.policies.iter().flat_map(|policy| &policy.rules);
        let mut paths: Vec<WatchPath> = rules.flat_map(|rule| rule.when.watched()).cloned().collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

/// The digest of sorted documents.
pub(crate) fn digest(documents: &[(&str, &str)]) -> String {
    let mut listing = String::new();
    for (name, text) in documents {
        listing.push_str(&format!("{}  {name}\n", hexadecimal(&Sha256::digest(text.as_bytes()))));
    }
    hexadecimal(&Sha256::digest(listing.as_bytes()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) type Documents = Vec<(String, String)>;

/// The policy files of a directory, sorted by name, and those that cannot even be read as text.
pub(crate) fn read(directory: &Path) -> Result<(Documents, Vec<InvalidPolicy>), LoadError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| LoadError::Io { action, path, source }
    };
    let mut documents = Vec::new();
    let mut invalid = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed("listing", directory))? {
        let path = entry.map_err(failed("listing", directory))?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let yml = name.ends_with(".yml");
        // Hidden files are the business of editors and of Kubernetes' volume mounts.
        if name.starts_with('.') || !(name.ends_with(".yaml") || yml) {
            continue;
        }
        // Follows links, as mounted configuration consists of them, and passes over pipes, which would block.
        if !fs::metadata(&path).map_err(failed("looking at", &path))?.is_file() {
            continue;
        }
        if documents.len() + invalid.len() == MAX_POLICIES {
            return Err(LoadError::TooMany { path: directory.to_owned() });
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(failed("opening", &path))?;
        let limit = u64::try_from(MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX) + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(failed("reading", &path))?;
        if yml {
            let problem = Problem::new(&(0..0), "policies are read from `*.yaml`; this file would be ignored");
            invalid.push(InvalidPolicy::new(&name, "", vec![problem.help("rename it")]));
            continue;
        }
        if bytes.len() > MAX_DOCUMENT_BYTES {
            let problem = Problem::new(&(0..0), format!("the file is larger than {MAX_DOCUMENT_BYTES} bytes"));
            invalid.push(InvalidPolicy::new(&name, "", vec![problem.help("split it into several files")]));
            continue;
        }
        match String::from_utf8(bytes) {
            Ok(text) => documents.push((name, text)),
            Err(error) => invalid.push(yaml::not_utf8(&name, &error)),
        }
    }
    if documents.is_empty() && invalid.is_empty() {
        return Err(LoadError::Empty { path: directory.to_owned() });
    }
    documents.sort();
    Ok((documents, invalid))
}
