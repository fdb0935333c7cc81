//! The kernel checks as a program: `/init` of a virtual machine, or an ordinary process run as root.
//!
//! Output, one line each: `ok <name>`, `not ok <name>: <why>`, `skip <name>: <why>`, `# <remark>`; then `vm: done`.
#![expect(unsafe_code, reason = "bringing the loopback interface up takes an ioctl")]

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
            println!("skip {name}: not run, because {}", why.replace('\n', " "))
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
    loopback_up().map_err(|error| format!("loopback: {error}"))
}

/// `SIOCSIFFLAGS` with `IFF_UP` on `lo` (netdevice(7)).
fn loopback_up() -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(1);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the descriptor is open and the request is a valid `ifreq` for the whole call.
    let result = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
