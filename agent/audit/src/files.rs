//! The few file operations durability needs: private creation, atomic replacement, flushing a directory.
//!
//! A name is durable only after its directory is flushed; a file is replaced by writing beside it and renaming.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What a file is called while it is being written; a crash may leave one behind, and the next start removes it.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Creates `dir` for its owner alone; one that exists is left as it is.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Options for reading and writing a file that is created, if missing, for its owner alone.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes names created, renamed or removed in `dir` durable. Windows has no such call and needs none.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Puts a file with these bytes in place, all or nothing, durably. Returns it open, standing at its end.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    replace_with(path, |file| file.write_all(bytes))
}

/// Puts a file in place that `write` fills, all or nothing, durably. Returns it open, standing at its end.
pub(crate) fn replace_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let file = rename_over(path, write)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

/// Puts a file with these bytes in place, all or nothing; after a power failure it may be the one before.
pub(crate) fn replace_lazily(path: &Path, bytes: &[u8]) -> io::Result<()> {
    rename_over(path, |file| file.write_all(bytes)).map(drop)
}

fn rename_over(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let temporary = temporary(path);
    let replace = || {
        let mut file = private().truncate(true).open(&temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        Ok(file)
    };
    replace().inspect_err(|_: &io::Error| {
        // The first error is the one to report; what this leaves behind, the next start removes.
        let _ = fs::remove_file(&temporary);
    })
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

/// Removes what an interrupted [`replace`] left in `dir`.
pub(crate) fn remove_temporaries(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(TEMPORARY_SUFFIX.as_bytes()) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
