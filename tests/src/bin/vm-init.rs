//! The kernel checks as a program: `/init` of a virtual machine, or an ordinary process run as root.
//!
//! Output, one line each: `ok <name>`, `not ok <name>: <why>`, `skip <name>: <why>`, `# <remark>`; then `vm: done`.

use std::{fs, os::fd::AsFd as _, path::Path, process::ExitCode};

use plumbline_tests::{
    bypass,
    checks::{self, Ended},
    cost,
};
use rustix::mount::{MountFlags, mount};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("exit-with-7") => return ExitCode::from(7),
        // What the canary starts.
        Some("canary") => return ExitCode::SUCCESS,
        Some("attempt") => return checks::deny::attempt(&arguments[1..]),
        Some("reach") => return checks::own::reach(arguments.get(1).map_or("", String::as_str)),
        Some("opens") => return cost::opens(Path::new(arguments.get(1).map_or("", String::as_str))),
        Some("act") => return bypass::act(&arguments[1..]),
        Some("in-a-container") => return checks::container::inside(&arguments[1..]),
        _ => {}
    }
    let is_init = std::process::id() == 1;
    if is_init && let Err(why) = prepare_machine() {
        println!("not ok the machine is prepared: {why}");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("# kernel {}", release.trim());
    let scratch = std::env::temp_dir().join(format!("plumbline-checks-{}", std::process::id()));
    // The kernel hands what it does not know on its command line to its first process.
    if std::env::var_os("PLUMBLINE_COST").is_some() {
        cost::run(&scratch);
        end(is_init);
    }
    let mut failed = 0;
    let part = arguments.into_iter().next().or_else(|| std::env::var("PLUMBLINE_PART").ok());
    let run = if part.as_deref() == Some("denying") { checks::denying } else { checks::run };
    run(&scratch, &mut |name, ended| match ended {
        Ended::Ok => println!("ok {name}"),
        Ended::NotOk(why) => {
            failed += 1;
            println!("not ok {name}: {}", why.replace('\n', " "));
        }
        // Debian's kernels take every rung; one that is refused there is a defect.
        Ended::Skipped(why) if is_init => {
            failed += 1;
            println!("not ok {name}: {}", why.replace('\n', " "));
        }
        Ended::Skipped(why) | Ended::NotRun(why) => {
            println!("skip {name}: not run, because {}", why.replace('\n', " "));
        }
    });
    let _ = fs::remove_dir_all(scratch);
    end(is_init);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The last words; a machine stops.
fn end(is_init: bool) {
    println!("vm: done");
    if is_init {
        let error = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
        println!("# the machine does not power off: {error:?}");
    }
}

/// Loads the modules that `cargo xtask vm` packs, by their numbers.
fn load_modules() {
    // MODULE_INIT_COMPRESSED_FILE (Linux 5.17, include/uapi/linux/module.h).
    const COMPRESSED: i32 = 4;
    let mut modules: Vec<_> =
        fs::read_dir("/modules").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    modules.sort();
    for path in modules {
        let flags = if path.extension().is_some_and(|kind| kind == "ko") { 0 } else { COMPRESSED };
        let loaded = fs::File::open(&path)
            .map_err(|error| error.to_string())
            .and_then(|file| rustix::system::finit_module(file.as_fd(), c"", flags).map_err(|error| error.to_string()));
        if let Err(why) = loaded {
            println!("not ok the module {} loads: {why}", path.display());
        }
    }
}

/// Mounts what the checks read, and brings loopback up.
fn prepare_machine() -> Result<(), String> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("securityfs", "/sys/kernel/security"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("tracefs", "/sys/kernel/tracing"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        let _ = fs::create_dir_all(target);
        if let Err(error) = mount(kind, Path::new(target), kind, MountFlags::empty(), None) {
            println!("# {kind} is not mounted on {target}: {error}");
        }
    }
    // Some mount points only they make.
    load_modules();
    for (kind, target) in [("nfsd", "/proc/fs/nfsd"), ("rpc_pipefs", "/run/rpc_pipefs")] {
        let _ = fs::create_dir_all(target);
        let _ = mount(kind, Path::new(target), kind, MountFlags::empty(), None);
    }
    bypass::loopback_up().map_err(|error| format!("loopback: {error}"))
}
