//! What the running kernel is: facts for `doctor` and for the coverage statement, each absent with a reason.

use std::{fs, io, path::Path, path::PathBuf};

/// A fact, or why it could not be had.
pub type Fact = Result<String, String>;

/// What decides which rungs can work here.
#[derive(Debug, Clone)]
pub struct KernelFacts {
    pub release: Fact,
    pub btf: Fact,
    /// `/sys/kernel/security/lsm`: BPF LSM programs run only when `bpf` is in it.
    pub lsm: Fact,
    /// `/sys/kernel/security/lockdown`: `confidentiality` forbids reading kernel memory.
    pub lockdown: Fact,
    pub cgroup2: Fact,
    /// Whether this is a guest whose memory its host cannot read.
    pub confidential: Fact,
    /// Effective capabilities of this process that matter, by name.
    pub capabilities: Fact,
    /// The mount namespace whose paths are names of executables that policies can rest on; absent where pid 1 may not be looked
    /// at, and the daemon's own is taken for it.
    pub mount_namespace: Fact,
}

/// Capabilities that loading and attaching takes (include/uapi/linux/capability.h), and what each is for.
const CAPABILITIES: &[(u32, &str)] = &[
    (39, "CAP_BPF"),
    (38, "CAP_PERFMON"),
    (34, "CAP_SYSLOG"),
    (12, "CAP_NET_ADMIN"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
];

impl KernelFacts {
    pub fn read() -> Self {
        Self {
            release: read_trimmed("/proc/sys/kernel/osrelease"),
            btf: fs::metadata(super::btf::VMLINUX)
                .map(|meta| format!("{} bytes", meta.len()))
                .map_err(|error| format!("{}: {error}", super::btf::VMLINUX)),
            lsm: read_trimmed("/sys/kernel/security/lsm"),
            lockdown: read_trimmed("/sys/kernel/security/lockdown").map(|line| selected(&line)),
            cgroup2: cgroup2_root().map(|path| path.display().to_string()).map_err(|error| error.to_string()),
            confidential: Ok(confidential_guest(Path::new("/dev")).to_owned()),
            capabilities: read_trimmed("/proc/self/status").and_then(|status| effective(&status)),
            mount_namespace: host_mount_namespace(),
        }
    }
}

fn host_mount_namespace() -> Fact {
    let link = fs::read_link("/proc/1/ns/mnt");
    let told = link.map(|link| format!("{} (of pid 1)", link.display()));
    told.map_err(|error| format!("/proc/1/ns/mnt: {error} (CAP_SYS_PTRACE); the daemon's own are taken for the host's"))
}

/// Guest drivers of AMD SEV-SNP and Intel TDX (Documentation/virt/coco of the kernel).
fn confidential_guest(dev: &Path) -> &'static str {
    if dev.join("sev-guest").exists() {
        "SEV-SNP guest"
    } else if dev.join("tdx_guest").exists() {
        "TDX guest"
    } else {
        "no confidential guest"
    }
}

impl KernelFacts {
    /// Every fact under its name, in the order in which people ask.
    pub fn rows(&self) -> [(&'static str, &Fact); 8] {
        [
            ("release", &self.release),
            ("type info (BTF)", &self.btf),
            ("security modules", &self.lsm),
            ("lockdown", &self.lockdown),
            ("cgroup v2", &self.cgroup2),
            ("confidential", &self.confidential),
            ("capabilities", &self.capabilities),
            ("host's mounts", &self.mount_namespace),
        ]
    }
}

/// Since then a fault maps whole folios, as far as they lie within the mapping and the file (Linux commits 19773df031bc and
/// 357b92761d94). Nothing in the kernel's types tells.
pub const MAPS_FOLIOS: (u32, u32) = (6, 18);

/// The running kernel's version; zeros where it does not say.
pub fn version() -> (u32, u32) {
    version_of(rustix::system::uname().release().to_str().unwrap_or_default())
}

fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A fact in words: what is not known is absent, with its reason.
pub fn words(fact: &Fact) -> String {
    match fact {
        Ok(text) => text.clone(),
        Err(reason) => format!("absent: {reason}"),
    }
}

/// The mount point of the cgroup v2 hierarchy, from `/proc/self/mountinfo`.
/// `Err` says why no BPF program is asked by the security hooks.
pub fn bpf_lsm() -> Result<(), String> {
    match read_trimmed("/sys/kernel/security/lsm") {
        Ok(modules) if modules.split(',').any(|module| module == "bpf") => Ok(()),
        Ok(modules) => Err(format!("`bpf` is not among the security modules ({modules}); boot with `lsm=…,bpf`")),
        Err(why) => Err(format!("the security modules are not known ({why})")),
    }
}

pub fn cgroup2_root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    parse_cgroup2_root(&mounts)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup2 file system is mounted"))
}

/// proc_pid_mountinfo(5): `… mount-point options [tags…] - fstype source super-options`.
fn parse_cgroup2_root(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        (back.split(' ').next()? == "cgroup2").then(|| front.split(' ').nth(4))?
    })
}

/// `none [integrity] confidentiality` → `integrity`.
fn selected(line: &str) -> String {
    line.split(['[', ']']).nth(1).unwrap_or(line).to_owned()
}

fn effective(status: &str) -> Fact {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).ok_or("no CapEff in /proc/self/status")?;
    let bits = u64::from_str_radix(line.trim(), 16).map_err(|error| format!("CapEff: {error}"))?;
    let has: Vec<&str> = CAPABILITIES.iter().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| *name).collect();
    if has.is_empty() { Err("none of those that loading programs takes".to_owned()) } else { Ok(has.join(" ")) }
}

fn read_trimmed(path: &str) -> Fact {
    match fs::read_to_string(Path::new(path)) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_two_numbers_of_a_release() {
        assert_eq!(version_of("6.18.5"), (6, 18));
        assert_eq!(version_of("7.3.4+deb13-cloud-amd64"), (7, 3));
        assert_eq!(version_of("6.1.0-50-cloud-amd64"), (6, 1));
        assert_eq!(version_of("unknown"), (0, 0));
    }

    #[test]
    fn the_cgroup2_root_is_found_in_a_hybrid_hierarchy() {
        let mountinfo = "30 23 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n\
                         31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n\
                         32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(parse_cgroup2_root(mountinfo), Some("/sys/fs/cgroup/unified"));
        assert_eq!(parse_cgroup2_root("1 2 0:1 / / rw - ext4 /dev/a rw"), None);
    }

    #[test]
    fn the_selected_lockdown_mode_is_the_one_in_brackets() {
        assert_eq!(selected("none [integrity] confidentiality"), "integrity");
    }

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001c000000000\n"), Ok("CAP_BPF CAP_PERFMON".to_owned()));
        assert!(effective("CapEff:\t0000000000000000\n").is_err());
    }
}
