//! What a policy needs of the kernel, known before it is in force.
//!
//! A kernel is described by a [`KernelProfile`]: this one, as the daemon finds it, or a named one, whose abilities follow
//! from its version and from whether `bpf` is in its `lsm=`.

use std::fmt;

use crate::object::When;
use crate::policy::{Effect, Mode, Otherwise, Policy};
use crate::shape::Words;

/// Something that a kernel may be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// An open can fail with EPERM: BPF LSM, or fanotify permission events.
    DenyOpen,
    /// A connection can fail with EPERM: cgroup hooks, or BPF LSM.
    DenyConnect,
    /// A process can be ended: every kernel since 5.3 (pidfd).
    Kill,
    /// `bpf` is in `lsm=`: denied in the kernel, without a way around.
    BpfLsm,
    /// Cgroup version 2 is mounted.
    CgroupV2,
}

impl Words for Need {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("deny-open", Self::DenyOpen),
        ("deny-connect", Self::DenyConnect),
        ("kill", Self::Kill),
        ("bpf-lsm", Self::BpfLsm),
        ("cgroup-v2", Self::CgroupV2),
    ];
}

impl Need {
    pub const ALL: [Self; 5] = [Self::DenyOpen, Self::DenyConnect, Self::Kill, Self::BpfLsm, Self::CgroupV2];

    pub fn as_str(self) -> &'static str {
        self.word()
    }
}

/// What a kernel can do: how, or why not, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelProfile {
    pub name: String,
    answers: Vec<(Need, Result<String, String>)>,
}

/// The oldest kernel that the daemon runs on.
const OLDEST: (u32, u32) = (5, 10);

impl KernelProfile {
    /// What was found of a kernel.
    pub fn new(name: impl Into<String>, answer: impl Fn(Need) -> Result<String, String>) -> Self {
        Self { name: name.into(), answers: Need::ALL.map(|need| (need, answer(need))).into() }
    }

    /// A kernel by its version, such as `6.1`, or `6.1+bpf-lsm` where `bpf` is in `lsm=`. Everything else is taken as
    /// distributions build it: cgroup v2, type information, fanotify permission events.
    pub fn named(name: &str) -> Result<Self, String> {
        let (version, has_lsm) = match name.split_once('+') {
            Some((version, "bpf-lsm")) => (version, true),
            Some((_, other)) => return Err(format!("`+{other}` is not known; write `{}+bpf-lsm`", "6.1")),
            None => (name, false),
        };
        let mut numbers = version.split('.').map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err(format!("`{name}` is not a kernel; write a version such as `6.1`, or `6.1+bpf-lsm`"));
        };
        if (major, minor) < OLDEST {
            return Err(format!("kernel {version} is older than {}.{}, which the daemon needs", OLDEST.0, OLDEST.1));
        }
        let lsm = || {
            if has_lsm { Ok("BPF LSM".to_owned()) } else { Err("`bpf` is not in `lsm=`".to_owned()) }
        };
        Ok(Self::new(name, |need| match need {
            Need::DenyOpen => lsm().or(Ok("fanotify".to_owned())),
            Need::DenyConnect => lsm().or(Ok("cgroup hooks".to_owned())),
            Need::Kill => Ok("pidfd".to_owned()),
            Need::BpfLsm => lsm(),
            Need::CgroupV2 => Ok("mounted".to_owned()),
        }))
    }

    /// How it is met, or why it is not.
    pub fn answer(&self, need: Need) -> Result<&str, &str> {
        match self.answers.iter().find(|(other, _)| *other == need) {
            Some((_, Ok(how))) => Ok(how),
            Some((_, Err(why))) => Err(why),
            None => Err("nobody has looked"),
        }
    }
}

/// A need of a policy that a kernel does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    pub policy: String,
    pub need: Need,
    /// Why the kernel does not meet it.
    pub why: String,
    pub otherwise: Otherwise,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, need, why, otherwise } = self;
        let then = match otherwise {
            Otherwise::Refuse => "the set is refused; write `otherwise: degrade` to have it monitor instead",
            Otherwise::Degrade => "it monitors instead",
        };
        write!(f, "policy `{policy}` needs `{}`, and {why}: {then}", need.as_str())
    }
}

impl Policy {
    /// What it needs of the kernel: what its author says, and in `enforce` what its effects need.
    pub fn needs(&self) -> Vec<Need> {
        let mut needs = self.requires.clone();
        if self.mode == Mode::Enforce {
            needs.extend(self.rules.iter().filter_map(|rule| match (rule.effect, &rule.when) {
                (Effect::Deny, When::Connect(_)) => Some(Need::DenyConnect),
                (Effect::Deny, _) => Some(Need::DenyOpen),
                (Effect::Kill, _) => Some(Need::Kill),
                (Effect::Audit | Effect::Alert, _) => None,
            }));
        }
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    /// What of that the kernel does not meet.
    pub fn unmet<'a>(&'a self, kernel: &'a KernelProfile) -> impl Iterator<Item = Unmet> + 'a {
        self.needs().into_iter().filter_map(move |need| {
            let why = kernel.answer(need).err()?.to_owned();
            Some(Unmet { policy: self.name.to_string(), need, why, otherwise: self.otherwise })
        })
    }
}
