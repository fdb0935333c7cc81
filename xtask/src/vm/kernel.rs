//! Debian's kernels by series, unpacked into the cache: a `vmlinuz` each, and the modules that the checks need.
//!
//! The `cloud` flavour is taken: it is the smallest, has the type information and hooks of the full one, and what it
//! lacks is drivers, which a virtual machine with a serial line and an initramfs does not need. Modules are kept as they are
//! packed: kernels whose modules are compressed unpack them themselves.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::apt::{Apt, Installed, Package};
use crate::cache::{self, Cache};
use crate::error::{Error, Result};

/// The kernel series that the tests run on, oldest first.
pub(crate) const ALL: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye-security" },
    Kernel { name: "6.1", suite: "bookworm" },
    Kernel { name: "6.12", suite: "trixie" },
    Kernel { name: "newest", suite: "trixie-backports" },
];

/// Depends on the current kernel of its suite, in every suite.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Modules, each behind those that it needs. What a kernel has built in, or under another name, is not among its files.
const MODULES: [&str; 27] = [
    "overlay",
    "fuse",
    "loop",
    "libcrc32c",
    "xfs",
    "zstd_compress",
    "libblake2b",
    "xor",
    "raid6_pq",
    "btrfs",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "sctp",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vsock_loopback",
    "netfs",
    "fscache",
    "sunrpc",
    "auth_rpcgss",
    "grace",
    "lockd",
    "nfs_acl",
    "nfsd",
    "nfs",
    "dns_resolver",
    "nfsv4",
];

/// What is booted.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) vmlinuz: PathBuf,
    /// In the order in which they can be loaded.
    pub(crate) modules: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    suite: &'static str,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        ALL.into_iter().find(|kernel| kernel.name == name).ok_or_else(|| {
            let known = ALL.map(|kernel| kernel.name).join(", ");
            format!("known kernels: {known}")
        })
    }
}

impl Kernel {
    /// The kernel's image and modules, fetched if they are not in the cache.
    pub(crate) fn image(self, cache: &Cache) -> Result<Image> {
        let item = cache.item(&self.item_name(), |scratch| {
            let apt = Apt::of_suite(cache, self.suite, Installed::Nothing)?;
            let package = image_package(&apt)?;
            let unpacked = scratch.join("unpacked");
            // Newer kernels have packages of their own for modules.
            let modules =
                package.name.strip_prefix("linux-binary-").map(|rest| apt.newest(&format!("linux-modules-{rest}")));
            let packages: Vec<Package> =
                [Some(Ok(package.clone())), modules].into_iter().flatten().collect::<Result<_>>()?;
            apt.unpack(&packages, &unpacked)?;
            // `/boot/vmlinuz-VERSION`; since 6.19 `/usr/lib/modules/VERSION/vmlinuz`.
            let found = find(&unpacked, &|name| name.starts_with("vmlinuz"))?
                .ok_or_else(|| Error::said(format!("no vmlinuz in the package {}", package.name)))?;
            let kept = scratch.join("vmlinuz");
            fs::rename(&found, &kept).map_err(Error::file("move", &found))?;
            let version = scratch.join("version");
            fs::write(&version, format!("{} {}\n", package.name, package.version))
                .map_err(Error::file("write", &version))?;
            keep_modules(&unpacked, &scratch.join("modules"))?;
            fs::remove_dir_all(&unpacked).map_err(Error::file("remove", &unpacked))
        })?;
        let directory = item.join("modules");
        let entries = fs::read_dir(&directory).map_err(Error::file("list", &directory))?;
        let mut modules: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        modules.sort();
        Ok(Image { vmlinuz: item.join("vmlinuz"), modules })
    }

    pub(crate) fn item_name(self) -> String {
        format!("linux-{}-{}", self.name, cache::mark_of(&MODULES))
    }
}

/// Follows the meta package to the one that carries the image.
fn image_package(apt: &Apt) -> Result<Package> {
    let mut name = META_PACKAGE.to_owned();
    loop {
        let versions = apt.show(&name)?;
        let newest = versions.first().ok_or_else(|| Error::said(format!("the package {name} has no version")))?;
        // Newer kernels split the image off into `linux-binary-*`, which `linux-image-*` then depends on.
        let next = newest.depends().find(|next| next.starts_with("linux-binary-") || next.starts_with("linux-image-"));
        match next {
            Some(next) => next.clone_into(&mut name),
            None => return newest.package(),
        }
    }
}

/// Moves the wanted modules into one directory, numbered in the order of loading.
fn keep_modules(unpacked: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).map_err(Error::file("create", into))?;
    for (number, module) in MODULES.iter().enumerate() {
        let file = |name: &str| name.strip_prefix(module).is_some_and(|rest| rest.starts_with(".ko"));
        let Some(found) = find(unpacked, &file)? else { continue };
        let name = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
        fs::rename(&found, into.join(format!("{number:02}-{name}"))).map_err(Error::file("move", &found))?;
    }
    Ok(())
}

/// The first file below `dir` whose name passes.
fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir).map_err(Error::file("list", dir))? {
        let entry = entry.map_err(Error::file("list", dir))?;
        let kind = entry.file_type().map_err(Error::file("inspect", &entry.path()))?;
        if kind.is_dir() {
            if let Some(found) = find(&entry.path(), wanted)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && wanted(&entry.file_name().to_string_lossy()) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_named_by_its_series_and_a_wrong_name_gets_the_list() {
        assert_eq!("6.1".parse::<Kernel>().unwrap().suite, "bookworm");
        assert_eq!("6.2".parse::<Kernel>().unwrap_err(), "known kernels: 5.10, 6.1, 6.12, newest");
    }
}
