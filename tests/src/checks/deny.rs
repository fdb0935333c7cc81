//! What policies deny fails with EPERM, and nothing else does: real opens and connections of processes in a cgroup of their own.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use plumbline::{
    event::{ConnectHow, What},
    probes::{
        gate::{Decide, Gate, Tell},
        hooks::{HOOKS, Hook, Rung},
        kernel::cgroup2_root,
    },
};
use rustix::net::{AddressFamily, SocketType, sendto};

use super::{Ended, same};
use crate::{
    bench::{Bench, Outcome},
    bypass,
};

/// Exit codes of an attempt.
const WENT: u8 = 0;
const DENIED: u8 = 1;
const OTHERWISE: u8 = 2;

/// A child that moves into a cgroup, if one is named, and tries something: `vm-init attempt CGROUP KIND TARGET`.
pub fn attempt(arguments: &[String]) -> ExitCode {
    let [cgroup, kind, target] = arguments else { return ExitCode::from(OTHERWISE) };
    let went = || {
        if cgroup != "-" {
            fs::write(Path::new(cgroup).join("cgroup.procs"), "0")?;
        }
        try_it(kind, target)
    };
    match went() {
        Ok(()) => ExitCode::from(WENT),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => ExitCode::from(DENIED),
        Err(error) => {
            eprintln!("{kind} {target}: {error}");
            ExitCode::from(OTHERWISE)
        }
    }
}

fn try_it(kind: &str, target: &str) -> io::Result<()> {
    let address = || target.parse::<SocketAddr>().map_err(io::Error::other);
    let any = |to: &SocketAddr| -> SocketAddr {
        match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    };
    match kind {
        "open" => File::open(target).map(drop),
        "create" => File::create(target).map(drop),
        "link" => {
            let linked = format!("{target}.linked-elsewhere");
            let elsewhere = Path::new(&linked).file_name().map(|name| std::env::temp_dir().join(name));
            let elsewhere = elsewhere.ok_or_else(|| io::Error::other("no name"))?;
            let _ = fs::remove_file(&elsewhere);
            fs::hard_link(target, &elsewhere)?;
            let opened = File::open(&elsewhere).map(drop);
            fs::remove_file(&elsewhere)?;
            opened
        }
        // In a mount namespace of its own: the file itself, or the directory that it lies in, mounted elsewhere.
        "mounted" | "below what is mounted" => {
            let (target, at) =
                (Path::new(target), std::env::temp_dir().join(format!("mounted-{}", std::process::id())));
            bypass::private_mounts()?;
            let opened = if kind == "mounted" {
                File::create(&at)?;
                rustix::mount::mount_bind(target, &at)?;
                at.clone()
            } else {
                fs::create_dir(&at)?;
                rustix::mount::mount_bind(target.parent().unwrap_or(target), &at)?;
                at.join(target.file_name().unwrap_or_default())
            };
            let went = File::open(opened).map(drop);
            rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH)?;
            fs::remove_file(&at).or_else(|_| fs::remove_dir(&at))?;
            went
        }
        "tcp" => TcpStream::connect(address()?).map(drop),
        "udp" => address().and_then(|to| UdpSocket::bind(any(&to))?.connect(to)),
        "datagram" => address().and_then(|to| UdpSocket::bind(any(&to))?.send_to(b"x", to).map(drop)),
        "datagram without a family" => address().and_then(bypass::datagram_without_family),
        // Connects and sends in one call (tcp(7), `MSG_FASTOPEN`).
        "fast open" => {
            let to = address()?;
            let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
            let flags = rustix::net::SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
            Ok(sendto(&socket, b"x", flags, &to).map(drop)?)
        }
        "udp again and again" => again_and_again(address()?),
        _ => Err(io::Error::other("no such attempt")),
    }
}

/// Connects sockets until the input ends; a `1` for each that went, a `0` for each that was denied.
fn again_and_again(to: SocketAddr) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(1);
    let is_over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let mut said = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        said.push(match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.connect(to) {
            Ok(()) => b'1',
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => b'0',
            Err(error) => return Err(error),
        });
        std::thread::sleep(PAUSE);
    }
    io::stdout().write_all(&said)
}

/// A cgroup of its own.
pub struct Cell(pub PathBuf);

impl Cell {
    pub fn make(name: &str) -> Result<Self, String> {
        let root = cgroup2_root().map_err(|error| error.to_string())?;
        let cell = root.join(format!("plumbline-deny-{}-{name}", std::process::id()));
        fs::create_dir_all(&cell).map_err(|error| error.to_string())?;
        Ok(Self(cell))
    }

    pub fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Whether an attempt of this program, which is `vm-init`, went, or was denied.
pub fn tries(exe: &Path, cell: Option<&Path>, kind: &str, target: &str) -> Result<bool, String> {
    let cell = cell.map_or_else(|| "-".to_owned(), |cell| cell.display().to_string());
    let output =
        Command::new(exe).args(["attempt", &cell, kind, target]).output().map_err(|error| error.to_string())?;
    match output.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(WENT) => Ok(true),
        Some(DENIED) => Ok(false),
        _ => Err(format!("neither went nor denied: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Every rung that can deny, each alone.
pub(super) fn run(scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    let denying = |hook: &str| Hook::find(hook).map_or(&[][..], |hook| hook.rungs);
    for rung in denying("file_open").iter().filter(|rung| rung.name == "lsm") {
        let mut tell = |name: &str, outcome: Result<(), Ended>| {
            told(&format!("{name} ({})", rung.name), outcome.err().unwrap_or(Ended::Ok));
        };
        tell("opening what is denied fails with eperm, and nothing else does", opens(rung, &scratch.join("opens")));
    }
    let at_the_gate = |takes, deny, expect| gate(&scratch.join("gate"), takes, deny, expect);
    let answered =
        at_the_gate(Duration::ZERO, true, (false, 0)).and_then(|()| at_the_gate(Duration::ZERO, false, (true, 0)));
    told("what a question about an open is answered with is what becomes of it (fanotify)", answered.into());
    let late = at_the_gate(Duration::from_millis(300), true, (true, 3));
    told("an open does not wait for an answer that takes too long, and that is counted (fanotify)", late.into());
    for rung in denying("udp_connect").iter().filter(|rung| rung.name != "fentry") {
        let mut tell = |name: &str, outcome: Result<(), Ended>| {
            told(&format!("{name} ({})", rung.name), outcome.err().unwrap_or(Ended::Ok));
        };
        tell("connecting to what is denied fails with eperm, and nothing else does", connections(rung));
    }
}

/// Opens that wait for this process to answer, by fanotify: one that takes this long and says this. Whether an open then goes,
/// and how many were allowed because nobody had answered in time.
fn gate(scratch: &Path, takes: Duration, deny: bool, expect: (bool, u64)) -> Outcome {
    let text = |error: io::Error| error.to_string();
    let (inner, outside) = (scratch.join("inner"), scratch.join("outside"));
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(&inner).map_err(text)?;
    fs::write(inner.join("a"), "a").and_then(|()| fs::write(&outside, "b")).map_err(text)?;
    let (told, denied) = std::sync::mpsc::channel();
    let decide: Decide<(PathBuf, Vec<PathBuf>)> = Box::new(move |opening| {
        std::thread::sleep(takes);
        deny.then(|| (opening.path.clone(), opening.watched.clone()))
    });
    let tell: Tell<(PathBuf, Vec<PathBuf>)> = Box::new(move |opening| drop(told.send(opening)));
    let gate = Gate::start(decide, tell)?;
    same("marks that failed", &gate.guard(std::slice::from_ref(&inner)).len(), &0)?;
    let exe = std::env::current_exe().map_err(text)?;
    let opens = |path: &Path| tries(&exe, None, "open", &path.display().to_string());
    same("an open outside", &opens(&outside)?, &true)?;
    // A new file, and an old one by another name.
    fs::write(inner.join("b"), "b")
        .and_then(|()| fs::hard_link(inner.join("a"), scratch.join("linked")))
        .map_err(text)?;
    for path in [inner.join("a"), inner.join("b"), scratch.join("linked")] {
        same(&format!("an open of {}", path.display()), &opens(&path)?, &expect.0)?;
        if !expect.0 {
            same("told", &denied.recv().map_err(|error| error.to_string())?, &(path, vec![inner.clone()]))?;
        }
    }
    same("failed open", &gate.failed_open(), &expect.1)?;
    // Beside another that is guarded: a file is as the directory that it lies in, wherever it is mounted.
    let other = scratch.join("other");
    fs::create_dir_all(&other).map_err(text)?;
    same("marks that failed", &gate.guard(&[inner.clone(), other.clone()]).len(), &0)?;
    // Two directories, and two files in the first.
    same("marks", &marks().map_err(text)?, &4)?;
    fs::write(inner.join("c"), "c").and_then(|()| fs::write(other.join("d"), "d")).map_err(text)?;
    for (kind, expect_below) in
        [("below what is mounted", vec![inner.clone()]), ("mounted", vec![inner.clone(), other])]
    {
        let new = inner.join("c").display().to_string();
        same(&format!("an open of {new}, {kind}"), &tries(&exe, None, kind, &new)?, &expect.0)?;
        if !expect.0 {
            let (_, mut below) = denied.recv().map_err(|error| error.to_string())?;
            below.sort();
            same(&format!("told of what is {kind}"), &below, &expect_below)?;
        }
    }
    // What is guarded no more is asked about no more.
    same("marks that failed", &gate.guard(&[]).len(), &0)?;
    same("an open of what is guarded no more", &opens(&inner.join("a"))?, &true)?;
    same("marks that are left", &marks().map_err(text)?, &0)?;
    // This process itself is never kept waiting.
    fs::read(inner.join("a")).map(drop).map_err(text)
}

/// Marks that this process has on files and directories (proc(5), `/proc/PID/fdinfo`).
fn marks() -> io::Result<usize> {
    let mut marks = 0;
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // The directory's own descriptor is closed by then.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        marks += info.lines().filter(|line| line.starts_with("fanotify ino:")).count();
    }
    Ok(marks)
}

/// These hooks on this rung, and the ones that tell of the others.
fn bench(hooks: &[&str], rung: &Rung) -> Result<Bench, Ended> {
    let wanted = |name: &str| if hooks.contains(&name) { rung.name } else { "off" };
    let rest =
        HOOKS.iter().filter(|hook| !["exec", "fork", "file_open"].contains(&hook.name) || hooks.contains(&hook.name));
    let rungs: Vec<(&str, &str)> = rest.map(|hook| (hook.name, wanted(hook.name))).collect();
    let bench = Bench::start(&rungs, super::RING_BYTES, None).map_err(Ended::NotOk)?;
    for verdict in bench.verdicts().iter().filter(|verdict| hooks.contains(&verdict.hook.name)) {
        if verdict.attached().is_none() {
            let refusal = verdict.refused.iter().find(|refusal| refusal.rung == rung.name);
            return Err(Ended::Skipped(refusal.map_or_else(|| "unknown".to_owned(), |refusal| refusal.reason.clone())));
        }
    }
    Ok(bench)
}

fn policy(mode: &str, subject: &str, rule: &str) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  mode: {mode}\n  {subject}\n  rules:\n    - {{name: r, severity: \
         high, effect: deny, message: m, {rule}}}\n"
    )
}

fn opens(rung: &Rung, scratch: &Path) -> Result<(), Ended> {
    let mut bench = bench(&["file_open"], rung)?;
    opens_on(&mut bench, scratch).map_err(Ended::NotOk)
}

fn opens_on(bench: &mut Bench, scratch: &Path) -> Outcome {
    let text = |error: io::Error| error.to_string();
    let (models, secret, beside) = (scratch.join("models"), scratch.join("models/secret"), scratch.join("beside"));
    for directory in [&models, &secret, &beside] {
        fs::create_dir_all(directory).map_err(text)?;
    }
    let (weights, inner, other) = (models.join("w.gguf"), secret.join("w.gguf"), beside.join("w.gguf"));
    for file in [&weights, &inner, &other] {
        fs::write(file, b"weights").map_err(text)?;
    }
    let cell = Cell::make("opens")?;
    let subject = format!("subject: {{cgroup: /**/{}}}", cell.name());
    let watch = format!("match: {{file: {{watch: [{}]}}}}", models.display());
    let path = |path: &Path| path.display().to_string();
    let exe = std::env::current_exe().map_err(text)?;
    let expect = |what: &str, cell: Option<&Path>, kind: &str, file: &Path, went: bool| {
        same(&format!("{what}: {kind} {}", file.display()), &tries(&exe, cell, kind, &path(file))?, &went)
    };
    let inside = Some(cell.0.as_path());

    bench.enforce(&policy("monitor", &subject, &watch))?;
    expect("monitored", inside, "open", &weights, true)?;

    bench.enforce(&policy("enforce", &subject, &watch))?;
    expect("enforced", inside, "open", &weights, false)?;
    let (task, open) = bench.expect("the denied open", |event| match &event.what {
        What::FileOpen(open) if open.denied_by.is_some() => Some((event.task.clone()?, open.clone())),
        _ => None,
    })?;
    same("told path", &open.path, &path(&weights).into_bytes())?;
    same("told rule", &open.denied_by, &bench.denied_by(0))?;
    same("told cgroup", &task.cgroup_id, &std::os::unix::fs::MetadataExt::ino(&fs::metadata(&cell.0).map_err(text)?))?;
    expect("below", inside, "open", &inner, false)?;
    expect("a hard link elsewhere", inside, "link", &weights, false)?;
    expect("a new file", inside, "create", &models.join("new.gguf"), false)?;
    let child = cell.0.join("child");
    fs::create_dir_all(&child).map_err(text)?;
    expect("a cgroup made within, which nobody was told of", Some(&child), "open", &weights, false)?;
    expect("beside", inside, "open", &other, true)?;
    expect("a neighbour", None, "open", &weights, true)?;

    // An exception excuses, and only whom it names.
    let except = |exe: &str| format!("{watch}, except: [{{exe: {exe}}}]");
    bench.enforce(&policy("enforce", &subject, &except(&path(&exe))))?;
    expect("an excepted program", inside, "open", &weights, true)?;
    bench.enforce(&policy("enforce", &subject, &except("/usr/bin/another")))?;
    expect("another program", inside, "open", &weights, false)?;

    // The daemon itself is never denied anything; a rule of everybody is one of all others.
    bench.enforce(&policy("enforce", "", &format!("match: {{file: {{watch: [{}]}}}}", secret.display())))?;
    expect("everybody", None, "open", &inner, false)?;
    expect("above", None, "open", &weights, true)?;
    File::open(&inner).map(drop).map_err(|error| format!("the daemon's own open: {error}"))?;

    bench.enforce(&policy("monitor", &subject, &watch))?;
    expect("monitored again", inside, "open", &weights, true)?;
    let _ = fs::remove_dir(child);
    Ok(())
}

fn connections(rung: &Rung) -> Result<(), Ended> {
    let mut bench = bench(&["udp_connect", "udp_send"], rung)?;
    connections_on(&mut bench).map_err(Ended::NotOk)
}

fn connections_on(bench: &mut Bench) -> Outcome {
    let text = |error: io::Error| error.to_string();
    bypass::loopback_up().map_err(text)?;
    let cell = Cell::make("connections")?;
    let inside = Some(cell.0.as_path());
    // What listens on every address hears of each.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).map_err(text)?;
    let free = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).map_err(text)?;
    let (port, free) =
        (listener.local_addr().map_err(text)?.port(), free.local_addr().map(|at| (at.port(), free)).map_err(text)?);
    let _datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).map_err(text)?;
    let to = |ip: IpAddr, port: u16| SocketAddr::new(ip, port).to_string();
    let v4: IpAddr = Ipv4Addr::LOCALHOST.into();
    let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    let (v6, none4, none6): (IpAddr, IpAddr, IpAddr) =
        (Ipv6Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    let subject = format!("subject: {{cgroup: /**/{}}}", cell.name());
    let rule = format!("match: {{connect: {{to: [127.0.0.0/8, '::1'], port: {port}}}}}");
    let exe = std::env::current_exe().map_err(text)?;
    let expect = |what: &str, cell: Option<&Path>, kind: &str, target: &str, went: bool| {
        same(&format!("{what}: {kind} {target}"), &tries(&exe, cell, kind, target)?, &went)
    };
    let all: Vec<(&str, String)> = ["tcp", "udp", "datagram", "fast open"]
        .into_iter()
        .flat_map(|kind| [v4, v6, mapped, none4, none6].map(|ip| (kind, to(ip, port))))
        .chain([v4, none4].map(|ip| ("datagram without a family", to(ip, port))))
        .collect();

    bench.enforce(&policy("monitor", &subject, &rule))?;
    for (kind, target) in &all {
        expect("monitored", inside, kind, target, true)?;
    }

    bench.enforce(&policy("enforce", &subject, &rule))?;
    bench.drain();
    for (kind, target) in &all {
        expect("enforced", inside, kind, target, false)?;
        let rule = bench.denied_by(0);
        let told = bench.expect("the denied connection", |event| match &event.what {
            What::Connect(connect) if connect.denied_by == rule => Some(*connect),
            _ => None,
        })?;
        same("told port", &told.port, &port)?;
        let how = if kind.starts_with("datagram") { ConnectHow::Datagram } else { ConnectHow::Begin };
        same("told how", &told.how, &how)?;
        expect("a neighbour", None, kind, target, true)?;
    }
    for kind in ["tcp", "udp", "datagram"] {
        expect("another port", inside, kind, &to(v4, free.0), true)?;
    }

    // By protocol, by network, and with a network that is excused.
    bench.enforce(&policy("enforce", &subject, "match: {connect: {to: [127.0.0.0/8], protocol: udp}}"))?;
    expect("another protocol", inside, "tcp", &to(v4, port), true)?;
    expect("the protocol", inside, "udp", &to(v4, port), false)?;
    expect("another network", inside, "udp", &to(v6, port), true)?;
    bench.enforce(&policy(
        "enforce",
        &subject,
        "match: {connect: {notTo: ['127.0.0.1']}}, except: [{to: ['127.0.0.2'], port: 1-65535}]",
    ))?;
    expect("allowed", inside, "tcp", &to(v4, port), true)?;
    expect("excused", inside, "tcp", &to(Ipv4Addr::new(127, 0, 0, 2).into(), port), true)?;
    expect("neither", inside, "tcp", &to(Ipv4Addr::new(127, 0, 0, 3).into(), port), false)?;
    expect("nor that", inside, "tcp", &to(v6, port), false)?;

    bench.enforce(&policy("monitor", &subject, &rule))?;
    expect("monitored again", inside, "tcp", &to(v4, port), true)
}
