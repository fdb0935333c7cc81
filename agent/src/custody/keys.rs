//! The node's signing key: from a systemd credential, or from a file that only its owner can read.
//!
//! A credential (`LoadCredential=` or, sealed to the machine's TPM, `LoadCredentialEncrypted=`) goes before the file.
//! Without either a key is made at the first start. `docs/threat-model.md` says what each is worth.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use plumbline_audit::{SigningKey, key::KeyError};
use thiserror::Error;

/// The name of the credential, in systemd's directory of them and when it was sealed.
pub const CREDENTIAL: &str = "plumbline.key";

#[derive(Debug, Error)]
pub enum NodeKeyError {
    #[error("cannot read the key {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("others can read the key {} (mode {mode:o}); expected 600", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{} holds no signing key", path.display())]
    Form { path: PathBuf, source: KeyError },
    #[error("cannot make a key")]
    Make(#[source] KeyError),
    #[error("cannot write the key {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// A key, and where it came from, in words.
#[derive(Debug)]
pub struct NodeKey {
    pub key: SigningKey,
    pub source: String,
}

/// The name of the node's key, which is the name of its log.
pub fn origin(node: &str) -> String {
    format!("plumbline/{node}")
}

/// The key of this node, made if there is none.
pub fn node_key(file: &Path, node: &str) -> Result<NodeKey, NodeKeyError> {
    if let Some(path) = credential() {
        return Ok(NodeKey { key: read(&path)?, source: "systemd credential".to_owned() });
    }
    match read_private(file) {
        Err(NodeKeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::generate(&origin(node)).map_err(NodeKeyError::Make)?;
            write_new(file, &key)?;
            tracing::info!(path = %file.display(), "made a key for this node");
            Ok(NodeKey { key, source: "file, made at this start".to_owned() })
        }
        read => Ok(NodeKey { key: read?, source: "file".to_owned() }),
    }
}

/// systemd puts credentials where only this service sees them, whatever their mode.
fn credential() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    Some(directory.join(CREDENTIAL)).filter(|path| path.exists())
}

/// Reads a key that must be its owner's alone.
pub fn read_private(path: &Path) -> Result<SigningKey, NodeKeyError> {
    let failed = |source| NodeKeyError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(NodeKeyError::Open { path: path.to_owned(), mode });
    }
    read(path)
}

fn read(path: &Path) -> Result<SigningKey, NodeKeyError> {
    let text = fs::read_to_string(path).map_err(|source| NodeKeyError::Read { path: path.to_owned(), source })?;
    SigningKey::from_text(&text).map_err(|source| NodeKeyError::Form { path: path.to_owned(), source })
}

/// Writes a key where no file is yet, for its owner alone, durably, whole or not at all.
pub fn write_new(path: &Path, key: &SigningKey) -> Result<(), NodeKeyError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(key.to_text().as_bytes())?;
        file.sync_all()?;
        // A link, unlike a renaming, does not replace what is there.
        fs::hard_link(&temporary, path)
    };
    let written = write();
    let _ = fs::remove_file(&temporary);
    written.map_err(|source| NodeKeyError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_ever_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let made = node_key(&path, "n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(node_key(&path, "other").unwrap().key.verifier(), made.key.verifier());
        assert_eq!(made.key.verifier().name(), "plumbline/n");
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        write_new(&path, &SigningKey::generate("a").unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = node_key(&path, "n").unwrap_err().to_string();
        assert!(error.contains("node.key (mode 640); expected 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(node_key(&path, "n"), Err(NodeKeyError::Form { .. })));
        // What is there is never written over.
        assert!(matches!(write_new(&path, &SigningKey::generate("a").unwrap()), Err(NodeKeyError::Write { .. })));
    }
}
