//! `cargo xtask distro`: proves set-up on a fresh Debian, made by debootstrap, that has git, a C compiler and Rust.
//!
//! The fresh system lives in the cache and is entered by `chroot`, in a mount namespace of its own that takes all mounts
//! with it when it ends. Inside, an ordinary user works on a clone of this repository: neither the machine's packages nor
//! its cache are seen, only the Rust toolchain, read-only.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use clap::{Args, ValueEnum};

use crate::apt::{self, Apt};
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};
use crate::privilege;
use crate::workspace;

/// Beside the smallest system: what the README asks for. A Rust toolchain cannot link without a C compiler.
const INCLUDED: &str = "ca-certificates,gcc,git,libc6-dev";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Release {
    Bookworm,
    Trixie,
}

/// Set up, build and boot a kernel on a fresh Debian, from nothing.
///
/// Needs root, about 10 GB and a quarter of an hour.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask distro bookworm\n  cargo xtask distro trixie")]
pub(crate) struct Distro {
    release: Release,
    /// Leave the system in the cache afterwards, to look at.
    #[arg(long)]
    keep: bool,
}

impl Distro {
    pub(crate) fn run(&self, cache: &Cache) -> Result<()> {
        if !privilege::is_root() {
            return Err(Error::said("debootstrap and chroot need root; run `sudo cargo xtask distro …`"));
        }
        let name = match self.release {
            Release::Bookworm => "bookworm",
            Release::Trixie => "trixie",
        };
        let tool = cache.item("debootstrap", |scratch| {
            let apt = Apt::of_machine(cache)?;
            apt.unpack(&[apt.newest("debootstrap")?], scratch)
        })?;
        let system = format!("distro-{name}");
        cache.forget(&system)?;
        let root = cache.path(&system);
        println!("distro: installing a fresh {name} with {INCLUDED}");
        let mut debootstrap = Command::new(tool.join("usr/sbin/debootstrap"));
        debootstrap.env("DEBOOTSTRAP_DIR", tool.join("usr/share/debootstrap"));
        debootstrap.args(["--variant=minbase", &format!("--include={INCLUDED}"), name]).arg(&root);
        cmd::output(debootstrap.arg(apt::main_mirror()?))?;

        prepare(&root)?;
        inside(&root, "cargo xtask setup")?;
        inside(&root, "time cargo xtask setup")?;
        inside(&root, "cargo xtask build")?;
        inside(&root, "cargo xtask vm --kernel newest")?;
        println!("distro: {name}: set up, built and booted from nothing");
        if self.keep { Ok(()) } else { cache.forget(&system) }
    }
}

/// A user with a clone of what is committed, and the machine's way to the network.
fn prepare(root: &Path) -> Result<()> {
    let clone = ["clone", "--quiet", "--no-hardlinks"];
    let checkout = root.join("home/dev/plumbline");
    cmd::run(Command::new("git").args(clone).arg(workspace::root()).arg(checkout))?;
    let settings = root.join("etc/apt/apt.conf.d/90machine");
    fs::write(&settings, apt::network_settings()?).map_err(Error::file("write", &settings))?;
    let resolver = root.join("etc/resolv.conf");
    fs::copy("/etc/resolv.conf", &resolver).map_err(Error::file("copy", &resolver))?;
    let rust = root.join("opt/rust");
    fs::create_dir_all(&rust).map_err(Error::file("create", &rust))?;
    cmd::run(Command::new("chown").args(["-R", "1000:1000"]).arg(root.join("home/dev")))
}

/// Runs a shell command as the user inside the system.
fn inside(root: &Path, script: &str) -> Result<()> {
    println!("\ndistro: $ {script}");
    let rust = cmd::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    // `$1` is the system, `$2` the toolchain, `$3` the script.
    let enter = r#"
        set -eu
        mount --bind "$2" "$1/opt/rust"
        mount -o remount,bind,ro "$1/opt/rust"
        mount --bind /etc/ssl/certs "$1/etc/ssl/certs"
        mount -t proc proc "$1/proc"
        mount --rbind /dev "$1/dev"
        exec chroot --userspec=1000:1000 "$1" /bin/bash -c "cd /home/dev/plumbline && $3"
    "#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", enter, "enter"]);
    unshare.arg(root).arg(rust.trim()).arg(script);
    unshare.env_clear().envs(kept_environment());
    let run = cmd::run(unshare.env("HOME", "/home/dev").env("PATH", "/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    run.map_err(|_| Error::said(format!("`{script}` failed on the fresh system in {}", root.display())))
}

/// Proxies and certificates: what the network here needs, and nothing else of this machine.
fn kept_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        name.ends_with("_proxy") || name.starts_with("ssl_cert_") || name == "pip_cert"
    })
}
