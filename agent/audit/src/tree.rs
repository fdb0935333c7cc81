//! The hashes of the tree beside the log, from which proofs and tiles are made without reading records.
//!
//! `tree/level-<L>` holds, 32 bytes each, the roots of all perfect subtrees of 256^L records, in order: level 0 is the leaf
//! hashes. Tile `N` of level `L` of C2SP tlog-tiles is the 8192 bytes at `N * 8192`. The files are derived from the
//! segments and no evidence: what a crash left of them is written anew, and a proof is checked before it is given out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::files;
use crate::merkle::{Hash, root_of_leaves};
use crate::proof::Nodes;

/// The directory of these files, in the log directory.
const TREE_DIR: &str = "tree";
/// Hashes in a full tile.
pub(crate) const TILE_HASHES: u64 = 256;
/// One level of files for so many levels of the tree.
const TILE_HEIGHT: u32 = 8;
const HASH_BYTES: u64 = 32;

fn level_path(log_dir: &Path, level: u32) -> PathBuf {
    log_dir.join(TREE_DIR).join(format!("level-{level}"))
}

/// The hashes that level `level` has when the tree has `size` leaves.
pub(crate) fn hashes_at(level: u32, size: u64) -> u64 {
    size.checked_shr(TILE_HEIGHT * level).unwrap_or(0)
}

/// Adds to the files as the log grows.
#[derive(Debug)]
pub(crate) struct TreeWriter {
    log_dir: PathBuf,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// Opened when there is something to write.
    file: Option<File>,
    /// Not yet in the file.
    pending: Vec<u8>,
    /// The hashes of the last tile, which is not full.
    tile: Vec<Hash>,
}

impl TreeWriter {
    /// Goes on after the first `size` leaves, dropping what may follow them; `None` where not so many are there.
    pub(crate) fn open(log_dir: &Path, size: u64) -> io::Result<Option<Self>> {
        files::create_private_dir(&log_dir.join(TREE_DIR))?;
        let mut writer = TreeWriter { log_dir: log_dir.to_owned(), levels: Vec::new() };
        for level in 0.. {
            let hashes = hashes_at(level, size);
            if hashes == 0 && level > 0 {
                // Higher levels, if any, are of a tree that was cut back.
                if level_path(log_dir, level).exists() {
                    fs::remove_file(level_path(log_dir, level))?;
                    continue;
                }
                break;
            }
            match Level::open(&level_path(log_dir, level), hashes)? {
                Some(level) => writer.levels.push(level),
                None => return Ok(None),
            }
        }
        Ok(Some(writer))
    }

    pub(crate) fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for number in 0.. {
            if self.levels.len() == number {
                self.levels.push(Level { file: None, pending: Vec::new(), tile: Vec::new() });
            }
            let level = &mut self.levels[number];
            level.pending.extend_from_slice(hash.as_bytes());
            level.tile.push(hash);
            if (level.tile.len() as u64) < TILE_HASHES {
                break;
            }
            hash = root_of_leaves(&level.tile);
            level.tile.clear();
        }
    }

    /// Writes what was pushed. On an error the next attempt writes it.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        for (number, level) in self.levels.iter_mut().enumerate() {
            let file = match &mut level.file {
                Some(file) => file,
                none => {
                    let path = level_path(&self.log_dir, u32::try_from(number).unwrap_or(u32::MAX));
                    none.insert(files::private().truncate(true).open(path)?)
                }
            };
            while !level.pending.is_empty() {
                let count = file.write(&level.pending)?;
                level.pending.drain(..count);
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.commit()?;
        self.levels.iter().filter_map(|level| level.file.as_ref()).try_for_each(File::sync_data)
    }
}

impl Level {
    /// `None` where the file holds fewer than so many hashes.
    fn open(path: &Path, hashes: u64) -> io::Result<Option<Self>> {
        let mut file = files::private().truncate(false).open(path)?;
        if file.metadata()?.len() < hashes * HASH_BYTES {
            return Ok(None);
        }
        file.set_len(hashes * HASH_BYTES)?;
        let tile = read_hashes(&mut file, hashes - hashes % TILE_HASHES, hashes % TILE_HASHES)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Some(Level { file: Some(file), pending: Vec::new(), tile }))
    }
}

fn read_hashes(file: &mut File, first: u64, count: u64) -> io::Result<Vec<Hash>> {
    file.seek(SeekFrom::Start(first * HASH_BYTES))?;
    let mut bytes = Vec::new();
    file.take(count * HASH_BYTES).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != count * HASH_BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.as_chunks::<32>().0.iter().copied().map(Hash::from_bytes).collect())
}

/// Reads the files, also while the log grows.
#[derive(Debug)]
pub struct TreeReader {
    log_dir: PathBuf,
    levels: Vec<Option<File>>,
}

impl TreeReader {
    pub fn new(log_dir: &Path) -> Self {
        TreeReader { log_dir: log_dir.to_owned(), levels: Vec::new() }
    }

    /// Hashes `first` to before `first + count` of level `level`.
    pub fn hashes(&mut self, level: u32, first: u64, count: u64) -> io::Result<Vec<Hash>> {
        let number = level as usize;
        if self.levels.len() <= number {
            self.levels.resize_with(number + 1, || None);
        }
        let file = match &mut self.levels[number] {
            Some(file) => file,
            none => none.insert(OpenOptions::new().read(true).open(level_path(&self.log_dir, level))?),
        };
        read_hashes(file, first, count)
    }
}

impl Nodes for TreeReader {
    type Error = io::Error;

    fn node(&mut self, level: u32, index: u64) -> io::Result<Hash> {
        let within = level % TILE_HEIGHT;
        Ok(root_of_leaves(&self.hashes(level / TILE_HEIGHT, index << within, 1 << within)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{Frontier, leaf_hash};
    use crate::proof::tree_root;

    fn leaf(number: u64) -> Hash {
        leaf_hash(&number.to_be_bytes())
    }

    fn check(dir: &Path, size: u64) {
        let tree: Frontier = (0..size).map(leaf).collect();
        assert_eq!(tree_root(&mut TreeReader::new(dir), size).unwrap(), tree.root(), "{size} leaves");
    }

    #[test]
    fn the_root_from_the_files_is_the_root_at_sizes_around_full_tiles() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = TreeWriter::open(dir.path(), 0).unwrap().unwrap();
        let sizes = [1, 2, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 66_000];
        for size in 1..=66_000 {
            writer.push(leaf(size - 1));
            if sizes.contains(&size) {
                writer.commit().unwrap();
                check(dir.path(), size);
            }
        }
        check(dir.path(), 300);
    }

    #[test]
    fn files_cut_back_to_an_earlier_tree_grow_into_another_one() {
        let dir = tempfile::tempdir().unwrap();
        for size in [600, 70_000, 256, 255, 65_536, 3, 0] {
            let mut writer = TreeWriter::open(dir.path(), 0).unwrap().unwrap();
            (0..size).for_each(|number| writer.push(leaf(number)));
            // What came after `size` is another history.
            (size..70_000).for_each(|number| writer.push(leaf(number + 9)));
            writer.commit().unwrap();
            let mut writer = TreeWriter::open(dir.path(), size).unwrap().unwrap();
            (size..size + 300).for_each(|number| writer.push(leaf(number)));
            writer.commit().unwrap();
            check(dir.path(), size + 300);
        }
        assert!(TreeWriter::open(dir.path(), 100_000).unwrap().is_none());
    }
}
