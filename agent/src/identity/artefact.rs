//! Which model artefact a path belongs to, as far as the path *claims* it.
//!
//! A Hugging Face cache (huggingface_hub, `docs/source/en/guides/manage-cache.md`) keeps each repository in
//! `models--<org>--<name>/` with `blobs/<etag>`, `snapshots/<commit>/<file>` (symbolic links to blobs), `refs/`. The etag
//! of a large file is its SHA-256. A name is no proof: what is derived here is `claimed`, never `verified`.

use serde::Serialize;

/// A claimed identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artefact {
    /// `org/name` of a Hugging Face repository.
    pub repository: String,
    /// `model`, `dataset` or `space`.
    pub kind: &'static str,
    /// The 40 digits of the commit, when the path goes through `snapshots`.
    pub commit: Option<String>,
    /// SHA-256 of the content, when the file is a blob named by it.
    pub claimed_sha256: Option<String>,
}

const KINDS: &[(&str, &str)] = &[("models--", "model"), ("datasets--", "dataset"), ("spaces--", "space")];

impl Artefact {
    pub fn of_path(path: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let mut components = path.split('/');
        let (kind, folder) = components
            .by_ref()
            .find_map(|name| KINDS.iter().find_map(|(prefix, kind)| Some((*kind, name.strip_prefix(prefix)?))))?;
        let repository = folder.replacen("--", "/", 1);
        let (place, name) = (components.next()?, components.next());
        let hexadecimal = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let digest = |digits| name.filter(|name| hexadecimal(name, digits)).map(str::to_owned);
        let (commit, claimed_sha256) = match place {
            "blobs" => (None, digest(64)),
            "snapshots" => (digest(40), None),
            _ => return None,
        };
        Some(Self { repository, kind, commit, claimed_sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_claims_its_repository_and_digest() {
        let sha = "5d0f1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";
        let path = format!("/root/.cache/huggingface/hub/models--meta-llama--Llama-3.1-8B/blobs/{sha}");
        let artefact = Artefact::of_path(path.as_bytes()).unwrap();
        assert_eq!(artefact.repository, "meta-llama/Llama-3.1-8B");
        assert_eq!(artefact.claimed_sha256.as_deref(), Some(sha));
    }

    #[test]
    fn a_small_file_has_a_git_name_that_is_no_sha256() {
        let path = b"/x/models--a--b/blobs/e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        assert_eq!(Artefact::of_path(path).unwrap().claimed_sha256, None);
    }

    #[test]
    fn a_copy_in_snapshots_claims_its_commit() {
        let path = b"/x/models--b/snapshots/0123456789abcdef0123456789abcdef01234567/model.safetensors";
        let artefact = Artefact::of_path(path).unwrap();
        assert_eq!((artefact.repository.as_str(), artefact.commit.is_some()), ("b", true));
    }

    #[test]
    fn other_paths_claim_nothing() {
        assert_eq!(Artefact::of_path(b"/models/llama/model.safetensors"), None);
        assert_eq!(Artefact::of_path(b"/x/models--a--b/refs/main"), None);
        assert_eq!(Artefact::of_path(b"/x/models--\xff/blobs/a"), None);
    }
}
