//! The ledger over a restart of the daemon: `cost.json` in the state directory, replaced whole each minute and at the end.
//!
//! The time in which no daemon ran is paid for like any other, and what the counters of GPUs and engines grew by meanwhile belongs to it:
//! the ledger goes on from where it stood, also where the daemon was killed. After a boot only what was spent goes on, since the time
//! that the node was off is nobody's to guess; and nothing does when the currency is another one.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{ledger::Ledger, prices::PriceBook};
use crate::files;

/// The format of the file and its version.
const FORMAT: &str = "plumbline-cost/v1";

const EVERY_NS: u64 = 60 * 1_000_000_000;

/// Where the ledger is kept.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    boot_id: String,
    written_boot_ns: u64,
    /// So that a lasting fault is said once.
    is_failing: bool,
}

/// Why the ledger begins anew though one was kept.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no ledger of this version ({FORMAT})", path.display())]
    Format { path: PathBuf, source: serde_json::Error },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<L> {
    format: Format,
    boot_id: String,
    currency: Option<String>,
    ledger: L,
}

#[derive(Serialize, Deserialize)]
enum Format {
    #[serde(rename = "plumbline-cost/v1")]
    V1,
}

impl LedgerFile {
    /// `boot_id` is the kernel's: times of one boot mean nothing in another.
    pub fn new(state_dir: &Path, boot_id: String) -> Self {
        Self { path: state_dir.join("cost.json"), boot_id, written_boot_ns: 0, is_failing: false }
    }

    /// The ledger as it goes on at `boot_ns`. `None`: nothing was kept.
    pub fn read(&self, prices: Option<&PriceBook>, boot_ns: u64) -> Result<Option<Ledger>, KeptError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeptError::Read { path: self.path.clone(), source }),
        };
        let kept: Kept<Ledger> =
            serde_json::from_str(&text).map_err(|source| KeptError::Format { path: self.path.clone(), source })?;
        if kept.currency != currency(prices) {
            return Ok(None);
        }
        Ok(Some(kept.ledger.resumed(prices.cloned(), kept.boot_id == self.boot_id, boot_ns)))
    }

    /// Writes if it is time to.
    pub fn write_if_due(&mut self, ledger: &Ledger, boot_ns: u64) {
        if boot_ns.saturating_sub(self.written_boot_ns) >= EVERY_NS {
            self.write(ledger, boot_ns);
        }
    }

    pub fn write(&mut self, ledger: &Ledger, boot_ns: u64) {
        self.written_boot_ns = boot_ns;
        let (boot_id, currency) = (self.boot_id.clone(), currency(ledger.prices()));
        let kept = Kept { format: Format::V1, boot_id, currency, ledger };
        let written =
            serde_json::to_vec(&kept).map_err(io::Error::from).and_then(|text| files::replace(&self.path, &text));
        if let (Err(error), false) = (&written, self.is_failing) {
            tracing::warn!(path = %self.path.display(), %error, "the ledger of costs cannot be kept; it begins anew at the next start");
        }
        self.is_failing = written.is_err();
    }
}

fn currency(prices: Option<&PriceBook>) -> Option<String> {
    prices.map(|prices| prices.currency.as_str().to_owned())
}
