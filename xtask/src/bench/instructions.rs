//! What the kernel programs add to calls that concern nobody, in instructions, on every rung: in an emulated machine whose
//! clock goes on by one nanosecond with each instruction. What an instruction costs on hardware is not measured so.

use std::collections::HashMap;

use crate::build::Build;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::vm::{self, Errand};

/// The oldest kernel with fentry for file hooks that people run, and the newest.
const KERNELS: [&str; 2] = ["6.1", "newest"];

pub(super) fn run(_: &Build) -> Result<()> {
    let cache = Cache::open()?;
    vm::build(&cache)?;
    for name in KERNELS {
        let kernel = name.parse().map_err(Error::said)?;
        let mut bare = HashMap::new();
        vm::boot(&cache, kernel, &vm::default_init(), Errand::Cost, &mut |line| {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["cost", rung, call, count] => {
                    let count: f64 = count.parse().unwrap_or(f64::NAN);
                    let first = *bare.entry(call.to_owned()).or_insert(count);
                    println!("{name:6} {call:10} {rung:6} {count:8.0} instructions, {:+.0}", count - first);
                }
                _ if line.starts_with("not ok") => println!("{line}"),
                _ => {}
            }
        })?;
        if bare.is_empty() {
            return Err(Error::said(format!("kernel {name} told no cost")));
        }
    }
    Ok(())
}
