//! `cargo xtask setup`: everything that building and testing needs, fetched once into the cache.

use clap::{Args, ValueEnum};

use crate::cache::Cache;
use crate::error::Result;
use crate::nvidia;
use crate::promtool;
use crate::python::Python;
use crate::toolchain::BpfToolchain;
use crate::tools::Tools;
use crate::vm;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// bpf-linker and the standard library's sources.
    Bpf,
    /// QEMU and the kernels that it boots.
    Vm,
    /// Python with the packages that tests compare against.
    Python,
    /// Prometheus' checker of metric pages.
    Promtool,
    /// CUDA's runtime and NCCL, 360 MB to fetch.
    Nvidia,
    /// Makers of file systems, one in user space, a container runtime, the audit system's control.
    Tools,
}

/// Fetch or build what is missing, into one cache directory.
///
/// The other commands do this by themselves, as far as they need it. The directory is `$PLUMBLINE_CACHE`, else
/// `plumbline` in the user's cache directory; deleting it undoes everything.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask setup\n  cargo xtask setup --only bpf,vm\n  cargo xtask setup --only vm --refresh"
)]
pub(crate) struct Setup {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Fetch Debian's current kernels again; the cached ones are kept otherwise.
    #[arg(long)]
    refresh: bool,
}

impl Setup {
    pub(crate) fn run(&self, cache: &Cache) -> Result<()> {
        let wanted = |part| self.only.is_empty() || self.only.contains(&part);
        if wanted(Part::Bpf) {
            BpfToolchain::set_up(cache)?;
        }
        if wanted(Part::Vm) {
            if self.refresh {
                vm::ALL.into_iter().try_for_each(|kernel| cache.forget(&kernel.item_name()))?;
            }
            vm::set_up(cache, &vm::ALL)?;
        }
        if wanted(Part::Python) {
            Python::for_tests(cache)?;
        }
        if wanted(Part::Nvidia) {
            nvidia::set_up(cache)?;
        }
        if wanted(Part::Promtool) {
            promtool::set_up(cache)?;
        }
        if wanted(Part::Tools) {
            Tools::set_up(cache)?;
        }
        println!("setup: ready in {}", cache.path("").display());
        Ok(())
    }
}
