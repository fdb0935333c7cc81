//! The leaf hashes of a log, from its segments: what all other hashes of the tree can be made from again.

use std::fs;
use std::path::Path;

use crate::frame::Kind;
use crate::merkle::{Hash, leaf_hash, root_of_leaves};
use crate::proof::Nodes;
use crate::reader::ReadError;
use crate::segment;

/// Gives the first `size` leaf hashes in order to `each`. Segments are read, their CRCs checked, and nothing verified.
pub(crate) fn for_each<E: From<ReadError>>(
    dir: &Path,
    size: u64,
    mut each: impl FnMut(Hash) -> Result<(), E>,
) -> Result<(), E> {
    let segments = segment::list(dir).map_err(|source| ReadError::Io { path: dir.to_owned(), source })?;
    let mut seq = 0;
    for segment in segments {
        let io = |source| ReadError::Io { path: segment.path.clone(), source };
        let len = fs::metadata(&segment.path).map_err(io)?.len();
        let (_, mut frames) =
            segment::open(&segment.path, len).map_err(|source| ReadError::damaged(&segment.path, 0, source))?;
        while seq < size {
            let offset = frames.offset();
            let frame =
                frames.next_frame().map_err(|source| ReadError::damaged(&segment.path, offset, source.into()))?;
            let Some(frame) = frame else { break };
            let mut give = |leaf| {
                seq += 1;
                if seq <= size { each(leaf) } else { Ok(()) }
            };
            match frame.kind {
                Kind::Record => give(leaf_hash(frame.payload))?,
                Kind::Pruned => {
                    frame.payload.as_chunks::<32>().0.iter().try_for_each(|leaf| give(Hash::from_bytes(*leaf)))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Leaf hashes in memory, from which nodes are made by hashing.
#[derive(Debug)]
pub(crate) struct Leaves(pub(crate) Vec<Hash>);

impl Nodes for Leaves {
    type Error = std::io::Error;

    fn node(&mut self, level: u32, index: u64) -> std::io::Result<Hash> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let first = usize::try_from(index << level).map_err(|_| missing())?;
        let leaves = self.0.get(first..first + (1 << level)).ok_or_else(missing)?;
        Ok(root_of_leaves(leaves))
    }
}
