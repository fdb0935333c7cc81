//! Debian packages without installing them: the machine's own `apt`, pointed at state directories inside the cache.
//!
//! `apt` brings what must not be written twice: signature checks of the package lists, hashes of every package,
//! dependency resolution, proxies, mirrors with credentials. It never sees the machine's sources as its own to change:
//! nothing is installed, no source is added, and it runs as the user. Packages are unpacked with `dpkg-deb`.

mod package;
mod sources;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(crate) use self::package::{Package, Stanza};
use self::sources::{Mirrors, Suite};
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};

/// The keys that sign Debian's package lists, installed on every Debian system.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One set-up asks for the same lists several times.
const LISTS_ARE_FRESH: Duration = Duration::from_secs(3600);

/// What `apt` may take as already present when it resolves dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    /// What the machine has: a closure is only what is missing here.
    Machine,
    /// Nothing: names and versions are looked up, dependencies are not followed.
    Nothing,
}

/// A private `apt` that knows one set of suites.
#[derive(Debug)]
pub(crate) struct Apt {
    config: PathBuf,
    suites: String,
    /// The state directories serve one process at a time.
    _lock: File,
}

impl Apt {
    /// The suites that the machine itself follows, for programs that must fit its libraries.
    pub(crate) fn of_machine(cache: &Cache) -> Result<Self> {
        let mirrors = Mirrors::of_machine()?;
        Self::open(cache, "machine", &mirrors.machine_suites(), Installed::Machine)
    }

    /// One suite by name, such as `trixie-backports`, from the mirror that the machine uses.
    pub(crate) fn of_suite(cache: &Cache, name: &str, installed: Installed) -> Result<Self> {
        let mirrors = Mirrors::of_machine()?;
        Self::open(cache, name, &[mirrors.suite(name)], installed)
    }

    fn open(cache: &Cache, name: &str, suites: &[Suite], installed: Installed) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            return Err(Error::said(format!(
                "{KEYRING} is missing, so Debian's package lists cannot be checked; install `debian-archive-keyring`"
            )));
        }
        let lock = cache.lock(&format!("apt-{name}"))?;
        let dir = cache.path("apt").join(name);
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).map_err(Error::file("create", &sub))?;
        }
        write(&dir.join("debian.sources"), &suites.iter().map(|suite| suite.deb822(KEYRING)).collect::<String>())?;
        write(&dir.join("nothing-installed"), "")?;
        let config = dir.join("apt.conf");
        write(&config, &configuration(&dir, installed, &network_settings()?))?;

        let names = suites.iter().map(|suite| suite.name.as_str()).collect::<Vec<_>>().join(", ");
        let apt = Self { config, suites: names, _lock: lock };
        apt.update(&dir.join("updated"))?;
        Ok(apt)
    }

    /// Fetches the package lists, unless that was done a moment ago.
    fn update(&self, stamp: &Path) -> Result<()> {
        let age = fs::metadata(stamp).and_then(|file| file.modified()).map(|time| time.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age < LISTS_ARE_FRESH) {
            return Ok(());
        }
        println!("setup: fetching the package lists of {} from the Debian mirror", self.suites);
        let said = cmd::output(self.command("apt-get").args(["-q", "--error-on=any", "update"]))?;
        if let Some(size) = said.lines().find_map(|line| line.strip_prefix("Fetched ")) {
            println!("setup:   fetched {size}");
        }
        write(stamp, "")
    }

    /// Every version of a package that the suites have, newest first.
    pub(crate) fn show(&self, name: &str) -> Result<Vec<Stanza>> {
        let text = cmd::output(self.command("apt-cache").args(["show", "--", name]))
            .map_err(|_| Error::said(format!("the Debian mirror has no package `{name}` in {}", self.suites)))?;
        Ok(package::stanzas(&text))
    }

    /// The newest version of a package.
    pub(crate) fn newest(&self, name: &str) -> Result<Package> {
        let versions = self.show(name)?;
        versions.first().ok_or_else(|| Error::said(format!("the package {name} has no version")))?.package()
    }

    /// The package and whatever it needs that is not installed, as `apt-get install` would choose.
    pub(crate) fn closure(&self, name: &str) -> Result<Vec<Package>> {
        let install = ["-qq", "--no-install-recommends", "--print-uris", "-y", "install", "--", name];
        package::from_print_uris(&cmd::output(self.command("apt-get").args(install))?)
    }

    /// Fetches packages and unpacks them, all into `root`.
    pub(crate) fn unpack(&self, packages: &[Package], root: &Path) -> Result<()> {
        let debs = root.with_extension("debs");
        fs::create_dir_all(&debs).map_err(Error::file("create", &debs))?;
        fs::create_dir_all(root).map_err(Error::file("create", root))?;
        match packages {
            [one] => println!("setup: fetching {one}"),
            many => {
                let bytes: u64 = many.iter().map(|package| package.size_bytes).sum();
                println!("setup: fetching {} Debian packages ({}):", many.len(), package::megabytes(bytes));
                many.iter().for_each(|package| println!("setup:   {package}"));
            }
        }
        let wanted = packages.iter().map(|package| format!("{}={}", package.name, package.version));
        cmd::output(self.command("apt-get").current_dir(&debs).args(["-qq", "download"]).args(wanted))?;
        for entry in fs::read_dir(&debs).map_err(Error::file("list", &debs))? {
            let deb = entry.map_err(Error::file("list", &debs))?.path();
            cmd::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(root))?;
        }
        fs::remove_dir_all(&debs).map_err(Error::file("remove", &debs))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C.UTF-8");
        command
    }
}

/// The release code name of this machine, such as `bookworm`; clear words where it is not Debian.
pub(crate) fn debian_release() -> Result<String> {
    sources::debian_release(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// The mirror of Debian's main archive that this machine uses.
pub(crate) fn main_mirror() -> Result<String> {
    let release = debian_release()?;
    Ok(Mirrors::of_machine()?.suite(&release).uri)
}

/// How this machine's `apt` reaches the network, as lines of an `apt.conf`.
pub(crate) fn network_settings() -> Result<String> {
    Ok(sources::acquire_settings(&cmd::output(Command::new("apt-config").arg("dump"))?))
}

/// An `apt.conf` in which every directory is our own, and the machine's way to reach the network is kept.
fn configuration(dir: &Path, installed: Installed, acquire: &str) -> String {
    let dir = dir.display();
    let status = match installed {
        Installed::Machine => "/var/lib/dpkg/status".to_owned(),
        Installed::Nothing => format!("{dir}/nothing-installed"),
    };
    format!(
        r#"// Written by `cargo xtask setup`.
Dir::Etc::Parts "/dev/null";
Dir::Etc::Main "/dev/null";
Dir::Etc::SourceList "{dir}/debian.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{dir}/state";
Dir::State::Status "{status}";
Dir::Cache "{dir}/cache";
// Made in memory when asked; on disk it is ten times the lists.
Dir::Cache::PkgCache "";
Dir::Cache::SrcPkgCache "";
// All is read by one user only, who may not be `_apt`.
APT::Sandbox::User "root";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
Acquire::Languages "none";
Acquire::GzipIndexes "true";
// The oldest suite is archived: its signature stays good, its date does not.
Acquire::Check-Valid-Until "false";
{acquire}"#
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::file("write", path))
}
