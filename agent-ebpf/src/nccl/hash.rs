//! `commHash`: the number that NCCL itself gives a communicator, and prints in its log, RAS and Inspector (`eatHash` and `digestHash` in its
//! `src/include/bitops.h`, since 2.23.4).
//!
//! Older ones have another (DJB2a), by which their communicators are told apart as well, if not by the number that NCCL prints.

/// Bytes of a `ncclUniqueId` (`NCCL_UNIQUE_ID_BYTES` in nccl.h), as words.
pub const ID_WORDS: usize = 16;

/// Of a communicator that begins with this id.
#[inline(always)]
pub fn of_id(id: &[u64; ID_WORDS]) -> u64 {
    let mut state = State::BEGIN.piece(8 * ID_WORDS as u64);
    let mut word = 0;
    while word < ID_WORDS {
        state = state.word(id[word]);
        word += 1;
    }
    state.digest()
}

/// Of a communicator that came of another: which of its children, counted from 1, and by which colour (`ncclCommInitRankFunc` in NCCL's
/// `src/init.cc`). A shrunken one is child 0 of colour 0.
#[inline(always)]
pub fn of_child(parent: u64, child: u32, color: u32) -> u64 {
    let state = State::BEGIN.piece(8).word(parent);
    let state = state.piece(4).word(child.into());
    state.piece(4).word(color.into()).digest()
}

#[derive(Clone, Copy)]
struct State(u64, u64);

impl State {
    const BEGIN: Self = Self(1, 1);

    /// A piece of so many bytes follows.
    #[inline(always)]
    const fn piece(self, bytes: u64) -> Self {
        Self(self.0 ^ bytes, self.1)
    }

    #[inline(always)]
    const fn word(self, word: u64) -> Self {
        let Self(a, b) = self;
        let a = a.wrapping_add(b);
        let b = b ^ a;
        let a = (a ^ a >> 31).wrapping_mul(0x9de6_2bbc_8cef_3ce3);
        let b = (b ^ b >> 32).wrapping_mul(0x485c_d631_1b59_9e79);
        Self(a.wrapping_add(word), b)
    }

    #[inline(always)]
    const fn digest(self) -> u64 {
        let Self(a, b) = self;
        let hash = (a ^ a >> 31).wrapping_mul(0xbac3_bd56_2846_de6b).wrapping_add(b);
        (hash ^ hash >> 32).wrapping_mul(0x995a_187a_14e7_b445)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ID: u64 = 0x6afe_1cc1_7717_e1f4;

    #[test]
    fn the_hash_of_an_id_is_nccls_own() {
        let bytes: [u8; 128] = core::array::from_fn(|index| u8::try_from(index).unwrap_or_default());
        let mut id = [0; ID_WORDS];
        for (word, bytes) in id.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        assert_eq!(of_id(&id), OF_ID);
    }

    /// Numbers of another writing of NCCL's functions, in Python.
    #[test]
    fn the_hash_of_a_child_is_nccls_own() {
        for (child, color, expect) in [
            (1, 0, 0x7903_0d07_3b3c_579f),
            (1, 1, 0x44d5_ab77_0e2d_4c78),
            (1, 7, 0x490f_799a_ef7a_996f),
            (2, 0, 0xcee9_955a_1c80_c08f),
            (0, 0, 0x3ab8_d78e_8fb6_dbda),
        ] {
            assert_eq!(of_child(OF_ID, child, color), expect, "{child} {color}");
        }
    }
}
