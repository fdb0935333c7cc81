//! Makers of file systems out of Debian's packages, as far as the machine lacks them: the checks make file systems on loop
//! devices.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::apt::Apt;
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};

/// Programs and their packages.
const PROGRAMS: [(&str, &str); 3] =
    [("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs"), ("mkfs.btrfs", "btrfs-progs")];

/// The directory of those that the machine lacks.
pub(crate) fn set_up(cache: &Cache) -> Result<PathBuf> {
    cache.item("mkfs", |scratch| {
        let apt = Apt::of_machine(cache)?;
        for (program, package) in PROGRAMS.iter().filter(|(program, _)| !cmd::exists(program)) {
            apt.unpack(&apt.closure(package)?, &scratch.join("root"))?;
            // They run as root by `sudo`, which keeps no library path.
            let path = scratch.join(program);
            let script = format!(
                "#!/bin/sh\nroot=$(dirname \"$0\")/root\nexport LD_LIBRARY_PATH=\"$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu\"\n\
                 for bin in sbin usr/sbin bin usr/bin; do\n  [ -x \"$root/$bin/{program}\" ] && exec \"$root/$bin/{program}\" \"$@\"\ndone\n\
                 echo \"$root has no {program}\" >&2\nexit 1\n"
            );
            fs::write(&path, script).map_err(Error::file("write", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::file("make executable", &path))?;
        }
        Ok(())
    })
}
