//! QEMU, the machine's own or Debian's package unpacked into the cache, and one boot of it under watch.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::apt::Apt;
use crate::cache::Cache;
use crate::cmd;
use crate::error::{Error, Result};

const PROGRAM: &str = "qemu-system-x86_64";

/// Between two lines of the console; a guest that is silent for longer hangs.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// From start to end; a run takes half a minute, on a busy machine some minutes.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// What the guest prints last when all its tests have run.
const DONE: &str = "vm: done";

/// What its lines begin with, and the kernel's own do not.
const OF_THE_GUEST: [&str; 4] = ["# ", "ok ", "not ok ", "skip "];

/// A kernel whose emulation fails before its first process has begun says nothing of what that would have found: it is booted again.
/// QEMU 7.2 now and then has a processor run into a breakpoint that another has just taken out of the kernel's code (`Oops: int3`).
const BOOTS: u32 = 3;

/// Texts of the kernel after which nothing good comes.
const FATAL: [&str; 4] = ["Kernel panic", "soft lockup", "rcu_preempt detected stalls", "Unable to mount root fs"];

/// What the first process of the guest does; the kernel hands what it does not know of its command line to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// All checks.
    Checks,
    /// The same, but the ways to files only on the file system at hand.
    ChecksOnOneFileSystem,
    /// Those of what policies deny.
    Denying,
    /// It measures what the programs cost, on one processor whose clock goes on by a nanosecond with each instruction.
    Cost,
}

#[derive(Debug)]
pub(crate) struct Qemu {
    /// Where the package is unpacked; none when the machine has its own.
    root: Option<PathBuf>,
}

impl Qemu {
    pub(crate) fn set_up(cache: &Cache) -> Result<Self> {
        if cmd::exists(PROGRAM) {
            return Ok(Self { root: None });
        }
        let root = cache.item("qemu", |scratch| {
            let apt = Apt::of_machine(cache)?;
            let packages = apt.closure("qemu-system-x86")?;
            apt.unpack(&packages, &scratch.join("root"))
        })?;
        Ok(Self { root: Some(root.join("root")) })
    }

    fn command(&self) -> Command {
        let Some(root) = &self.root else { return Command::new(PROGRAM) };
        let mut command = Command::new(root.join("usr/bin").join(PROGRAM));
        let multiarch = root.join("usr/lib/x86_64-linux-gnu");
        let libraries = [multiarch.clone(), root.join("lib/x86_64-linux-gnu"), multiarch.join("pulseaudio")];
        command.env("LD_LIBRARY_PATH", libraries.map(|path| path.display().to_string()).join(":"));
        command.env("QEMU_MODULE_DIR", multiarch.join("qemu"));
        for firmware in ["usr/share/seabios", "usr/share/qemu"] {
            command.arg("-L").arg(root.join(firmware));
        }
        command
    }

    /// Boots and gives every line of the console to `on_line`, until the guest says that it is done.
    pub(crate) fn boot(
        &self,
        kernel: &Path,
        initramfs: &Path,
        errand: Errand,
        log_path: &Path,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<()> {
        for _ in 1..BOOTS {
            let mut has_begun = false;
            let ended = self.boot_once(kernel, initramfs, errand, log_path, &mut |line| {
                has_begun |= OF_THE_GUEST.iter().any(|beginning| line.starts_with(beginning));
                on_line(line);
            });
            match ended {
                Err(error) if !has_begun => println!("booted again, as its first process did not begin: {error}"),
                ended => return ended,
            }
        }
        self.boot_once(kernel, initramfs, errand, log_path, on_line)
    }

    fn boot_once(
        &self,
        kernel: &Path,
        initramfs: &Path,
        errand: Errand,
        log_path: &Path,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let mut log = File::create(log_path).map_err(Error::file("create", log_path))?;
        let mut command = self.command();
        // Plain emulation: the same on every machine, while KVM inside a virtual machine may start and then fail.
        // Without `cx16`: QEMU 7.2 emulates a 16-byte compare-and-swap that is interrupted with wrong flags, and half of
        // the runs of a 6.12 kernel, whose allocator uses it, ended in a double fault. The kernel has a way around it.
        command.args(["-accel", "tcg", "-cpu", "max,-cx16", "-m", "1024"]);
        let (processors, extra) = match errand {
            Errand::Checks => ("2", ""),
            Errand::ChecksOnOneFileSystem => ("2", " PLUMBLINE_FILESYSTEMS=one"),
            Errand::Denying => ("2", " PLUMBLINE_PART=denying"),
            Errand::Cost => {
                command.args(["-icount", "shift=0,sleep=off"]);
                ("1", " PLUMBLINE_COST=1")
            }
        };
        command.args(["-smp", processors]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        command.arg("-append").arg(format!("console=ttyS0 panic=-1 quiet lsm=lockdown,yama,bpf{extra}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|source| Error::Start { program: PROGRAM.to_owned(), source })?;
        let mut guest = Guest { child };

        let lines = guest.lines();
        let deadline = Instant::now() + TIME_LIMIT;
        let mut tail = Vec::new();
        let mut fatal = None;
        let fail = |why: &str, tail: &[String]| {
            let recent = tail[tail.len().saturating_sub(25)..].join("\n  ");
            Error::said(format!("{why}; the console ended with:\n  {recent}\nwhole console: {}", log_path.display()))
        };
        loop {
            let patience = deadline.saturating_duration_since(Instant::now()).min(SILENCE_LIMIT);
            let line = match lines.recv_timeout(patience) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(fail(&format!("no line for {} s", patience.as_secs()), &tail));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(fail(fatal.unwrap_or("the machine stopped before it was done"), &tail));
                }
            };
            writeln!(log, "{line}").map_err(Error::file("write", log_path))?;
            if line == DONE {
                return Ok(());
            }
            // The machine stops by itself after a panic (`panic=-1`, `-no-reboot`); the lines up to there tell why.
            fatal = fatal.or_else(|| FATAL.into_iter().find(|text| line.contains(text)));
            on_line(&line);
            tail.push(line);
        }
    }
}

/// A running machine; it does not outlive its watcher.
#[derive(Debug)]
struct Guest {
    child: Child,
}

impl Guest {
    /// The console's lines, and QEMU's own complaints, as they come; closed when QEMU has ended.
    fn lines(&mut self) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            self.child.stdout.take().map(|stream| Box::new(stream) as _),
            self.child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // Bytes, not text: a console may say anything.
                for line in BufReader::new(stream).split(b'\n').map_while(std::io::Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        receiver
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
