//! RFC 6962 Merkle tree hashing: leaf hashes, and the root of a growing tree from its frontier.
//!
//! Formulas: RFC 6962 §2.1. A tree of `n` leaves is a row of perfect subtrees, one for each bit set in `n`; the
//! [`Frontier`] keeps only their roots, so appending costs one node hash on average and at most 64 hashes are held.
//! Proofs of inclusion and consistency are in `proof`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

/// A SHA-256 value: of a leaf, a node or a whole tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first record keeps as the hash of the record before it.
    pub const ZERO: Hash = Hash([0; 32]);

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Hash(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn to_base64(self) -> String {
        BASE64.encode(self.0)
    }

    pub fn from_base64(text: &str) -> Option<Self> {
        BASE64.decode(text).ok()?.try_into().ok().map(Hash)
    }

    /// 64 lowercase hexadecimal digits, as `Display` writes them.
    pub(crate) fn to_hex(self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }

    /// Reads 64 lowercase hexadecimal digits, the one form that `Display` writes.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(Hash(bytes))
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_hex().iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The hash of one log entry: SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The right edge of a tree: enough to append leaves and to know the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of the perfect subtrees, largest (leftmost) first: one for each bit set in `size`.
    subtrees: Vec<Hash>,
}

impl Frontier {
    pub fn new() -> Self {
        Self::default()
    }

    /// A frontier kept elsewhere; `None` when the number of subtrees is not what a tree of this size has.
    pub fn from_parts(size: u64, subtrees: Vec<Hash>) -> Option<Self> {
        (subtrees.len() == size.count_ones() as usize).then_some(Frontier { size, subtrees })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, largest first.
    pub fn subtrees(&self) -> &[Hash] {
        &self.subtrees
    }

    /// Appends one leaf: like adding one to `size` in binary, each carry joins two subtrees of equal size.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.subtrees.pop().expect("each bit set in the size has its subtree");
            node = node_hash(&left, &node);
        }
        self.subtrees.push(node);
        self.size += 1;
    }

    /// The root of the whole tree; of the empty tree, SHA-256 of nothing.
    pub fn root(&self) -> Hash {
        let mut smallest_first = self.subtrees.iter().rev();
        let Some(last) = smallest_first.next() else {
            return Hash(Sha256::digest([]).into());
        };
        smallest_first.fold(*last, |right, left| node_hash(left, &right))
    }
}

impl FromIterator<Hash> for Frontier {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut tree = Frontier::new();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }
}

/// The root over all leaf hashes at once.
pub fn root_of_leaves(leaves: &[Hash]) -> Hash {
    leaves.iter().copied().collect::<Frontier>().root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 6962 §2.1, word for word: split at the largest power of two smaller than n.
    fn root_by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash(Sha256::digest([]).into()),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&root_by_definition(&leaves[..split]), &root_by_definition(&leaves[split..]))
            }
        }
    }

    /// The reference vectors of the Certificate Transparency project.
    #[test]
    fn roots_match_the_published_vectors_of_certificate_transparency() {
        let entries: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Frontier::new();
        assert_eq!(tree.root().to_string(), roots[0]);
        for (entry, root) in entries.iter().zip(&roots[1..]) {
            tree.push(leaf_hash(entry));
            assert_eq!(tree.root().to_string(), *root, "tree of {} leaves", tree.size());
        }
    }

    #[test]
    fn a_frontier_with_the_wrong_number_of_subtrees_is_refused() {
        assert_eq!(Frontier::from_parts(3, vec![Hash::ZERO]), None);
        assert!(Frontier::from_parts(3, vec![Hash::ZERO; 2]).is_some());
    }

    proptest! {
        #[test]
        fn the_frontier_agrees_with_the_recursive_definition_at_every_size(
            leaves in prop::collection::vec(any::<[u8; 32]>().prop_map(Hash), 0..130)
        ) {
            let mut tree = Frontier::new();
            for n in 0..=leaves.len() {
                prop_assert_eq!(tree.root(), root_by_definition(&leaves[..n]));
                let kept = Frontier::from_parts(tree.size(), tree.subtrees().to_vec());
                prop_assert_eq!(kept.as_ref(), Some(&tree));
                if let Some(leaf) = leaves.get(n) {
                    tree.push(*leaf);
                }
            }
            prop_assert_eq!(root_of_leaves(&leaves), tree.root());
        }

        #[test]
        fn hex_and_base64_read_back_what_they_wrote(bytes in any::<[u8; 32]>()) {
            let hash = Hash(bytes);
            prop_assert_eq!(Hash::from_hex(&hash.to_string()), Some(hash));
            prop_assert_eq!(Hash::from_base64(&hash.to_base64()), Some(hash));
        }

        #[test]
        fn any_text_is_either_the_one_form_of_a_hash_or_refused(text in "\\PC{0,70}|[0-9a-fA-F]{64}") {
            if let Some(hash) = Hash::from_hex(&text) {
                prop_assert_eq!(hash.to_string(), text);
            }
        }
    }
}
