//! What the kernel programs cost, in instructions: for a machine whose clock goes on by a nanosecond with each instruction
//! (QEMU's `-icount shift=0`). Elsewhere the figures are nanoseconds, and `cargo xtask bench open` has better ones.

use std::{fs::File, hint::black_box, path::Path, time::Instant};

use plumbline::probes::hooks::{HOOKS, Hook};

use crate::bench::Bench;

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
    Ok(())
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
