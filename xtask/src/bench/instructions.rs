//! What the kernel programs add to calls that concern nobody, in instructions, on every rung, and what opens cost where policies
//! deny: in an emulated machine whose clock goes on by one nanosecond with each instruction. What an instruction costs on hardware is not measured so.

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
                    // Of opens that are decided, the one with the fewest policies is what the others are compared with.
                    let same = call.split('/').next().unwrap_or(call);
                    let first = *bare.entry(same.to_owned()).or_insert(count);
                    let (more, ratio) = (count - first, count / first);
                    println!("{name:6} {call:18} {rung:6} {count:8.0} instructions, {more:+.0}, ratio {ratio:.2}");
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
