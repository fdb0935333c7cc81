//! Every way of `plumbline::probes::ways` is gone, on both ends of the ladders: what the table calls seen must be told, and
//! what it calls blind must not be, or the table is wrong.
//!
//! A child process goes the way and ends, so that all it has read is told with its exit; the parent looks at what came.

mod act;
mod expect;
mod filesystems;
mod io_uring;
pub mod names;
mod out;
mod tools;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use plumbline::{
    event::{Event, What},
    probes::{
        HookVerdict,
        hooks::HOOKS,
        ways::{Subject, WAYS, Way},
    },
};

pub use self::{
    act::main as act,
    out::datagram_without_family,
    tools::{loopback_up, own_network, private_mounts, read_memory},
};
use self::{
    expect::{Expected, Outside},
    names::NameServer,
};
use crate::{bench::Bench, checks::Ended};

/// Bytes of each watched file: a slice is one KiB.
pub const FILE_BYTES: usize = 512 * 1024;

const RING_BYTES: u32 = 1 << 20;

/// Where a way begins and ends.
#[derive(Debug, Clone)]
pub struct Site {
    /// A watched file.
    pub file: PathBuf,
    /// A directory that is not watched, on the same file system.
    pub outside: PathBuf,
}

impl Site {
    pub fn watched(&self) -> &Path {
        self.file.parent().unwrap_or(&self.file)
    }
}

/// The rungs of the ladders, by their ends and the middle. The file hooks are forced together: they share the program at the return of calls.
const ENDS: [(&str, Option<&str>); 3] =
    [("upper end", None), ("tp_btf", Some("tp_btf")), ("lower end", Some("raw_tp"))];

pub fn run(scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    for (end, rung) in ENDS {
        // Of opens the rung below the one that denies: whoever may not deny is on it.
        let forced: Vec<(&str, &str)> = match rung {
            None => vec![("file_open", "fentry")],
            Some(rung) => HOOKS.iter().filter_map(|hook| Some((hook.name, hook.rung(rung)?.name))).collect(),
        };
        match Suite::start(&forced, &scratch.join(end.replace(' ', "-"))) {
            // On machines that refuse fentry the upper end is one of the others.
            Ok(suite) if rung.is_none() && !suite.has_fentry() => {
                told(
                    &format!("every way is seen or declared ({end})"),
                    Ended::Skipped("fentry is refused here".into()),
                );
            }
            Ok(mut suite) => {
                if let Some(why) = suite.refused_by_kernel() {
                    told(&format!("the programs of the {end} load"), Ended::NotOk(why));
                }
                suite.run(end, |_| true, told);
                if suite.rung_of("dns") == Some("fentry") {
                    told(&format!("an answer that a question quotes is none ({end})"), suite.quotes_nothing());
                }
            }
            Err(why) => told(&format!("the programs load ({end})"), Ended::NotOk(why)),
        }
    }
    opens_by_lsm(&scratch.join("lsm"), told);
    names_by_datagrams(&scratch.join("fentry_udp"), told);
    filesystems::run(&scratch.join("filesystems"), told);
}

/// The rung that denies.
fn opens_by_lsm(scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    const RUNG: &str = "lsm";
    match Suite::start(&[("file_open", RUNG)], scratch) {
        Ok(suite) if suite.rung_of("file_open") != Some(RUNG) => {
            let why = Ended::Skipped("BPF LSM is refused here, or `bpf` is not in `lsm=`".into());
            told(&format!("every way to open is seen or declared ({RUNG})"), why);
        }
        Ok(mut suite) => {
            let opens = ["open ", "receive ", "take "];
            suite.run(
                RUNG,
                |way| way.subject == Subject::Read && opens.iter().any(|verb| way.name.starts_with(verb)),
                told,
            );
        }
        Err(why) => told(&format!("the programs load ({RUNG})"), Ended::NotOk(why)),
    }
}

/// The rung for kernels that do not say where pages lie.
fn names_by_datagrams(scratch: &Path, told: &mut dyn FnMut(&str, Ended)) {
    const RUNG: &str = "fentry_udp";
    match Suite::start(&[("dns", RUNG)], scratch) {
        Ok(suite) if !suite.has_fentry() => {
            told(
                &format!("every way to a name is seen or declared ({RUNG})"),
                Ended::Skipped("fentry is refused here".into()),
            );
        }
        Ok(suite) if suite.rung_of("dns") != Some(RUNG) => {
            told(&format!("the programs of {RUNG} load"), Ended::NotOk(format!("{:?}", suite.rung_of("dns"))));
        }
        Ok(mut suite) => {
            // Older kernels put a short message in one piece with its headers all the same.
            let is_gone = |way: &Way| expect::of(way.name).is_some() && !way.name.contains("in two pieces");
            suite.run(RUNG, |way| way.subject == Subject::Name && is_gone(way), told);
        }
        Err(why) => told(&format!("the programs load ({RUNG})"), Ended::NotOk(why)),
    }
}

struct Suite {
    bench: Bench,
    scratch: PathBuf,
    name_server: Result<&'static NameServer, String>,
}

impl Suite {
    fn start(forced: &[(&str, &str)], scratch: &Path) -> Result<Self, String> {
        fs::create_dir_all(scratch).map_err(|error| error.to_string())?;
        let bench = Bench::start(forced, RING_BYTES, None)?;
        Ok(Self { bench, scratch: scratch.to_owned(), name_server: NameServer::get() })
    }

    fn rung_of(&self, hook: &str) -> Option<&'static str> {
        let verdict = self.bench.verdicts().iter().find(|verdict| verdict.hook.name == hook)?;
        verdict.attached().map(|rung| rung.name)
    }

    /// What the kernel did not take, where it takes programs of this kind at all: a hook would only climb down, and the table
    /// call blind what nothing sees any more.
    fn refused_by_kernel(&self) -> Option<String> {
        let refused = self.bench.verdicts().iter().filter_map(|verdict| {
            let refusal = verdict.refused.iter().find(|refusal| refusal.by_kernel)?;
            Some(format!("{}: {}", verdict.hook.name, refusal.reason))
        });
        let refused: Vec<String> = refused.collect();
        (self.has_fentry() && !refused.is_empty()).then(|| refused.join("; "))
    }

    fn has_fentry(&self) -> bool {
        let rungs = self.bench.verdicts().iter().filter_map(HookVerdict::attached);
        rungs.into_iter().any(|rung| rung.name == "fentry")
    }

    /// Goes every way that is `wanted`.
    fn run(&mut self, end: &str, wanted: impl Fn(&Way) -> bool, told: &mut dyn FnMut(&str, Ended)) {
        for (number, way) in WAYS.iter().enumerate().filter(|(_, way)| wanted(way)) {
            let name = format!("{} ({end})", way.name);
            let seen_by = way.seen(self.bench.verdicts());
            let Some(expected) = expect::of(way.name) else {
                told(&name, Ended::NotRun(not_gone(way, seen_by.is_some())));
                continue;
            };
            let ended = match self.gone(number, way, expected) {
                Ok(Went::Unable(why)) => Ended::NotRun(why),
                Ok(Went::Told(seen)) => match (seen, seen_by) {
                    (Ok(()), Some(_)) | (Err(_), None) => Ended::Ok,
                    (Err(why), Some((hook, rung))) => Ended::NotOk(format!("{hook} on {rung} should see it: {why}")),
                    (Ok(()), None) => Ended::NotOk("it is seen, and the table calls it blind".to_owned()),
                },
                Err(why) => Ended::NotOk(why),
            };
            told(&name, ended);
        }
    }

    /// Goes the way, and once more where it was not told of and the kernel says why: that it skipped a program which another
    /// task, preempted in it, was at work in on that CPU. From 7.x the programs at the return of system calls can be preempted
    /// (`__BPF_DECLARE_TRACE_SYSCALL` of include/trace/bpf_probe.h). The daemon tells each such skip as a loss.
    fn gone(&mut self, number: usize, way: &Way, expected: Expected) -> Result<Went, String> {
        const MOST: usize = 5;
        for _ in 1..MOST {
            let skipped = self.skipped_by_kernel();
            let went = self.go_once(number, way, expected)?;
            if !matches!(went, Went::Told(Err(_))) || self.skipped_by_kernel() == skipped {
                return Ok(went);
            }
            println!("# {}: the kernel skipped a program; gone again", way.name);
        }
        self.go_once(number, way, expected)
    }

    fn skipped_by_kernel(&mut self) -> u64 {
        self.bench.probes().recursion_misses().iter().map(|(_, misses)| misses).sum()
    }

    fn go_once(&mut self, number: usize, way: &Way, expected: Expected) -> Result<Went, String> {
        match way.subject {
            Subject::Egress => self.go_out(way.name, expected),
            Subject::Name => self.ask(way.name),
            Subject::Read | Subject::Change => self.go(number, way.name, expected),
        }
    }

    /// Goes the way in a child process and judges what came of it.
    fn go(&mut self, number: usize, way: &str, expected: Expected) -> Result<Went, String> {
        let text = |error: std::io::Error| error.to_string();
        let site = Site {
            file: self.scratch.join(format!("{number}/models/w.safetensors")),
            outside: self.scratch.join(format!("{number}/outside")),
        };
        fs::create_dir_all(site.watched()).and_then(|()| fs::create_dir_all(&site.outside)).map_err(text)?;
        let overlay = if way.contains("overlay") {
            match Overlay::mount(&site) {
                Ok(overlay) => Some(overlay),
                Err(error) => return Ok(Went::Unable(format!("this machine mounts no overlay: {error}"))),
            }
        } else {
            None
        };
        if overlay.is_none() {
            fs::write(&site.file, vec![7; FILE_BYTES]).map_err(text)?;
        }
        let file = fs::metadata(&site.file).map_err(text)?;
        self.bench.watch(site.watched())?;
        self.bench.drain_quickly();
        let went = child(way, &site.file.display().to_string(), &site.outside.display().to_string());
        if let Err(went) = went {
            return went;
        }
        let is_it = |event: &Event| expected.is_met_by(event, &site.file, file.ino());
        Ok(Went::Told(self.seen(is_it)))
    }

    /// The same of a way out, to sockets of this process.
    fn go_out(&mut self, way: &str, expected: Expected) -> Result<Went, String> {
        let text = |error: std::io::Error| error.to_string();
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
        let outside = Outside { tcp: tcp.local_addr().map_err(text)?, udp: udp.local_addr().map_err(text)? };
        self.bench.drain_quickly();
        if let Err(went) = child(way, &outside.tcp.to_string(), &outside.udp.to_string()) {
            return went;
        }
        Ok(Went::Told(self.seen(|event| expected.is_met_outside(event, outside))))
    }

    /// The same of a way to learn a name, from a name server of this process.
    fn ask(&mut self, way: &str) -> Result<Went, String> {
        let server = self.name_server.as_ref().map_err(Clone::clone);
        match server {
            Ok(server) if way.contains("IPv6") && !server.has_v6 => {
                return Ok(Went::Unable("another server has [::1]:53".to_owned()));
            }
            Ok(_) => {}
            Err(why) => return Ok(Went::Unable(why)),
        }
        self.bench.drain_quickly();
        let (server, server6) = NameServer::addresses();
        if let Err(went) = child(way, &server, &server6) {
            return went;
        }
        Ok(Went::Told(self.seen(names::is_told())))
    }

    /// Where names come from the kernel's memory, nobody makes an answer of what a server repeats.
    fn quotes_nothing(&mut self) -> Ended {
        match self.ask(names::QUOTE) {
            Ok(Went::Told(Err(_))) => Ended::Ok,
            Ok(Went::Told(Ok(()))) => Ended::NotOk("it is told as an answer".to_owned()),
            Ok(Went::Unable(why)) => Ended::NotRun(why),
            Err(why) => Ended::NotOk(why),
        }
    }

    fn seen(&mut self, is_it: impl Fn(&Event) -> bool) -> Result<(), String> {
        self.bench.expect_among(|event| !matches!(event.what, What::Fork(_) | What::Exec(_)), is_it)
    }
}

/// Lets a child process go the way. An error is how that ended when it did not get there.
fn child(way: &str, one: &str, other: &str) -> Result<(), Result<Went, String>> {
    let this = std::env::current_exe().map_err(|error| Err(error.to_string()))?;
    let child = Command::new(this).args(["act", way, one, other]).output().map_err(|error| Err(error.to_string()))?;
    let said = String::from_utf8_lossy(&child.stderr).trim().to_owned();
    if child.status.code() == Some(act::UNABLE.into()) {
        Err(Ok(Went::Unable(said)))
    } else if child.status.success() {
        Ok(())
    } else {
        Err(Err(format!("the child: {}: {said}", child.status)))
    }
}

/// What the table says of a way that no test goes; nobody has proven it.
fn not_gone(way: &Way, is_seen: bool) -> String {
    let says = if is_seen { "it is seen" } else { way.otherwise };
    format!("no test goes this way; the table says: {says}")
}

/// An overlay in the place of the watched directory, its lower layer outside.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(site: &Site) -> std::io::Result<Self> {
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| site.outside.join(name));
        [&lower, &upper, &work].into_iter().try_for_each(fs::create_dir_all)?;
        fs::write(lower.join("w.safetensors"), vec![7; FILE_BYTES])?;
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let options = std::ffi::CString::new(options)?;
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", site.watched(), "overlay", flags, Some(options.as_c_str()))?;
        Ok(Self(site.watched().to_owned()))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

enum Went {
    /// What the expected event was, or what came instead.
    Told(Result<(), String>),
    /// The machine lacks something that the way needs.
    Unable(String),
}
