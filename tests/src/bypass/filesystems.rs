//! The ways to watched files once more, on the file systems that nodes keep models on, each made on a loop device.
//!
//! One pass on the best rungs: what differs between file systems is inode numbers and what they can do, not who tells.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use plumbline::probes::ways::{Subject, Way};

use super::{Suite, expect};
use crate::checks::Ended;

/// Kinds, each with the options that keep `mkfs` quiet.
const KINDS: [(&str, &[&str]); 3] = [("ext4", &["-q", "-F"]), ("xfs", &["-q"]), ("btrfs", &["-q"])];

/// The least that `mkfs.xfs` makes is 300 MB; the file has holes.
const IMAGE_BYTES: u64 = 400 << 20;

/// Where `cargo xtask setup` has put what the machine lacks.
const TOOLS: &str = "PLUMBLINE_MKFS";

pub fn run(scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    for (kind, options) in KINDS {
        match Mounted::new(kind, options, &scratch.join(kind)) {
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

/// The kernel knows the kind, there are loop devices, and the tools were fetched.
fn is_possible(kind: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.split_whitespace().any(|word| word == kind)
        && Path::new("/dev/loop-control").exists()
        && std::env::var_os(TOOLS).is_some()
}

/// What no test goes is listed once, with the first pass.
fn is_gone_to_a_file(way: &Way) -> bool {
    matches!(way.subject, Subject::Read | Subject::Change) && expect::of(way.name).is_some()
}

/// A file system of its own, gone when dropped.
struct Mounted {
    at: PathBuf,
    image: PathBuf,
}

impl Mounted {
    fn new(kind: &str, options: &[&str], at: &Path) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        fs::create_dir_all(at).map_err(text)?;
        let mounted = Self { at: at.to_owned(), image: at.with_extension("image") };
        fs::File::create(&mounted.image).and_then(|image| image.set_len(IMAGE_BYTES)).map_err(text)?;
        let program = format!("mkfs.{kind}");
        let fetched = std::env::var_os(TOOLS).map(|tools| Path::new(&tools).join(&program));
        let program = fetched.filter(|program| program.exists()).unwrap_or_else(|| PathBuf::from(program));
        run_quietly(Command::new(program).args(options).arg(&mounted.image))?;
        run_quietly(Command::new("mount").args(["-t", kind, "-o", "loop"]).arg(&mounted.image).arg(at))?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.image);
    }
}

fn run_quietly(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    output.status.success().then_some(()).ok_or_else(|| format!("{name}: {}: {said}", output.status))
}
