//! The kernel checks as a program: `/init` of a virtual machine, or an ordinary process run as root.
//!
//! Output, one line each: `ok <name>`, `not ok <name>: <why>`, `skip <name>: <why>`, `# <remark>`; then `vm: done`.

use std::{fs, path::Path, process::ExitCode};

use plumbline_tests::{
    bypass,
    checks::{self, Ended},
};
use rustix::mount::{MountFlags, mount};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("exit-with-7") => return ExitCode::from(7),
        Some("act") => return bypass::act(&arguments[1..]),
        _ => {}
    }
    let is_init = std::process::id() == 1;
    if is_init && let Err(why) = prepare_machine() {
        println!("not ok the machine is prepared: {why}");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("# kernel {}", release.trim());
    let scratch = std::env::temp_dir().join(format!("plumbline-checks-{}", std::process::id()));
    let mut failed = 0;
    checks::run(&scratch, &mut |name, ended| match ended {
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
    println!("vm: done");
    if is_init {
        let error = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
        println!("# the machine does not power off: {error:?}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
    bypass::loopback_up().map_err(|error| format!("loopback: {error}"))
}
