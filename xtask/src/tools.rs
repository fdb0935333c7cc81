//! Programs that checks and benchmarks run, out of Debian's packages as far as the machine lacks them: makers of file systems, a file
//! system in user space, a container runtime.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::cache::{self, Cache};
use crate::cmd;
use crate::error::{Error, Result};

/// Programs and their packages.
const PROGRAMS: [(&str, &str); 6] = [
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("bindfs", "bindfs"),
    ("crun", "crun"),
    // The packaged daemon is not started; `cargo xtask bench` sets a rule.
    ("auditctl", "auditd"),
];

/// What virtual machines get of every machine's own.
const OWN: [&str; 2] = ["mount", "umount"];

/// Where programs lie, below a root.
const BIN: [&str; 4] = ["sbin", "usr/sbin", "bin", "usr/bin"];

/// Where libraries lie, below a root.
const LIB: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// The programs: for checks on this machine one directory of those that it lacks, for virtual machines all of them.
#[derive(Debug)]
pub(crate) struct Tools {
    directory: PathBuf,
}

impl Tools {
    pub(crate) fn set_up(cache: &Cache) -> Result<Self> {
        let directory = cache.item(&format!("tools-{}", cache::mark_of(&PROGRAMS)), |scratch| {
            let apt = Apt::of_machine(cache)?;
            for (program, package) in PROGRAMS.iter().filter(|(program, _)| !cmd::exists(program)) {
                apt.unpack(&apt.closure(package)?, &scratch.join("root"))?;
                starter(scratch, program)?;
            }
            Ok(())
        })?;
        Ok(Self { directory })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Each program, by name, with the file that it is.
    pub(crate) fn programs(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let names = PROGRAMS.iter().map(|(program, _)| *program).chain(OWN);
        let roots = [self.root(), PathBuf::from("/")];
        names.filter_map(move |name| {
            let places = roots.iter().flat_map(|root| BIN.map(|bin| root.join(bin).join(name)));
            Some((name, { places }.find(|path| path.exists())?))
        })
    }

    /// The libraries that a program needs: where they belong, and where they are.
    pub(crate) fn libraries(&self, program: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
        let root = self.root();
        let path = LIB.map(|lib| root.join(lib).display().to_string()).join(":");
        let said = cmd::output(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", path))?;
        let here = libraries(&said).map(PathBuf::from);
        Ok(here.map(|here| (here.strip_prefix(&root).map_or_else(|_| here.clone(), Path::to_path_buf), here)).collect())
    }

    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }
}

/// Starts a program from below `root` with the libraries there: checks run it as root by `sudo`, which keeps no library path.
fn starter(directory: &Path, program: &str) -> Result<()> {
    let path = directory.join(program);
    let libraries = LIB.map(|lib| format!("$root/{lib}")).join(":");
    let script = format!(
        "#!/bin/sh\nroot=$(dirname \"$0\")/root\nexport LD_LIBRARY_PATH=\"{libraries}\"\n\
         for bin in {}; do\n  [ -x \"$root/$bin/{program}\" ] && exec \"$root/$bin/{program}\" \"$@\"\ndone\n\
         echo \"$root has no {program}\" >&2\nexit 1\n",
        BIN.join(" ")
    );
    fs::write(&path, script).map_err(Error::file("write", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::file("make executable", &path))
}

/// The paths in `ldd`'s answer; the kernel's own `linux-vdso` has none.
pub(crate) fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_the_paths_that_ldd_names() {
        let ldd = "\tlinux-vdso.so.1 (0x7ffe)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let found: Vec<&str> = libraries(ldd).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries("\tstatically linked\n").count(), 0);
    }
}
