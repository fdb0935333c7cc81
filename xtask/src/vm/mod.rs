//! `cargo xtask vm`: Debian's kernels in QEMU, each with the test program as its first process.
//!
//! The guest is a kernel, an initramfs with `/init` (the binary `vm-init` of the package `plumbline-tests`), the kernel
//! object `/plumbline.bpf.o` and what calls a library for probes to be at, with the kernel's modules in `/modules` and the programs of `tools`; it has no disk and no network card. It reports on the serial console, one line a test:
//! `ok NAME`, `not ok NAME: why`, `skip NAME: why`, and `vm: done` when it got to the end.

mod initramfs;
mod kernel;
mod qemu;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Args;

use self::initramfs::Initramfs;
use self::kernel::Image;
pub(crate) use self::kernel::{ALL, Kernel};
pub(crate) use self::qemu::Errand;
use self::qemu::Qemu;
use crate::build::Build;
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};
use crate::report::{Report, Tally};
use crate::tools::Tools;
use crate::workspace;

/// Boot Debian kernels in QEMU and run the kernel programs' tests in them.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask vm --kernel 5.10\n  cargo xtask vm --kernel 6.1,newest --verbose\n  cargo xtask vm --kernel newest --denying\n  cargo xtask vm --all"
)]
pub(crate) struct Vm {
    /// Which kernels: 5.10, 6.1, 6.12, newest.
    #[arg(long, value_delimiter = ',', required_unless_present = "all")]
    kernel: Vec<Kernel>,
    /// Every kernel.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Show the whole console, not only the results.
    #[arg(long, short)]
    verbose: bool,
    /// Only the checks of what policies deny.
    #[arg(long)]
    denying: bool,
    /// Another first process than the test program; it ends with the line `vm: done`.
    #[arg(long, value_name = "PROGRAM")]
    init: Option<PathBuf>,
}

impl Vm {
    /// Whether everything passed.
    pub(crate) fn run(&self, cache: &Cache) -> Result<bool> {
        if self.init.is_none() {
            build(cache)?;
        }
        let init = self.init.clone().unwrap_or_else(default_init);
        let errand = if self.denying { Errand::Denying } else { Errand::Checks };
        let mut report = Report::default();
        for kernel in if self.all { ALL.to_vec() } else { self.kernel.clone() } {
            report.step(&format!("kernel {kernel}"), || test_on(cache, kernel, &init, errand, self.verbose));
        }
        println!("\n{report}");
        Ok(report.total().failed == 0)
    }
}

/// Fetches QEMU and these kernels.
pub(crate) fn set_up(cache: &Cache, kernels: &[Kernel]) -> Result<()> {
    Qemu::set_up(cache)?;
    Tools::set_up(cache)?;
    kernels.iter().try_for_each(|kernel| kernel.image(cache).map(drop))
}

/// Builds the kernel programs and the first process of the guests.
pub(crate) fn build(cache: &Cache) -> Result<()> {
    Build { bpf_only: true, ..Build::default() }.run(cache)?;
    let build = [
        "build",
        "--package",
        "plumbline-tests",
        "--bin",
        "vm-init",
        "--bin",
        "nccl-caller",
        "--package",
        "fake-nccl",
        "--lib",
    ];
    cmd::run(Command::new("cargo").current_dir(workspace::root()).args(build))
}

pub(crate) fn default_init() -> PathBuf {
    workspace::target().join("debug/vm-init")
}

/// Boots one kernel and counts what the guest reports.
pub(crate) fn test_on(cache: &Cache, kernel: Kernel, init: &Path, errand: Errand, verbose: bool) -> Result<Tally> {
    let start = Instant::now();
    let mut tally = Tally::default();
    boot(cache, kernel, init, errand, &mut |line| {
        let result = Tally::of_console_line(line);
        tally += result.unwrap_or_default();
        if verbose || result.is_some() {
            println!("{line}");
        }
    })?;
    println!("{tally} in {:.1} s", start.elapsed().as_secs_f64());
    if tally == Tally::default() {
        return Err(Error::said("the guest ran to its end without reporting a single test"));
    }
    Ok(tally)
}

/// Boots one kernel and hands on each line of its console.
pub(crate) fn boot(
    cache: &Cache,
    kernel: Kernel,
    init: &Path,
    errand: Errand,
    on_line: &mut dyn FnMut(&str),
) -> Result<()> {
    let qemu = Qemu::set_up(cache)?;
    let image = kernel.image(cache)?;
    let work = workspace::target().join("vm");
    fs::create_dir_all(&work).map_err(Error::file("create", &work))?;
    let initramfs = work.join(format!("{kernel}.cpio"));
    fs::write(&initramfs, pack(init, &image, &Tools::set_up(cache)?, &work)?)
        .map_err(Error::file("write", &initramfs))?;
    let version = fs::read_to_string(image.vmlinuz.with_file_name("version")).unwrap_or_default();
    println!("booting {}", version.trim());
    qemu.boot(&image.vmlinuz, &initramfs, errand, &work.join(format!("{kernel}.log")), on_line)
}

fn pack(init: &Path, kernel: &Image, tools: &Tools, scratch: &Path) -> Result<Vec<u8>> {
    let mut image = Initramfs::default();
    image.console();
    for mount_point in ["proc", "sys", "tmp", "run"] {
        image.directory(mount_point);
    }
    image.program("init", init, scratch)?;
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        image.file(&format!("modules/{name}"), module)?;
    }
    for (name, path) in tools.programs() {
        image.tool(name, &path, tools)?;
    }
    // What its checks of calls of libraries call, and what is called.
    for name in ["nccl-caller", "libfake_nccl.so"] {
        let built = init.with_file_name(name);
        if built.exists() {
            image.program(name, &built, scratch)?;
        }
    }
    let object = workspace::bpf_object();
    if object.exists() {
        image.file("plumbline.bpf.o", &object)?;
    }
    Ok(image.finish())
}
