//! `cargo xtask setup`: everything that building and testing needs, fetched once into the cache.

use clap::{Args, ValueEnum};

use crate::cache::Cache;
use crate::error::Result;
use crate::toolchain::BpfToolchain;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// bpf-linker and the standard library's sources.
    Bpf,
}

/// Fetch or build what is missing, into one cache directory.
///
/// The other commands do this by themselves, as far as they need it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask setup\n  cargo xtask setup --only bpf")]
pub(crate) struct Setup {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

impl Setup {
    pub(crate) fn run(&self, cache: &Cache) -> Result<()> {
        let wanted = |part| self.only.is_empty() || self.only.contains(&part);
        if wanted(Part::Bpf) {
            BpfToolchain::set_up(cache)?;
        }
        println!("setup: ready");
        Ok(())
    }
}
