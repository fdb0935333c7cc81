//! The ways to watched files once more, on the file systems that nodes keep models on.
//!
//! One pass on the best rungs: what differs between file systems is inode numbers and what they can do, not who tells.

use std::{
    fs,
    path::{Path, PathBuf},
};

use plumbline::probes::ways::{Subject, Way};

use super::{Suite, expect};
use crate::{
    checks::Ended,
    tools::{are_set_up, run_quietly, tool},
};

/// Kinds, and how one comes to be at a path.
const KINDS: [(&str, Make); 5] = [
    ("ext4", |at| on_a_loop_device("ext4", &["-q", "-F"], at)),
    ("xfs", |at| on_a_loop_device("xfs", &["-q"], at)),
    ("btrfs", |at| on_a_loop_device("btrfs", &["-q"], at)),
    ("fuse", in_user_space),
    ("nfs", over_the_network),
];

type Make = fn(&Path) -> Result<Mounted, String>;

/// The least that `mkfs.xfs` makes is 300 MB; the file has holes.
const IMAGE_BYTES: u64 = 400 << 20;

pub fn run(scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    if std::env::var_os("PLUMBLINE_FILESYSTEMS").is_some_and(|which| which == "one") {
        let why = "the newest kernel goes them on other file systems, and `--full` each".to_owned();
        return told("every way to a file is seen or declared (other file systems)", Ended::NotRun(why));
    }
    for (kind, make) in KINDS {
        let at = scratch.join(kind);
        let made = fs::create_dir_all(&at).map_err(|error| error.to_string()).and_then(|()| make(&at));
        match made {
            Err(why) => {
                // Where all is there that it needs, that it cannot be made is a failure.
                let ended = if is_possible(kind) { Ended::NotOk(why) } else { Ended::NotRun(why) };
                told(&format!("every way to a file is seen or declared ({kind})"), ended);
            }
            Ok(mounted) => match Suite::start(&[], &mounted.at) {
                Ok(mut suite) => suite.run(kind, is_gone_to_a_file, told),
                Err(why) => told(&format!("the programs load ({kind})"), Ended::NotOk(why)),
            },
        }
    }
}

/// The kernel knows the kind, there are the devices that it needs, and the tools were fetched.
fn is_possible(kind: &str) -> bool {
    // Virtual machines bring all that it takes.
    if std::process::id() == 1 {
        return true;
    }
    let device = match kind {
        "fuse" => "/dev/fuse",
        "nfs" => return false,
        _ => "/dev/loop-control",
    };
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.split_whitespace().any(|word| word == kind) && Path::new(device).exists() && are_set_up()
}

/// What no test goes is listed once, with the first pass.
fn is_gone_to_a_file(way: &Way) -> bool {
    matches!(way.subject, Subject::Read | Subject::Change) && expect::of(way.name).is_some()
}

/// A file system of its own, gone when dropped.
struct Mounted {
    at: PathBuf,
}

fn on_a_loop_device(kind: &str, options: &[&str], at: &Path) -> Result<Mounted, String> {
    let mounted = Mounted { at: at.to_owned() };
    let image = mounted.image();
    fs::File::create(&image).and_then(|image| image.set_len(IMAGE_BYTES)).map_err(|error| error.to_string())?;
    run_quietly(tool(&format!("mkfs.{kind}")).args(options).arg(&image))?;
    run_quietly(tool("mount").args(["-t", kind, "-o", "loop"]).arg(&image).arg(at))?;
    Ok(mounted)
}

/// A directory seen through a file system in user space.
fn in_user_space(at: &Path) -> Result<Mounted, String> {
    let mounted = Mounted { at: at.to_owned() };
    let below = at.with_extension("below");
    fs::create_dir_all(&below).map_err(|error| error.to_string())?;
    run_quietly(tool("bindfs").arg(&below).arg(at))?;
    Ok(mounted)
}

/// A directory of this machine, exported to itself: NFS 4.2 over loopback. The kernel's server asks nobody, because all
/// that its helpers would answer is told in advance (Linux: `net/sunrpc/cache.c`, `fs/nfsd/export.c`).
fn over_the_network(at: &Path) -> Result<Mounted, String> {
    // The server is the kernel's only one, and may be at work.
    if std::process::id() != 1 {
        return Err("it would change this machine's own server; virtual machines do it".to_owned());
    }
    let text = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let say = |file: &str, line: &str| fs::write(file, line).map_err(|error| text(file, error));
    let mounted = Mounted { at: at.to_owned() };
    let export = at.with_extension("below");
    fs::create_dir_all(&export).map_err(|error| text("the exported directory", error))?;
    const NEVER: &str = "2147483647";
    // NFSEXP_INSECURE_PORT, NFSEXP_NOSUBTREECHECK, NFSEXP_FSID; root stays root.
    const FLAGS: u32 = 0x2 | 0x400 | 0x2000;
    let export = export.display();
    say("/proc/net/rpc/auth.unix.ip/channel", &format!("nfsd 127.0.0.1 {NEVER} here\n"))?;
    say("/proc/net/rpc/nfsd.export/channel", &format!("here {export} {NEVER} {FLAGS} -2 -2 0\n"))?;
    // The file handle of file system number 0.
    say("/proc/net/rpc/nfsd.fh/channel", &format!("here 1 \\x00000000 {NEVER} {export}\n"))?;
    say("/proc/fs/nfsd/nfsv4leasetime", "10\n")?;
    say("/proc/fs/nfsd/nfsv4gracetime", "10\n")?;
    say("/proc/fs/nfsd/versions", "-2 -3 +4 +4.2\n")?;
    say("/proc/fs/nfsd/portlist", "tcp 2049\n")?;
    say("/proc/fs/nfsd/threads", "2\n")?;
    let options = c"vers=4.2,addr=127.0.0.1,clientaddr=127.0.0.1,sec=sys";
    rustix::mount::mount("127.0.0.1:/", at, "nfs4", rustix::mount::MountFlags::empty(), Some(options))
        .map_err(|error| format!("mount: {error}"))?;
    Ok(mounted)
}

impl Mounted {
    fn image(&self) -> PathBuf {
        self.at.with_extension("image")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_file(self.image());
    }
}
