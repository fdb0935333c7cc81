//! The one directory where everything that set-up fetches or builds is kept; deleting it undoes set-up.
//!
//! An item is a directory that appears by rename when it is whole, so its existence is the stamp "done": an interrupted
//! set-up leaves nothing that looks finished, and a second run needs no network.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$PLUMBLINE_CACHE`, else `$XDG_CACHE_HOME/plumbline`, else `~/.cache/plumbline`.
    pub(crate) fn open() -> Result<Self> {
        let root = root_from(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
            .ok_or_else(|| {
                Error::said("no place for the cache: none of PLUMBLINE_CACHE, XDG_CACHE_HOME, HOME is set")
            })?;
        fs::create_dir_all(&root).map_err(Error::file("create", &root))?;
        let root = root.canonicalize().map_err(Error::file("resolve", &root))?;
        Ok(Self { root })
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The finished item `name`; made by `make` in a scratch directory first if it is not there yet.
    ///
    /// By one process at a time: two set-ups at once would fetch everything twice.
    pub(crate) fn item(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let done = self.path(name);
        if done.exists() {
            return Ok(done);
        }
        let _lock = self.lock(name)?;
        if done.exists() {
            return Ok(done);
        }
        let scratch = self.path(format!("{name}.partial"));
        remove(&scratch)?;
        fs::create_dir_all(&scratch).map_err(Error::file("create", &scratch))?;
        make(&scratch)?;
        fs::rename(&scratch, &done).map_err(Error::file("finish", &done))?;
        Ok(done)
    }

    /// Waits until no other process works on `name`; the lock is released when the file is dropped.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let dir = self.path("locks");
        fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
        let path = dir.join(name);
        let lock = File::create(&path).map_err(Error::file("create", &path))?;
        if lock.try_lock().is_err() {
            println!("setup: waiting for another set-up to release {}", path.display());
            lock.lock().map_err(Error::file("lock", &path))?;
        }
        Ok(lock)
    }

    /// Forgets the item, so that the next set-up makes it anew.
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        remove(&self.path(name))
    }
}

/// Distinguishes items that are made of different lists.
pub(crate) fn mark_of(list: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    list.hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}

fn root_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("PLUMBLINE_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("plumbline")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".cache/plumbline")))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: &[(&str, &str)], expected: Option<&str>) {
        let found = root_from(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value)));
        assert_eq!(found.as_deref(), expected.map(Path::new), "{set:?}");
    }

    #[test]
    fn an_item_is_made_once_and_an_interrupted_one_leaves_nothing_that_looks_done() {
        let root = env::temp_dir().join(format!("plumbline-cache-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let cache = Cache { root: root.clone() };

        let half = |scratch: &Path| {
            fs::write(scratch.join("half"), "").unwrap();
            Err(Error::said("the network went away"))
        };
        cache.item("thing", half).expect_err("the first attempt fails");
        assert!(!cache.path("thing").exists());

        let whole = |scratch: &Path| fs::write(scratch.join("whole"), "").map_err(Error::file("write", scratch));
        let made = cache.item("thing", whole).unwrap();
        assert!(made.join("whole").exists() && !made.join("half").exists());
        cache.item("thing", |_| panic!("the item is there already")).unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_projects_own_variable_wins_then_the_desktop_standard_then_home() {
        check(&[("PLUMBLINE_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")], Some("/a"));
        check(&[("XDG_CACHE_HOME", "/b"), ("HOME", "/c")], Some("/b/plumbline"));
        check(&[("HOME", "/c")], Some("/c/.cache/plumbline"));
        check(&[], None);
    }
}
