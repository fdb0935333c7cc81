//! Which pages of a file lie together in one folio of the page cache.
//!
//! The page cache is an xarray (Linux: `include/linux/xarray.h`): a tree of nodes of 64 slots, each node for the bits of
//! the index above its `shift`. An entry whose low bits are 10 is a node, or a *sibling* that names the slot of the same
//! node that has the entry; a folio of many pages is one entry and its siblings. So its size is read off the slots, and
//! nothing of `struct folio`, which changes with each release.

use crate::kernel::{off, read};

/// `XA_CHUNK_SHIFT`: slots are 1 << 6, but in kernels for machines of a few megabytes (`CONFIG_BASE_SMALL`).
const CHUNK_SHIFT: u32 = 6;

/// Levels of a tree for 64-bit indices, and one.
const LEVELS: usize = 12;

/// The first and last page of the folio that has this page; the page itself where it is alone, or not in the page cache.
#[inline(always)]
pub fn pages(mapping: u64, page: u64) -> (u64, u64) {
    let alone = (page, page);
    let mut entry: u64 = read(mapping, off!(mapping_pages_head));
    let (mut node, mut shift, mut slot) = (0, 0, 0);
    for _ in 0..LEVELS {
        if !is_node(entry) {
            break;
        }
        node = entry - 2;
        shift = u32::from(read::<u8>(node, off!(xa_node_shift)));
        if shift > 63 {
            return alone;
        }
        slot = (page >> shift) & SLOTS_MASK;
        entry = at(node, slot);
        if let Some(canonical) = sibling(entry) {
            slot = canonical;
            entry = at(node, slot);
        }
    }
    // An entry of the tree's head is page 0, alone; nothing, a mark of an evicted page, and nodes are no folios.
    if node == 0 || entry == 0 || entry & 3 != 0 {
        return alone;
    }
    // Folios are powers of two, aligned to their size.
    let mut slots = 1;
    for _ in 1..CHUNK_SHIFT {
        if slot + slots > SLOTS_MASK || sibling(at(node, slot + slots)) != Some(slot) {
            break;
        }
        slots *= 2;
    }
    let above = shift + CHUNK_SHIFT;
    let base = if above > 63 { 0 } else { (page >> above) << above };
    let first = base + (slot << shift);
    (first, first + (slots << shift) - 1)
}

const SLOTS_MASK: u64 = (1 << CHUNK_SHIFT) - 1;

#[inline(always)]
fn at(node: u64, slot: u64) -> u64 {
    read(node.wrapping_add((slot & SLOTS_MASK) * 8), off!(xa_node_slots))
}

/// `xa_is_node`: internal, and not one of the small numbers that mean something else.
#[inline(always)]
fn is_node(entry: u64) -> bool {
    entry & 3 == 2 && entry > 4096
}

/// `xa_is_sibling`: the slot that has the entry.
#[inline(always)]
fn sibling(entry: u64) -> Option<u64> {
    (entry & 3 == 2 && entry < SLOTS_MASK << 2).then_some(entry >> 2)
}
