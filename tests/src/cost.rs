//! What the kernel programs cost, in instructions: for a machine whose clock goes on by a nanosecond with each instruction
//! (QEMU's `-icount shift=0`). Elsewhere the figures are nanoseconds, and `cargo xtask bench open` has better ones.

use std::{
    fs::File,
    hint::black_box,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use plumbline::probes::hooks::{HOOKS, Hook};

use crate::{bench::Bench, bench_deny};

const BATCHES: usize = 5;
const CALLS: u32 = 500;
const RING_BYTES: u32 = 1 << 20;

/// Prints one line per call and rung: `cost RUNG CALL INSTRUCTIONS`.
pub fn run(scratch: &Path) {
    if let Err(why) = measure(scratch) {
        println!("not ok the cost of the kernel programs is measured: {why}");
    }
}

fn measure(scratch: &Path) -> Result<(), String> {
    std::fs::create_dir_all(scratch).map_err(|error| error.to_string())?;
    tell("bare")?;
    for rung in Hook::find("file_open").map_or(&[][..], |hook| hook.rungs) {
        // Each hook on this rung, or on its best where it has no such rung.
        let forced: Vec<(&str, &str)> =
            HOOKS.iter().filter_map(|hook| Some((hook.name, hook.rung(rung.name)?.name))).collect();
        let bench = Bench::start(&forced, RING_BYTES, Some(scratch))?;
        tell(rung.name)?;
        drop(bench);
    }
    denied(scratch)
}

/// Opens of a file in a directory in which a policy denies, by a process that it denies and by one that it does not: with one
/// policy, and with a thousand of which each has a directory.
fn denied(scratch: &Path) -> Result<(), String> {
    const MANY: usize = 1000;
    let text = |error: std::io::Error| error.to_string();
    let rung = "lsm";
    let keep = ["file_open", "exec", "fork"];
    let forced: Vec<(&str, &str)> = HOOKS
        .iter()
        .filter(|hook| !keep.contains(&hook.name))
        .map(|hook| (hook.name, "off"))
        .chain([("file_open", rung)])
        .collect();
    let mut bench = Bench::start(&forced, RING_BYTES, None)?;
    for count in [1, MANY] {
        println!("# {count} policies that deny");
        let policies = bench_deny::policies(scratch, count, 0)?;
        bench.enforce_all(&policies)?;
        let file = bench_deny::directory(scratch, 0).join("w.gguf");
        std::fs::write(&file, "weights").map_err(text)?;
        for uid in [0, bench_deny::EXCUSED_UID] {
            let exe = std::env::current_exe().map_err(text)?;
            let child = Command::new(exe).args(["opens", &file.display().to_string()]).uid(uid).output();
            let child = child.map_err(text)?;
            let said = String::from_utf8_lossy(&child.stdout).trim().to_owned();
            if !child.status.success() {
                return Err(format!("{}: {said}{}", child.status, String::from_utf8_lossy(&child.stderr)));
            }
            let (call, cost) = said.split_once(' ').unwrap_or((&said, "nothing"));
            println!("cost {rung} {call}/{count} {cost}");
            bench.drain();
        }
    }
    Ok(())
}

/// What an open of this file costs the process that does it: `vm-init opens FILE`.
pub fn opens(file: &Path) -> ExitCode {
    let is_denied = File::open(file).is_err();
    let cost = per_call(|| {
        drop(black_box(File::open(file)));
        Ok(())
    });
    match cost {
        Ok(cost) => {
            println!("{} {cost:.0}", if is_denied { "open-denied" } else { "open-allowed" });
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn tell(rung: &str) -> Result<(), String> {
    let open =
        per_call(|| File::open("/proc/self/exe").map(|file| drop(black_box(file))).map_err(|error| error.to_string()))?;
    println!("cost {rung} open+close {open:.0}");
    let getppid = per_call(|| {
        black_box(rustix::process::getppid());
        Ok(())
    })?;
    println!("cost {rung} getppid {getppid:.0}");
    Ok(())
}

/// The median of some batches.
fn per_call(mut call: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..CALLS {
            call()?;
        }
        batches.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
    }
    batches.sort_by(f64::total_cmp);
    Ok(batches[BATCHES / 2])
}
