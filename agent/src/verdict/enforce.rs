//! What this kernel, and this version, can do of what policies ask for.

use plumbline_policy::{KernelProfile, Need};

use crate::probes::{
    HookVerdict, gate,
    kernel::{bpf_lsm, cgroup2_root},
};

/// The rungs that deny, by hook, and what is said of each.
const DENYING: &[(&str, &str)] = &[("lsm", "BPF LSM"), ("cgroup", "cgroup hooks")];

/// This kernel, without having asked it to take a program.
pub fn this_kernel() -> KernelProfile {
    profile(|need| match need {
        Need::DenyOpen => bpf_lsm().map(|()| "BPF LSM".to_owned()).or_else(|_| fanotify()),
        _ => bpf_lsm().map(|()| "BPF LSM".to_owned()).or_else(|_| {
            cgroup2_root().map(|_| "cgroup hooks".to_owned()).map_err(|error| format!("no cgroup hooks: {error}"))
        }),
    })
}

/// This kernel, given how each hook fared, or why there are none, and whether the tables of what is denied are there.
pub fn with(verdicts: Result<&[HookVerdict], &str>, has_tables: bool) -> KernelProfile {
    let how = |hook: &str| {
        let verdicts = verdicts.map_err(|why| format!("no kernel program runs ({why})"))?;
        if !has_tables {
            return Err("the kernel's tables of what is denied cannot be had".to_owned());
        }
        let verdict = verdicts.iter().find(|verdict| verdict.hook.name == hook);
        let rung = verdict.and_then(HookVerdict::attached).map(|rung| rung.name);
        match DENYING.iter().find(|(name, _)| Some(*name) == rung) {
            Some((_, words)) => Ok((*words).to_owned()),
            None => Err(match verdict {
                Some(verdict) => format!("no program that denies is attached: {hook} is {}", verdict.describe()),
                None => format!("there is no hook {hook}"),
            }),
        }
    };
    profile(|need| match need {
        // What fanotify asks about is found by the hook on opens, on whichever rung.
        Need::DenyOpen => how("file_open").or_else(|why| {
            let is_attached = |verdict: &&HookVerdict| verdict.hook.name == "file_open" && verdict.attached().is_some();
            match verdicts.is_ok_and(|verdicts| verdicts.iter().any(|verdict| is_attached(&verdict))) && has_tables {
                true => fanotify().map_err(|besides| format!("{why}; {besides}")),
                false => Err(why),
            }
        }),
        // Connections need both.
        _ => how("udp_send").and_then(|_| how("udp_connect")),
    })
}

fn fanotify() -> Result<String, String> {
    gate::is_possible().map(|()| format!("fanotify (fails open after {} ms)", gate::PATIENCE.as_millis()))
}

fn profile(deny: impl Fn(Need) -> Result<String, String>) -> KernelProfile {
    KernelProfile::new("this kernel", |need| match need {
        Need::DenyOpen | Need::DenyConnect => deny(need),
        Need::Kill => Ok("pidfd".to_owned()),
        Need::BpfLsm => bpf_lsm().map(|()| "BPF LSM".to_owned()),
        Need::CgroupV2 => match cgroup2_root() {
            Ok(root) => Ok(format!("mounted at {}", root.display())),
            Err(error) => Err(error.to_string()),
        },
    })
}
