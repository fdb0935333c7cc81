//! The signing side of epochs: a key that signs for a while and is then forgotten.
//!
//! The secret is in memory alone and is wiped when it is dropped; keeping that memory out of swap and dumps is the
//! process's business. What was signed in an epoch that is over can be signed again by nobody, whoever has the node's
//! key and the memory of today: `docs/threat-model.md`.

use zeroize::Zeroizing;

use crate::key::{KeyError, SigningKey};
use crate::segment::{EpochKey, epoch_key_name};
use crate::statement::{Epoch, Opener};

/// Gives the secret of the epoch of this number. A fixed source is for tests: such an epoch protects nothing.
pub type SeedSource = fn(u64) -> Result<[u8; 32], KeyError>;

#[derive(Debug)]
pub(crate) struct EpochSigner {
    number: u64,
    key: SigningKey,
}

impl EpochSigner {
    pub(crate) fn new(node: &SigningKey, seeds: SeedSource, number: u64) -> Result<Self, KeyError> {
        let name = epoch_key_name(node.verifier().name(), number);
        let seed = Zeroizing::new(seeds(number)?);
        Ok(EpochSigner { number, key: SigningKey::from_seed(&name, &seed)? })
    }

    pub(crate) fn next(&self, node: &SigningKey, seeds: SeedSource) -> Result<Self, KeyError> {
        Self::new(node, seeds, self.number + 1)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(crate) fn statement(&self, opened_by: Opener, max_unsigned: u64) -> Epoch {
        Epoch {
            number: self.number,
            key: self.key.verifier().to_string(),
            opened_by,
            max_unsigned: max_unsigned.max(1),
        }
    }

    pub(crate) fn in_force(&self, max_unsigned: u64) -> EpochKey {
        EpochKey { number: self.number, key: self.key.verifier().clone(), max_unsigned: max_unsigned.max(1) }
    }
}
