//! What building the kernel programs needs beside the machine's stable Rust: bpf-linker, and `core` for the BPF target.
//!
//! - **bpf-linker** 0.10.4 is the last version that by default uses rustc's own LLVM (22); it is built once from source.
//! - **core** is compiled from `rust-src` of the very version of rustc (`-Z build-std`). Where the toolchain does not
//!   have that component, Debian's package of the same version is unpacked and shown to rustc through a shadow sysroot: a
//!   directory of links to the real one plus the sources. The toolchain itself is not touched.
//! - If Debian has no `rust-src` of that version, its `rustc-web` with the prebuilt `libstd-rust-web-dev-bpf` serves.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{Apt, Installed};
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};

const BPF_LINKER: &str = "0.10.4";

/// A compiler and linker that can build for `bpfel-unknown-none`.
#[derive(Debug)]
pub(crate) struct BpfToolchain {
    pub(crate) rustc: PathBuf,
    /// False where the compiler brings a prebuilt `core`.
    pub(crate) build_std: bool,
    /// Directory of bpf-linker, for `PATH`.
    linker_dir: PathBuf,
    /// Directories with libLLVM and rustc's libraries, for `LD_LIBRARY_PATH`.
    libraries: Vec<PathBuf>,
}

impl BpfToolchain {
    pub(crate) fn set_up(cache: &Cache) -> Result<Self> {
        let linker_dir = bpf_linker(cache)?;
        let host = HostRust::ask()?;
        if host.sysroot.join(RUST_SRC).exists() {
            let rustc = host.sysroot.join("bin/rustc");
            return Ok(Self { rustc, build_std: true, linker_dir, libraries: vec![host.sysroot.join("lib")] });
        }
        match rust_src(cache, &host.release) {
            Ok(sources) => {
                let rustc = shadow_sysroot(cache, &host, &sources)?.join("rustc");
                Ok(Self { rustc, build_std: true, linker_dir, libraries: vec![host.sysroot.join("lib")] })
            }
            Err(why) => {
                println!("setup: no rust-src for rustc {} ({}); using Debian's rustc-web", host.release, why.chain());
                let root = rustc_web(cache)?;
                let libraries = vec![root.join("usr/lib/x86_64-linux-gnu"), root.join("usr/lib")];
                Ok(Self { rustc: root.join("usr/bin/rustc"), build_std: false, linker_dir, libraries })
            }
        }
    }

    /// Makes `command` (a cargo) use this compiler and linker.
    pub(crate) fn apply(&self, command: &mut Command) -> Result<()> {
        self.apply_with(command, "-Zbuild-std=core")
    }

    /// The same, for another part of the standard library.
    pub(crate) fn apply_with(&self, command: &mut Command, build_std: &str) -> Result<()> {
        command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
        command.env("PATH", joined([self.linker_dir.clone()], "PATH")?);
        // bpf-linker opens rustc's own libLLVM and looks for it here first.
        command.env("LD_LIBRARY_PATH", joined(self.libraries.clone(), "LD_LIBRARY_PATH")?);
        if self.build_std {
            command.arg(build_std);
        }
        Ok(())
    }
}

/// Where cargo looks for the standard library's sources, relative to the sysroot.
const RUST_SRC: &str = "lib/rustlib/src/rust/library";

struct HostRust {
    release: String,
    sysroot: PathBuf,
}

impl HostRust {
    fn ask() -> Result<Self> {
        let verbose = cmd::output(Command::new("rustc").arg("-vV"))?;
        let release = release_of(&verbose).ok_or_else(|| Error::said("`rustc -vV` names no release"))?.to_owned();
        let sysroot = PathBuf::from(cmd::output(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
        Ok(Self { release, sysroot })
    }
}

fn release_of(verbose: &str) -> Option<&str> {
    verbose.lines().find_map(|line| line.strip_prefix("release: ")).map(str::trim)
}

/// The directory with bpf-linker's binary.
fn bpf_linker(cache: &Cache) -> Result<PathBuf> {
    let item = cache.item(&format!("bpf-linker-{BPF_LINKER}"), |scratch| {
        println!("setup: building bpf-linker {BPF_LINKER} from source (about 3 minutes, once)");
        let install = ["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--root"];
        cmd::run(Command::new("cargo").args(install).arg(scratch))
    })?;
    Ok(item.join("bin"))
}

/// The sources of the standard library, from Debian's package of exactly this release.
fn rust_src(cache: &Cache, release: &str) -> Result<PathBuf> {
    let item = cache.item(&format!("rust-src-{release}"), |scratch| {
        let apt = Apt::of_suite(cache, "trixie-backports", Installed::Nothing)?;
        let versions = apt.show("rust-src")?;
        let stanza = versions
            .iter()
            .find(|stanza| stanza.upstream_version() == release)
            .ok_or_else(|| Error::said("trixie-backports has other versions only"))?;
        let unpacked = scratch.join("unpacked");
        apt.unpack(&[stanza.package()?], &unpacked)?;
        // The package carries the whole compiler; only the library is needed, a tenth of it.
        let library = unpacked.join(format!("usr/src/rustc-{release}/library"));
        let kept = scratch.join("library");
        fs::rename(&library, &kept).map_err(Error::file("find", &library))?;
        fs::remove_dir_all(&unpacked).map_err(Error::file("remove", &unpacked))
    })?;
    Ok(item)
}

/// A directory that looks like the host's sysroot with `rust-src` installed, and a `rustc` that uses it.
fn shadow_sysroot(cache: &Cache, host: &HostRust, sources: &Path) -> Result<PathBuf> {
    let name = format!("sysroot-{}", host.release);
    // A toolchain that moved leaves links to nowhere.
    if fs::read_link(cache.path(&name).join("bin")).is_ok_and(|link| link != host.sysroot.join("bin")) {
        cache.forget(&name)?;
    }
    cache.item(&name, |scratch| {
        let rustlib = scratch.join("lib/rustlib");
        let src = rustlib.join("src");
        fs::create_dir_all(&src).map_err(Error::file("create", &src))?;
        link_all(&host.sysroot, scratch, "lib")?;
        link_all(&host.sysroot.join("lib"), &scratch.join("lib"), "rustlib")?;
        link_all(&host.sysroot.join("lib/rustlib"), &rustlib, "src")?;
        link(sources, &src.join("rust"))?;

        let wrapper = scratch.join("rustc");
        let real = host.sysroot.join("bin/rustc");
        let script =
            format!("#!/bin/sh\nexec '{}' --sysroot '{}' \"$@\"\n", real.display(), cache.path(&name).display());
        fs::write(&wrapper, script).map_err(Error::file("write", &wrapper))?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).map_err(Error::file("mark", &wrapper))
    })
}

/// Links every entry of `from` into `to`, all but one.
fn link_all(from: &Path, to: &Path, except: &str) -> Result<()> {
    for entry in fs::read_dir(from).map_err(Error::file("list", from))? {
        let entry = entry.map_err(Error::file("list", from))?;
        if entry.file_name() != except {
            link(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn link(target: &Path, at: &Path) -> Result<()> {
    symlink(target, at).map_err(Error::file("link", at))
}

/// The fallback: Debian's own newer compiler with a prebuilt `core` for BPF.
fn rustc_web(cache: &Cache) -> Result<PathBuf> {
    cache.item("rustc-web", |scratch| {
        let apt = Apt::of_suite(cache, "bookworm-security", Installed::Nothing)?;
        let mut packages = Vec::new();
        let mut wanted = vec!["rustc-web".to_owned(), "libstd-rust-web-dev-bpf".to_owned()];
        while let Some(name) = wanted.pop() {
            // What the security suite does not carry is part of every Debian.
            let Ok(versions) = apt.show(&name) else { continue };
            let Some(newest) = versions.first() else { continue };
            let package = newest.package()?;
            if !packages.contains(&package) {
                packages.push(package);
                let of_rust = |name: &&str| name.contains("rust-web") || name.starts_with("libllvm");
                wanted.extend(newest.depends().filter(of_rust).map(str::to_owned));
            }
        }
        apt.unpack(&packages, scratch)
    })
}

/// `first` before whatever the variable holds already.
fn joined(first: impl IntoIterator<Item = PathBuf>, variable: &str) -> Result<OsString> {
    let old = std::env::var_os(variable).unwrap_or_default();
    let rest = std::env::split_paths(&old).filter(|path| !path.as_os_str().is_empty());
    std::env::join_paths(first.into_iter().chain(rest)).map_err(|error| Error::said(format!("{variable}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_rustcs_verbose_version() {
        let said = "rustc 1.95.0 (abc 2026-03-01)\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(release_of(said), Some("1.95.0"));
        assert_eq!(release_of("error: no toolchain"), None);
    }
}
