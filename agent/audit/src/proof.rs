//! Proofs that a record is in a tree, and that a tree is the beginning of a later one.
//!
//! Formulas: RFC 6962 §2.1.1 and §2.1.2 for making proofs, RFC 9162 §2.1.3.2 and §2.1.4.2 for checking them. Making one
//! asks for about log2(n) roots of perfect subtrees, whoever keeps them; checking one needs nothing but the proof.

use crate::merkle::{Hash, node_hash};

/// Whoever knows the roots of the perfect subtrees of a tree.
pub trait Nodes {
    type Error;
    /// The root over the `2^level` leaves from `index * 2^level` on, all of which exist.
    fn node(&mut self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The audit path of leaf `index` in the tree of the first `size` leaves, from the leaf's sibling to the root's child.
pub fn inclusion<N: Nodes + ?Sized>(nodes: &mut N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    debug_assert!(index < size, "the leaf is in the tree");
    let (mut low, mut high, mut path) = (0, size, Vec::new());
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(root(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(root(nodes, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// What turns the root over the first `old` leaves into the root over the first `new`; empty for an old tree without
/// leaves, which any tree continues.
pub fn consistency<N: Nodes + ?Sized>(nodes: &mut N, old: u64, new: u64) -> Result<Vec<Hash>, N::Error> {
    debug_assert!(old <= new, "the old tree is the smaller one");
    let mut path = Vec::new();
    if old == 0 || old == new {
        return Ok(path);
    }
    let (mut low, mut high) = (0, new);
    while high != old {
        let middle = low + split(high - low);
        if old <= middle {
            path.push(root(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(root(nodes, low, middle)?);
            low = middle;
        }
    }
    // A perfect old tree is known to whoever checks.
    if low > 0 {
        path.push(root(nodes, low, high)?);
    }
    path.reverse();
    Ok(path)
}

/// The root over the first `size` leaves.
pub fn tree_root<N: Nodes + ?Sized>(nodes: &mut N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 { Ok(crate::merkle::root_of_leaves(&[])) } else { root(nodes, 0, size) }
}

/// The largest power of two smaller than `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The root over leaves `low..high`, where `low` is where a split of a tree put it.
fn root<N: Nodes + ?Sized>(nodes: &mut N, low: u64, high: u64) -> Result<Hash, N::Error> {
    let count = high - low;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        return nodes.node(level, low >> level);
    }
    let middle = low + split(count);
    Ok(node_hash(&root(nodes, low, middle)?, &root(nodes, middle, high)?))
}

/// The root of the tree of `size` leaves in which `leaf` is at `index`, if `path` is a proof of it at all.
pub fn root_from_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut fnode, mut snode, mut node) = (index, size - 1, leaf);
    for sibling in path {
        if snode == 0 {
            return None;
        }
        if fnode & 1 == 1 || fnode == snode {
            node = node_hash(sibling, &node);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            node = node_hash(&node, sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    (snode == 0).then_some(node)
}

/// Whether `path` proves that the tree (`old`, `old_root`) is the beginning of the tree (`new`, `new_root`).
pub fn is_consistent(old: u64, old_root: &Hash, new: u64, new_root: &Hash, path: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return path.is_empty();
    }
    let known = [*old_root];
    let mut path = known[..usize::from(old.is_power_of_two())].iter().chain(path);
    let (mut fnode, mut snode) = (old - 1, new - 1);
    let shift = fnode.trailing_ones();
    fnode >>= shift;
    snode >>= shift;
    let Some(first) = path.next() else { return false };
    let (mut old_node, mut new_node) = (*first, *first);
    for step in path {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            old_node = node_hash(step, &old_node);
            new_node = node_hash(step, &new_node);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            new_node = node_hash(&new_node, step);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    snode == 0 && old_node == *old_root && new_node == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{leaf_hash, root_of_leaves};
    use std::convert::Infallible;

    /// Keeps the leaves and hashes anew for every question.
    struct Leaves(Vec<Hash>);

    impl Nodes for Leaves {
        type Error = Infallible;
        fn node(&mut self, level: u32, index: u64) -> Result<Hash, Infallible> {
            let first = usize::try_from(index << level).unwrap();
            Ok(root_of_leaves(&self.0[first..first + (1 << level)]))
        }
    }

    fn leaves(count: u64) -> Leaves {
        Leaves((0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect())
    }

    /// Every proof of every tree up to 70 leaves, and no proof for a neighbour.
    #[test]
    fn every_leaf_of_every_tree_is_proved_and_no_other_in_its_place() {
        for size in 1..70 {
            let mut nodes = leaves(size);
            let root = root_of_leaves(&nodes.0);
            assert_eq!(tree_root(&mut nodes, size), Ok(root));
            for index in 0..size {
                let path = inclusion(&mut nodes, index, size).unwrap();
                let leaf = leaf_hash(&index.to_be_bytes());
                assert_eq!(root_from_inclusion(leaf, index, size, &path), Some(root), "{index} of {size}");
                assert_ne!(root_from_inclusion(leaf, index + 1, size, &path), Some(root), "{index} of {size}");
                for cut in 0..path.len() {
                    assert_ne!(root_from_inclusion(leaf, index, size, &path[..cut]), Some(root), "{index} of {size}");
                }
            }
        }
    }

    #[test]
    fn every_tree_is_consistent_with_every_earlier_one_and_with_no_other() {
        for new in 0..40 {
            let mut nodes = leaves(new);
            let new_root = root_of_leaves(&nodes.0);
            for old in 0..=new {
                let old_root = root_of_leaves(&leaves(old).0);
                let path = consistency(&mut nodes, old, new).unwrap();
                assert!(is_consistent(old, &old_root, new, &new_root, &path), "{old} of {new}");
                assert!(!is_consistent(old, &old_root, new, &leaf_hash(b"other"), &path) || old == 0, "{old} of {new}");
                if old > 0 {
                    assert!(!is_consistent(old, &leaf_hash(b"other"), new, &new_root, &path), "{old} of {new}");
                }
                if old > 0 && old < new {
                    assert!(!is_consistent(old, &old_root, new, &new_root, &path[1..]), "{old} of {new}");
                    let longer = [path.as_slice(), &[Hash::ZERO]].concat();
                    assert!(!is_consistent(old, &old_root, new, &new_root, &longer), "{old} of {new}");
                }
            }
        }
    }

    /// The paths of RFC 6962 §2.1.3: a tree of seven leaves d0…d6.
    #[test]
    fn the_examples_of_the_rfc_have_its_paths() {
        let mut nodes = leaves(7);
        let mut node = |level, index| nodes.node(level, index).unwrap();
        let (b, c, d, f, g, h, i, j) =
            (node(0, 1), node(0, 2), node(0, 3), node(0, 5), node(1, 0), node(1, 1), node(1, 2), node(0, 6));
        let (k, l) = (node(2, 0), node_hash(&i, &j));
        let _ = (c, f);
        assert_eq!(inclusion(&mut nodes, 0, 7), Ok(vec![b, h, l]));
        assert_eq!(inclusion(&mut nodes, 3, 7), Ok(vec![c, g, l]));
        assert_eq!(inclusion(&mut nodes, 4, 7), Ok(vec![f, j, k]));
        assert_eq!(inclusion(&mut nodes, 6, 7), Ok(vec![i, k]));
        assert_eq!(consistency(&mut nodes, 3, 7), Ok(vec![c, d, g, l]));
        assert_eq!(consistency(&mut nodes, 4, 7), Ok(vec![l]));
        assert_eq!(consistency(&mut nodes, 6, 7), Ok(vec![i, j, k]));
    }
}
