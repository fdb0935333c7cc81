//! A log as C2SP tlog-tiles: static files that any client of that format can check.
//!
//! Layout: <https://c2sp.org/tlog-tiles>. `checkpoint`; `tile/<L>/<N>[.p/<W>]` with 256 hashes of 32 bytes each or, in a
//! partial tile, `W`; `tile/entries/<N>[.p/<W>]` with the same number of records, each after its length in two bytes,
//! big-endian. Bundles of which a record was pruned are left out, as that format's section on pruning has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::SignedCheckpoint;
use crate::leaves;
use crate::merkle::{Hash, root_of_leaves};
use crate::reader::{ReadError, Reader};
use crate::tree::{TILE_HASHES, hashes_at};

#[derive(Debug, thiserror::Error)]
pub enum TilesError {
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the records do not lead to the root that the checkpoint signs: verify the log")]
    Root,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    pub tiles: u64,
    pub bundles: u64,
}

/// Writes the log in `log_dir`, as far as `signed` signs it, to `out`.
pub fn export(log_dir: &Path, signed: &SignedCheckpoint, out: &Path) -> Result<Exported, TilesError> {
    let size = signed.checkpoint.size;
    let mut exported = Exported::default();
    let mut tree = TileWriter { out, levels: Vec::new(), tiles: 0 };
    let mut root = crate::merkle::Frontier::new();
    leaves::for_each(log_dir, size, |leaf| {
        root.push(leaf);
        tree.push(0, leaf)
    })?;
    if root.root() != signed.checkpoint.root {
        return Err(TilesError::Root);
    }
    tree.finish(size)?;
    exported.tiles = tree.tiles;
    let mut bundle = Bundle::default();
    for entry in Reader::from_seq(log_dir, 0)?.take_while(|entry| entry.as_ref().map_or(true, |entry| entry.seq < size))
    {
        let entry = entry?;
        let number = entry.seq / TILE_HASHES;
        if number != bundle.number {
            exported.bundles += u64::from(bundle.write(out, size)?);
            bundle = Bundle { number, ..Bundle::default() };
        }
        bundle.push(&entry.bytes);
    }
    exported.bundles += u64::from(bundle.write(out, size)?);
    // Last: whoever sees the checkpoint finds all that it signs.
    write(&out.join("checkpoint"), signed.note.as_bytes())?;
    Ok(exported)
}

struct TileWriter<'a> {
    out: &'a Path,
    /// The hashes of each level's last tile, and that tile's number.
    levels: Vec<(u64, Vec<Hash>)>,
    tiles: u64,
}

impl TileWriter<'_> {
    fn push(&mut self, level: usize, hash: Hash) -> Result<(), TilesError> {
        if self.levels.len() == level {
            self.levels.push((0, Vec::new()));
        }
        let (number, tile) = &mut self.levels[level];
        tile.push(hash);
        if (tile.len() as u64) < TILE_HASHES {
            return Ok(());
        }
        write(&self.out.join(format!("tile/{level}/{}", tile_path(*number, TILE_HASHES))), &bytes(tile))?;
        self.tiles += 1;
        *number += 1;
        let root = root_of_leaves(tile);
        tile.clear();
        self.push(level + 1, root)
    }

    /// The partial tiles at the right edge.
    fn finish(&mut self, size: u64) -> Result<(), TilesError> {
        for (level, (number, tile)) in self.levels.iter().enumerate().filter(|(_, (_, tile))| !tile.is_empty()) {
            let width = hashes_at(u32::try_from(level).unwrap_or(u32::MAX), size) % TILE_HASHES;
            write(&self.out.join(format!("tile/{level}/{}", tile_path(*number, width))), &bytes(tile))?;
            self.tiles += 1;
        }
        Ok(())
    }
}

/// Up to 256 records.
#[derive(Default)]
struct Bundle {
    number: u64,
    records: u64,
    bytes: Vec<u8>,
}

impl Bundle {
    fn push(&mut self, record: &[u8]) {
        let len = u16::try_from(record.len()).expect("a record is at most MAX_RECORD_BYTES long");
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(record);
        self.records += 1;
    }

    /// Whether it was whole, and so written.
    fn write(&self, out: &Path, size: u64) -> Result<bool, TilesError> {
        let width = TILE_HASHES.min(size.saturating_sub(self.number * TILE_HASHES));
        if self.records < width || width == 0 {
            return Ok(false);
        }
        write(&out.join(format!("tile/entries/{}", tile_path(self.number, width))), &self.bytes)?;
        Ok(true)
    }
}

fn bytes(tile: &[Hash]) -> Vec<u8> {
    tile.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), TilesError> {
    let failed = |source| TilesError::Write { path: path.to_owned(), source };
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    fs::write(path, bytes).map_err(failed)
}

/// `1234067` is `x001/x234/067`; a tile that is not full says how wide it is.
fn tile_path(number: u64, width: u64) -> String {
    let mut path = format!("{:03}", number % 1000);
    let mut rest = number / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < TILE_HASHES { format!("{path}.p/{width}") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_have_the_paths_of_the_specification() {
        assert_eq!(tile_path(0, 256), "000");
        assert_eq!(tile_path(1_234_067, 256), "x001/x234/067");
        assert_eq!(tile_path(1000, 7), "x001/000.p/7");
    }
}
