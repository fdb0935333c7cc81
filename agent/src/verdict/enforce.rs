//! What this kernel, and this version, can do of what policies ask for.

use plumbline_policy::{KernelProfile, Need};

use crate::probes::kernel::{KernelFacts, cgroup2_root};

/// This kernel.
pub fn this_kernel() -> KernelProfile {
    let facts = KernelFacts::read();
    KernelProfile::new("this kernel", |need| match need {
        Need::DenyOpen => Err("this version of plumbline does not deny opens yet".to_owned()),
        Need::DenyConnect => Err("this version of plumbline does not deny connections yet".to_owned()),
        Need::Kill => Ok("pidfd".to_owned()),
        Need::BpfLsm => match &facts.lsm {
            Ok(modules) if modules.split(',').any(|module| module == "bpf") => Ok("BPF LSM".to_owned()),
            Ok(modules) => Err(format!("`bpf` is not among the security modules ({modules})")),
            Err(why) => Err(format!("the security modules are not known ({why})")),
        },
        Need::CgroupV2 => match cgroup2_root() {
            Ok(root) => Ok(format!("mounted at {}", root.display())),
            Err(error) => Err(error.to_string()),
        },
    })
}
